"""From eigenvectors to objects: MaskCut's rules on the patch grid (CutLER, sec. 3.1).

Everything works on n images at once, on the device where the eigenvectors are.
"""

from typing import Any

from kernels.backend import Arrays
from kernels.morphology import components_at
from kernels.ncut.eigen import first_largest

# An object hardly ever fills three corners of a photograph; the background does.
_CORNERS_OF_BACKGROUND = 3
_LARGEST_REPETITION_IOU = 0.5
_SMALLEST_REPETITION_SHARE = 0.01


def choose_foreground(eigenvectors: Any, arrays: Arrays) -> Any:
    """Pick one side of every image's cut, and the object in it.

    The side above the mean is taken if it has fewer than three of the grid's corners and the
    entry of largest magnitude; otherwise the other side is. The object is the 4-connected part
    that holds the side's extreme entry. Of equal entries the first counts.

    Args:
        eigenvectors: (n, gh, gw) float64, none of them constant; their signs matter.
        arrays: The library that they belong to.

    Returns:
        (n, gh, gw) bool, none of them empty.
    """
    xp = arrays.xp
    flat = eigenvectors.reshape(len(eigenvectors), -1)
    above = flat > flat.mean(axis=1, keepdims=True)
    on_grid = above.reshape(eigenvectors.shape)
    corners = on_grid[:, [0, 0, -1, -1], [0, -1, 0, -1]].sum(axis=1)
    peaks = first_largest(abs(flat))[:, None]
    peak_is_above = xp.take_along_axis(above, peaks, axis=1)[:, 0]
    is_taken = (corners < _CORNERS_OF_BACKGROUND) & peak_is_above
    sides = above == is_taken[:, None]
    seeds = first_largest(xp.where(is_taken[:, None], flat, -flat))
    return components_at(sides.reshape(eigenvectors.shape), seeds, arrays)


def are_worth_keeping(masks: Any, previous: Any) -> Any:
    """Whether a repetition found something new: MaskCut's test from the second mask on.

    Args:
        masks: (n, gh, gw) bool, what the repetition found.
        previous: (n, gh, gw) bool, what the repetition before it kept; all False if it kept
            nothing.

    Returns:
        (n,) bool.
    """
    patches = masks.shape[1] * masks.shape[2]
    areas = masks.sum(axis=(1, 2))
    common, union = (masks & previous).sum(axis=(1, 2)), (masks | previous).sum(axis=(1, 2))
    is_large = areas > _SMALLEST_REPETITION_SHARE * patches
    return is_large & (common <= _LARGEST_REPETITION_IOU * union)
