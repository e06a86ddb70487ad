"""Features of an image's patches and instances, wherever they come from, to be measured alike."""

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
    """What can be measured; image (H, W, 3) uint8 RGB.

    Attributes:
        image_size, tau, center_keys: what MaskCut uses with it.
    """

    image_size: int
    tau: float
    center_keys: bool

    def keys(self, image: NDArray[np.uint8]) -> Keys:
        """Features (g, g, d) of the image's patches."""

    def embed(self, image: NDArray[np.uint8], masks: Masks) -> NDArray[np.float32]:
        """One vector (m, d) of each instance; masks (m, H, W), m at least 1, none empty."""


class BackboneFeatures:
    """A backbone as stages use it by default: its keys, and the CLS token of masked boxes.

    Args:
        backbone: what is measured.
        image_size: side of the square that keys are computed at, px; 0: the backbone's own.
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
