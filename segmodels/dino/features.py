"""Photographs in, feature arrays out: what the pipeline stores of the backbone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from segmodels.dino.backbone import Backbone
from segmodels.dino.pixels import normalised_pixels, resize_square


@dataclass(frozen=True)
class ImageFeatures:
    """Features of one photograph as stored.

    Attributes:
        keys: (gh, gw, d) float16, last-block keys.
        cls: (d,) float32, CLS after the final norm.
    """

    keys: np.ndarray
    cls: np.ndarray


def image_features(
    backbone: Backbone,
    images: Iterable[np.ndarray],
    *,
    image_size: int | None = None,
    batch_size: int = 8,
) -> Iterator[ImageFeatures]:
    """Compute the features of photographs, a batch at a time, in their order.

    Args:
        backbone: see `load_backbone`.
        images: (H, W, 3) uint8 RGB each, of any size.
        image_size: side of the square that each is resized to, rounded to the nearest multiple
            of the patch size as MaskCut does; the backbone's recommendation if None.
        batch_size: photographs in one forward pass.

    Raises:
        ValueError: `image_size` is less than half a patch, or `batch_size` is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    side = patch_multiple(image_size or backbone.image_size, backbone.patch_size)
    remaining = iter(images)
    while batch := list(islice(remaining, batch_size)):
        pixels = np.stack([normalised_pixels(resize_square(image, side)) for image in batch])
        features = backbone.extract(torch.from_numpy(pixels))
        keys = features.keys.half().cpu().numpy()
        cls = features.cls.float().cpu().numpy()
        for i in range(len(batch)):
            yield ImageFeatures(keys=keys[i], cls=cls[i])


def patch_multiple(size: int, patch_size: int) -> int:
    """Round a side to the nearest multiple of the patch size (TokenCut's resize_pil).

    Raises:
        ValueError: nothing would be left of the image.
    """
    side = patch_size * round(size / patch_size)
    if side == 0:
        raise ValueError(f"image_size must be at least half a patch of {patch_size}, got {size}")
    return side
