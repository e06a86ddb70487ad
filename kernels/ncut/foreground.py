"""From eigenvectors to object masks: MaskCut's rules on the patch grid (CutLER, sec. 3.1).

All functions take a batch of n images on the device of the eigenvectors.
"""

from typing import Any

from kernels.backend import Arrays
from kernels.morphology import components_at
from kernels.ncut.eigen import tolerant_argmax

# Objects rarely fill three corners of an image; the background does.
_CORNERS_OF_BACKGROUND = 3
_MAX_IOU = 0.5
_MIN_AREA_SHARE = 0.01


def choose_foreground(eigenvectors: Any, arrays: Arrays) -> Any:
    """Choose the foreground side of every image's cut, and the object in it.

    The foreground is the side above the mean if that holds fewer than three of the grid's corners
    and the entry of largest magnitude, else the other side. The object is its 4-connected component
    around its extreme entry, the first of ties.

    Args:
        eigenvectors: (n, gh, gw) float64, not constant; their signs matter.
        arrays: Their array library.

    Returns:
        (n, gh, gw) bool, none empty.
    """
    xp = arrays.xp
    flat = eigenvectors.reshape(len(eigenvectors), -1)
    above = flat > flat.mean(axis=1, keepdims=True)
    on_grid = above.reshape(eigenvectors.shape)
    corners = on_grid[:, [0, 0, -1, -1], [0, -1, 0, -1]].sum(axis=1)
    peaks = tolerant_argmax(abs(flat))[:, None]
    peak_is_above = xp.take_along_axis(above, peaks, axis=1)[:, 0]
    is_taken = (corners < _CORNERS_OF_BACKGROUND) & peak_is_above
    sides = above == is_taken[:, None]
    seeds = tolerant_argmax(xp.where(is_taken[:, None], flat, -flat))
    return components_at(sides.reshape(eigenvectors.shape), seeds, arrays)


def is_new_object(masks: Any, previous: Any) -> Any:
    """Apply MaskCut's test of the second and later masks: large enough, and no repetition.

    Args:
        masks: (n, gh, gw) bool, the current repetition's objects.
        previous: (n, gh, gw) bool, those of the repetition before; all False where rejected.

    Returns:
        (n,) bool.
    """
    patches = masks.shape[1] * masks.shape[2]
    areas = masks.sum(axis=(1, 2))
    common, union = (masks & previous).sum(axis=(1, 2)), (masks | previous).sum(axis=(1, 2))
    is_large = areas > _MIN_AREA_SHARE * patches
    return is_large & (common <= _MAX_IOU * union)
