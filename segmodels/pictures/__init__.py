"""Pictures of masks, segments and clusters."""
