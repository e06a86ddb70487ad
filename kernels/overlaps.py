"""Intersection over union, of masks and of boxes."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Pixels multiplied at a time: bounds the float copies, and keeps float32 counts exact (< 2**24).
_PIXELS_PER_BLOCK = 1 << 18


def mask_intersection(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Common pixels of every pair.

    Args:
        a: (m, H, W) bool.
        b: (n, H, W) bool.

    Returns:
        (m, n) int64.
    """
    if a.ndim != 3 or b.ndim != 3 or a.shape[1:] != b.shape[1:]:
        raise ValueError(f"masks must be (m, H, W) and (n, H, W), got {a.shape} and {b.shape}")
    pixels = a.shape[1] * a.shape[2]
    flat_a, flat_b = a.reshape(len(a), pixels), b.reshape(len(b), pixels)
    common = np.zeros((len(a), len(b)), dtype=np.int64)
    for start in range(0, pixels, _PIXELS_PER_BLOCK):
        block = slice(start, start + _PIXELS_PER_BLOCK)
        products = flat_a[:, block].astype(np.float32) @ flat_b[:, block].astype(np.float32).T
        common += products.astype(np.int64)
    return common


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Intersection over union of every pair of masks.

    Args:
        a: (m, H, W) bool.
        b: (n, H, W) bool.

    Returns:
        (m, n) float64 in [0, 1]; 0 where both masks are empty.
    """
    common = mask_intersection(a, b)
    areas_a, areas_b = np.count_nonzero(a, axis=(1, 2)), np.count_nonzero(b, axis=(1, 2))
    return _ratio(common, areas_a[:, None] + areas_b[None, :] - common)


def box_iou_xywh(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of every pair of boxes.

    Args:
        a: (m, 4) x, y, w, h in px, w and h >= 0; the box spans [x, x + w) by [y, y + h).
        b: (n, 4) likewise.

    Returns:
        (m, n) float64 in [0, 1]; 0 where both boxes have no area.
    """
    first = np.asarray(a, dtype=np.float64).reshape(-1, 1, 4)
    second = np.asarray(b, dtype=np.float64).reshape(1, -1, 4)
    near = np.maximum(first[..., :2], second[..., :2])
    far = np.minimum(first[..., :2] + first[..., 2:], second[..., :2] + second[..., 2:])
    common = np.prod(np.maximum(far - near, 0.0), axis=-1)
    areas = np.prod(first[..., 2:], axis=-1) + np.prod(second[..., 2:], axis=-1)
    return _ratio(common, areas - common)


def _ratio(common: NDArray[Any], union: NDArray[Any]) -> NDArray[np.float64]:
    ratio = np.zeros(common.shape, dtype=np.float64)
    np.divide(common, union, out=ratio, where=union > 0)
    return ratio
