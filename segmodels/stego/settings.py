"""Settings of STEGO's views and of its segmentation. Nothing here loads torch."""

from dataclasses import dataclass

from kernels.crf import STEGO_CRF, CrfSettings
from segmodels.stego.crops import Resample


@dataclass(frozen=True)
class ViewSettings:
    """Settings of the training views.

    Attributes:
        size: side of each square view, px; a multiple of the patch size (224 as published).
        crop_ratio: share of each side that the five crops keep (0.5 as published).
        resample: filter of the resize. STEGO's loader uses "nearest", which aliases an image
            shrunk to 224 px; "bilinear" (with antialiasing) is ours.
    """

    size: int = 224
    crop_ratio: float = 0.5
    resample: Resample = "bilinear"


@dataclass(frozen=True)
class SegmentationSettings:
    """Settings of the segmentation of an image.

    Attributes:
        size: short side of the working size, px (320 as published; STEGO's evaluation crops the
            central square, here the whole image is kept).
        long_side_limit: longest side of the working size, px.
        crf: refine with the dense CRF.
        crf_settings: constants of the CRF at the working size.
        resample: filter of the resize; STEGO's loader uses "nearest".
    """

    size: int = 320
    long_side_limit: int = 640
    crf: bool = True
    crf_settings: CrfSettings = STEGO_CRF
    resample: Resample = "bilinear"
