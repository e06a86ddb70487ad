"""Shapes on the pixel grid: connected components and holes, both with 4-neighbours."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kernels.backend import Arrays

# Neighbours by an edge, and never those of the next image. On the host: CuPy wants it there too.
_WITHIN_AN_IMAGE = np.zeros((3, 3, 3), bool)
_WITHIN_AN_IMAGE[1] = ndimage.generate_binary_structure(2, 1)


def components_at(masks: Any, seeds: Any, arrays: Arrays) -> Any:
    """The 4-connected part of every mask that holds one given pixel.

    Args:
        masks: (n, H, W) bool.
        seeds: (n,) int, a set pixel of each mask, counted along the rows.
        arrays: The library that they belong to.

    Returns:
        (n, H, W) bool.

    Raises:
        ValueError: a seed lies outside its mask.
    """
    xp = arrays.xp
    labels = arrays.ndimage.label(masks, structure=_WITHIN_AN_IMAGE)[0]
    chosen = xp.take_along_axis(labels.reshape(len(masks), -1), seeds[:, None], axis=1)
    if not bool(chosen.all()):
        raise ValueError("seeds must lie inside their masks")
    return labels == chosen[:, :, None]


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
