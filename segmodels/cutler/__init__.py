"""Class-agnostic object masks: MaskCut, and which of its masks go on (CutLER)."""
