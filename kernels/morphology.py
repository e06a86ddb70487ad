"""Shapes on the pixel grid: connected components and holes, both with 4-neighbours."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def component_at(mask: NDArray[np.bool_], seed: tuple[int, int]) -> NDArray[np.bool_]:
    """The 4-connected part of a mask that holds one pixel.

    Args:
        mask: (H, W) bool.
        seed: row and column of a set pixel.

    Returns:
        (H, W) bool.
    """
    if not mask[seed]:
        raise ValueError(f"seed must lie inside the mask, but {seed} is not set")
    labels, _ = ndimage.label(mask)
    component: NDArray[np.bool_] = labels == labels[seed]
    return component


def fill_holes(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Set the background pixels that no 4-connected background path joins to the image's border.

    Args:
        masks: (m, H, W) bool.

    Returns:
        (m, H, W) bool, a new array.
    """
    if masks.ndim != 3 or masks.dtype != np.bool_:
        raise ValueError(f"masks must be (m, H, W) bool, got {masks.shape} {masks.dtype}")
    filled = masks.copy()
    for mask in filled:
        box = _bounding_box(mask)
        # Outside its bounding box a mask has no holes; the frame joins all outer background.
        labels, _ = ndimage.label(np.pad(~mask[box], 1, constant_values=True))
        mask[box] = (labels != labels[0, 0])[1:-1, 1:-1]
    return filled


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
