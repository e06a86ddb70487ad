"""From an eigenvector to an object: MaskCut's rules on the patch grid (CutLER, sec. 3.1)."""

import numpy as np
from numpy.typing import NDArray

from kernels.morphology import component_at

# An object hardly ever fills three corners of a photograph; the background does.
_CORNERS_OF_BACKGROUND = 3
_LARGEST_REPETITION_IOU = 0.5
_SMALLEST_REPETITION_SHARE = 0.01


def choose_foreground(eigenvector: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pick one side of the cut, and the object in it.

    The side above the mean is taken if it has fewer than three of the grid's corners and the
    entry of largest magnitude; otherwise the other side is. The object is the 4-connected part
    that holds the side's extreme entry. Of equal entries the first counts.

    Args:
        eigenvector: (gh, gw) float64, not constant; its sign matters.

    Returns:
        (gh, gw) bool, not empty.
    """
    above = eigenvector > eigenvector.mean()
    corners = np.count_nonzero(above[[0, 0, -1, -1], [0, -1, 0, -1]])
    peak_is_above = above.flat[np.argmax(np.abs(eigenvector))]
    if corners < _CORNERS_OF_BACKGROUND and peak_is_above:
        side, extreme = above, np.argmax(eigenvector)
    else:
        side, extreme = ~above, np.argmin(eigenvector)
    row, column = divmod(int(extreme), eigenvector.shape[1])
    return component_at(side, (row, column))


def is_worth_keeping(mask: NDArray[np.bool_], previous: NDArray[np.bool_]) -> bool:
    """Whether a repetition found something new: MaskCut's test from the second mask on.

    Args:
        mask: (gh, gw) bool, what the repetition found.
        previous: (gh, gw) bool, what the repetition before it kept; all False if it kept nothing.
    """
    if np.count_nonzero(mask) <= _SMALLEST_REPETITION_SHARE * mask.size:
        return False
    common, union = np.count_nonzero(mask & previous), np.count_nonzero(mask | previous)
    return bool(common <= _LARGEST_REPETITION_IOU * union)
