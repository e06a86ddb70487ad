"""Intersection over union (IoU) of masks and of boxes."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

Masks = NDArray[np.bool_]
Packed = NDArray[np.uint64]

_PAIRS = np.uint64(0x3333333333333333)


def mask_iou(a: Masks, b: Masks) -> NDArray[np.float64]:
    """Return the IoU of every pair of masks.

    Args:
        a: (m, H, W) bool.
        b: (n, H, W) bool.

    Returns:
        (m, n) float64 in [0, 1]; 0 where both masks are empty.
    """
    if a.ndim != 3 or b.ndim != 3 or a.shape[1:] != b.shape[1:]:
        raise ValueError(f"masks must be (m, H, W) and (n, H, W), got {a.shape} and {b.shape}")
    packed_a, packed_b = _packed(a), _packed(b)
    common = _common_bits(packed_a, packed_b)
    areas_a = np.bitwise_count(packed_a).sum(axis=1, dtype=np.int64)
    areas_b = np.bitwise_count(packed_b).sum(axis=1, dtype=np.int64)
    return _ratio(common, areas_a[:, None] + areas_b[None, :] - common)


def box_iou_xywh(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Return the IoU of every pair of boxes.

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


def _packed(masks: Masks) -> Packed:
    """Pack masks into (m, words) uint64, one bit a pixel, zero-padded."""
    pixels = masks.shape[1] * masks.shape[2]
    packed = np.zeros((len(masks), -(-pixels // 64) * 8), np.uint8)
    packed[:, : -(-pixels // 8)] = np.packbits(masks.reshape(len(masks), pixels), axis=1)
    return packed.view(np.uint64)


@njit(cache=True, nogil=True)
def _common_bits(a: Packed, b: Packed) -> NDArray[np.int64]:
    common = np.empty((len(a), len(b)), np.int64)
    for row in range(len(a)):
        for column in range(len(b)):
            total = np.uint64(0)
            for word in range(a.shape[1]):
                # The textbook bit count, which the compiler recognises and turns into popcnt.
                bits = a[row, word] & b[column, word]
                bits -= (bits >> np.uint64(1)) & np.uint64(0x5555555555555555)
                bits = (bits & _PAIRS) + ((bits >> np.uint64(2)) & _PAIRS)
                bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
                total += (bits * np.uint64(0x0101010101010101)) >> np.uint64(56)
            common[row, column] = total
    return common
