"""Instance clusters and panoptic pseudo labels (U2Seg)."""
