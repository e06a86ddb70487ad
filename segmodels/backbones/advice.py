"""What weights recommend for MaskCut: stored beside them, and no part of the network."""

from collections.abc import Mapping
from dataclasses import dataclass

from segmodels.backbones.vit import ViTShape
from segmodels.backbones.weights import WeightsFormatError

# MaskCut's published settings (CutLER sec. 3.2), for weights without metadata.
PAPER_IMAGE_SIZE = 480
PAPER_TAU = 0.15


@dataclass(frozen=True)
class MaskCutAdvice:
    """MaskCut settings that suit a backbone's keys.

    Attributes:
        image_size: side of the square input, px; a multiple of the patch size.
        tau: affinity threshold on the cosine of two keys.
        center_keys: subtract the image's mean key before the cosine.
    """

    image_size: int = PAPER_IMAGE_SIZE
    tau: float = PAPER_TAU
    center_keys: bool = False

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], shape: ViTShape) -> "MaskCutAdvice":
        """Read the metadata `image_size`, `tau` and `center_keys`; the paper's where they lack.

        The default size is 480 px if patches fill it, else the native one: DINOv2's patches of
        14 px do not fill 480, and at 518 its positions need no resampling.

        Raises:
            WeightsFormatError: `image_size` is no multiple of the patch size.
        """
        fills = PAPER_IMAGE_SIZE % shape.patch_size == 0
        default = PAPER_IMAGE_SIZE if fills else shape.grid * shape.patch_size
        size = int(metadata.get("image_size", default))
        if size % shape.patch_size:
            raise WeightsFormatError(
                f"the file recommends images of {size} pixels, no multiple of its patch size "
                f"{shape.patch_size}: correct image_size in its metadata"
            )
        return cls(
            size,
            float(metadata.get("tau", PAPER_TAU)),
            metadata.get("center_keys", "false") == "true",
        )
