"""Training views of an image: the whole image and five crops (STEGO `src/crop_datasets.py`)."""

from typing import Literal

import numpy as np
from PIL import Image

Resample = Literal["nearest", "bilinear", "lanczos"]

NUM_VIEWS = 6
"""Whole image, then the crops top left, top right, bottom left, bottom right, centre."""

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


def five_crops(image: np.ndarray, ratio: float) -> list[np.ndarray]:
    """Crop the four corners and the centre of an image, each `ratio` of its height and width.

    Args:
        image: (H, W, 3) uint8 RGB.
        ratio: share of each side, in (0, 1].

    Returns:
        Five arrays (h, w, 3) of one shape, in the order of `NUM_VIEWS`.

    Raises:
        ValueError: ratio out of range.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"crop_ratio must be in (0, 1], got {ratio}")
    height, width = image.shape[:2]
    h, w = max(1, round(height * ratio)), max(1, round(width * ratio))
    bottom, right = height - h, width - w
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    return [image[top : top + h, left : left + w] for top, left in corners]


def resize(image: np.ndarray, height: int, width: int, resample: Resample) -> np.ndarray:
    """Resize an image (H, W, 3) uint8 to (height, width, 3) with the named filter."""
    resized = Image.fromarray(image).resize((width, height), _FILTERS[resample])
    return np.asarray(resized)


def centre_square(image: np.ndarray, size: int, resample: Resample) -> np.ndarray:
    """Resize the short side to `size`, then crop the central square: (size, size, 3) uint8."""
    height, width = image.shape[:2]
    scale = size / min(height, width)
    height, width = max(size, round(height * scale)), max(size, round(width * scale))
    resized = resize(image, height, width, resample)
    top, left = (height - size) // 2, (width - size) // 2
    return resized[top : top + size, left : left + size]


def training_views(
    image: np.ndarray, size: int, *, crop_ratio: float, resample: Resample
) -> np.ndarray:
    """Square views of an image: the whole image and its five crops.

    Args:
        image: (H, W, 3) uint8 RGB.
        size: side of each view, px.
        crop_ratio: share of each side that a crop keeps, in (0, 1].
        resample: filter of the resize; STEGO's loader uses "nearest".

    Returns:
        (6, size, size, 3) uint8, in the order of `NUM_VIEWS`.
    """
    regions = [image, *five_crops(image, crop_ratio)]
    return np.stack([centre_square(region, size, resample) for region in regions])


def working_size(
    height: int, width: int, *, size: int, patch_size: int, long_side_limit: int
) -> tuple[int, int]:
    """Size at which a whole image is segmented; its aspect ratio is kept to the nearest patch.

    STEGO crops a central square, but pseudo labels need every pixel: the short side becomes `size`
    and the long side follows, up to `long_side_limit`.

    Returns:
        (height, width) in pixels, both multiples of `patch_size`.
    """
    scale = min(size / min(height, width), long_side_limit / max(height, width))
    rows = max(1, round(height * scale / patch_size))
    columns = max(1, round(width * scale / patch_size))
    return rows * patch_size, columns * patch_size
