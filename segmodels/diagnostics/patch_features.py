"""Sources of patch features and instance vectors that backbone quality can measure."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from segmodels.backbones.backbone import Backbone
from segmodels.backbones.pixels import normalised_pixels, resize_square
from segmodels.u2seg.embeddings import EmbeddingSettings, embed_instances

Keys = NDArray[np.float32]
Masks = NDArray[np.bool_]


class PatchFeatures(Protocol):
    """A source of features; images are (H, W, 3) uint8 RGB.

    Attributes:
        image_size, tau, center_keys: MaskCut's settings for these features.
    """

    image_size: int
    tau: float
    center_keys: bool

    def keys(self, image: NDArray[np.uint8]) -> Keys:
        """Patch features (g, g, d)."""

    def embed(self, image: NDArray[np.uint8], masks: Masks) -> NDArray[np.float32]:
        """Instance vectors (m, d); masks (m, H, W), m at least 1, none empty."""


class BackboneFeatures:
    """A backbone's features as the stages compute them by default: keys, and CLS of masked boxes.

    Args:
        backbone: source of the features.
        image_size: side of the square that keys are computed at, px; 0 takes the recommended.
    """

    def __init__(self, backbone: Backbone, image_size: int = 0) -> None:
        self.image_size = image_size or backbone.image_size
        self.tau = backbone.tau
        self.center_keys = backbone.center_keys
        self._backbone = backbone

    def keys(self, image: NDArray[np.uint8]) -> Keys:
        """See PatchFeatures."""
        pixels = normalised_pixels(resize_square(image, self.image_size))
        keys: Keys = self._backbone.extract(torch.from_numpy(pixels)[None]).keys[0].cpu().numpy()
        return keys

    def embed(self, image: NDArray[np.uint8], masks: Masks) -> NDArray[np.float32]:
        """See PatchFeatures."""
        return embed_instances(image, masks, self._backbone, EmbeddingSettings())
