"""Connected components and holes of masks, both with 4-connectivity."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from kernels.backend import Arrays

# Edge neighbours within an image, not between images. NumPy, also for CuPy.
_WITHIN_AN_IMAGE = np.zeros((3, 3, 3), bool)
_WITHIN_AN_IMAGE[1] = ndimage.generate_binary_structure(2, 1)


def components_at(masks: Any, seeds: Any, arrays: Arrays) -> Any:
    """Return the 4-connected component of every mask that holds its seed.

    Args:
        masks: (n, H, W) bool.
        seeds: (n,) int, the row-major index of a set pixel of each mask.
        arrays: Their array library.

    Returns:
        (n, H, W) bool.

    Raises:
        ValueError: A seed lies outside its mask.
    """
    xp = arrays.xp
    labels = arrays.ndimage.label(masks, structure=_WITHIN_AN_IMAGE)[0]
    chosen = xp.take_along_axis(labels.reshape(len(masks), -1), seeds[:, None], axis=1)
    if not bool(chosen.all()):
        raise ValueError("seeds must lie inside their masks")
    return labels == chosen[:, :, None]


def fill_holes(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Set the background pixels without a 4-connected background path to the image's border.

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
        # A mask has no holes outside its bounding box; the padding connects all outer background.
        labels, _ = ndimage.label(np.pad(~mask[box], 1, constant_values=True))
        mask[box] = (labels != labels[0, 0])[1:-1, 1:-1]
    return filled


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
