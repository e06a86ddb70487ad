"""What weights recommend for MaskCut: stored beside them, and no part of the network."""

from collections.abc import Mapping
from dataclasses import dataclass

from segmodels.backbones.vit import ViTShape
from segmodels.backbones.weights import WeightsFormatError


@dataclass(frozen=True)
class MaskCutAdvice:
    """MaskCut settings that suit a backbone's keys; the defaults are the published (CutLER sec. 3.2).

    Attributes:
        image_size: side of the square input, px; a multiple of the patch size.
        tau: affinity threshold on the cosine of two keys.
        center_keys: subtract the image's mean key before the cosine.
    """

    image_size: int = 480
    tau: float = 0.15
    center_keys: bool = False

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], shape: ViTShape) -> "MaskCutAdvice":
        """Read the metadata `image_size`, `tau` and `center_keys`; the defaults where they lack.

        The default size is 480 px if patches fill it, else the native one: DINOv2's patches of
        14 px do not fill 480, and at 518 its positions need no resampling.

        Raises:
            WeightsFormatError: `image_size` is no multiple of the patch size.
        """
        default, patch_size = cls(), shape.patch_size
        fills = default.image_size % patch_size == 0
        suited = default.image_size if fills else shape.grid * patch_size
        size = int(metadata.get("image_size", suited))
        if size % patch_size:
            raise WeightsFormatError(
                f"the file recommends images of {size} pixels, no multiple of its patch size "
                f"{patch_size}: correct image_size in its metadata"
            )
        return cls(
            size,
            float(metadata.get("tau", default.tau)),
            metadata.get("center_keys", "false") == "true",
        )
