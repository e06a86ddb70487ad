"""Unsupervised saliency from background connectivity, without a network.

Zhu, Liang, Wei, Sun, "Saliency Optimization from Robust Background Detection", CVPR 2014: background
is strongly connected to the image's border, salient is what contrasts with it, and a quadratic energy
smooths the result. Square cells replace the paper's superpixels.
"""

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

# The paper's standard deviations of colour (Lab), background connectivity and position (in units of
# the image), and its minimum smoothness weight.
_COLOUR_STD = 10.0
_BACKGROUND_STD = 1.0
_POSITION_STD = 0.25
_LEAST_SMOOTHNESS = 0.1
# Smaller colour steps between neighbours are noise, which would add up along a path.
_NOISE = 3.0


def background_saliency(cells: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the saliency of each cell against the background.

    Args:
        cells: (gh, gw, 3) float, the mean Lab colour of each cell; at least 2 x 2.

    Returns:
        (gh, gw) float32 in [0, 1]; constant for a constant image.
    """
    rows, columns = cells.shape[:2]
    if cells.ndim != 3 or cells.shape[2] != 3 or rows < 2 or columns < 2:
        raise ValueError(f"cells must be (gh, gw, 3), at least 2 x 2, got {cells.shape}")
    grid = _grid(rows, columns)
    colours = np.ascontiguousarray(cells.reshape(-1, 3), np.float64)
    contrast = cdist(colours, colours)
    background = _background(cells.astype(np.float64), grid.border)
    weighted = (contrast * grid.nearness) @ background
    foreground = (weighted - weighted.min()) / max(np.ptp(weighted), 1e-9)
    smoothness = np.where(
        grid.linked, np.exp(-(contrast**2) / (2 * _COLOUR_STD**2)) + _LEAST_SMOOTHNESS, 0.0
    )
    # min sum b s^2 + f (s - 1)^2 + smoothness (s_i - s_j)^2 is a linear system (eq. 9).
    system = np.diag(smoothness.sum(axis=1) + background + foreground) - smoothness
    salient = np.linalg.solve(system + 1e-9 * np.eye(len(system)), foreground)
    return salient.reshape(rows, columns).astype(np.float32)


class _Grid:
    """Constants of a grid size."""

    def __init__(self, rows: int, columns: int) -> None:
        row, column = np.divmod(np.arange(rows * columns), columns)
        self.border = (row == 0) | (column == 0) | (row == rows - 1) | (column == columns - 1)
        positions = np.stack([row / rows, column / columns], axis=1)
        self.nearness = np.exp(-cdist(positions, positions, "sqeuclidean") / (2 * _POSITION_STD**2))
        near = np.maximum(abs(row[:, None] - row), abs(column[:, None] - column)) == 1
        # Border cells are neighbours of one another: a background cut in two remains one.
        around = self.border[:, None] & self.border & ~np.eye(len(row), dtype=bool)
        self.linked = near | around


@lru_cache(maxsize=4)
def _grid(rows: int, columns: int) -> _Grid:
    return _Grid(rows, columns)


def _background(cells: NDArray[np.float64], border: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (gh * gw,) background probabilities of the cells (eq. 3 to 5)."""
    similarity = np.exp(-(_path_lengths(cells) ** 2) / (2 * _COLOUR_STD**2))
    connectivity = similarity[:, border].sum(axis=1) / np.sqrt(similarity.sum(axis=1))
    probability: NDArray[np.float64] = 1.0 - np.exp(-(connectivity**2) / (2 * _BACKGROUND_STD**2))
    return probability


@njit(cache=True, nogil=True)
def _path_lengths(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return shortest paths between all cells over 8-neighbours; a step costs its Lab distance.

    Forward and backward sweeps until convergence: few are needed, as paths in images rarely turn.
    """
    rows, columns = cells.shape[:2]
    steps = np.full((4, rows, columns), np.inf)
    row_steps, column_steps = (0, 1, 1, 1), (1, 0, 1, -1)
    for direction in range(4):
        for row in range(rows - row_steps[direction]):
            for column in range(columns):
                other = column + column_steps[direction]
                if 0 <= other < columns:
                    far = cells[row + row_steps[direction], other]
                    square = 0.0
                    for channel in range(3):
                        square += (cells[row, column, channel] - far[channel]) ** 2
                    steps[direction, row, column] = max(np.sqrt(square) - _NOISE, 1e-6)
    lengths = np.full((rows * columns, rows, columns), np.inf)
    for source in range(rows * columns):
        length = lengths[source]
        length[source // columns, source % columns] = 0.0
        changed = True
        while changed:
            changed = False
            for turn in range(2):
                for index in range(rows * columns):
                    cell = index if turn == 0 else rows * columns - 1 - index
                    row, column = cell // columns, cell % columns
                    best = length[row, column]
                    for direction in range(4):
                        down, right = row_steps[direction], column_steps[direction]
                        if row + down < rows and 0 <= column + right < columns:
                            step = steps[direction, row, column]
                            best = min(best, length[row + down, column + right] + step)
                        if row >= down and 0 <= column - right < columns:
                            step = steps[direction, row - down, column - right]
                            best = min(best, length[row - down, column - right] + step)
                    if best < length[row, column]:
                        length[row, column] = best
                        changed = True
    return lengths.reshape(rows * columns, rows * columns)
