"""Dense CRF over an image's pixels (Krähenbühl and Koltun, NeurIPS 2011)."""

from kernels.crf.inference import (
    MASKCUT_CRF,
    STEGO_CRF,
    CrfSettings,
    mean_field,
    refine_batch,
    refine_masks,
)

__all__ = ["MASKCUT_CRF", "STEGO_CRF", "CrfSettings", "mean_field", "refine_batch", "refine_masks"]
