"""MaskCut: several objects of an image, each by a normalised cut of its patches.

CutLER, sec. 3.1 and its published program. One cut bipartitions the patch graph; the object
found is painted, i.e. its patches' keys become zero, and the graph is cut again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.affinity import PatchGraph, binary_adjacency, paint
from kernels.backend import Backend, resolve_backend
from kernels.eigen import Eigenpair, largest_entry_positive, second_smallest
from kernels.foreground import choose_foreground, is_worth_keeping

# Called with the repetition's number, from 0, and the eigenvector (T,); returns it or its negative.
Orientation = Callable[[int, NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class MaskCut:
    """What the repetitions of one image found, in their order.

    Attributes:
        masks: (max_masks, gh, gw) bool, disjoint: each without the earlier ones. All False where
            a repetition's object was rejected.
        eigenvectors: (max_masks, gh, gw) float64, as the foreground was chosen from them.
        eigenvalues: (max_masks,) float64; NaN where there is but one patch.
        dense_fallbacks: Repetitions whose eigenvector the iterative solver could not find, so
            that the dense one, some hundred times slower, had to.
    """

    masks: NDArray[np.bool_]
    eigenvectors: NDArray[np.float64]
    eigenvalues: NDArray[np.float64]
    dense_fallbacks: int


def maskcut(
    keys: NDArray[np.floating[Any]],
    grid: tuple[int, int],
    *,
    tau: float = 0.15,
    eps: float = 1e-5,
    max_masks: int = 3,
    backend: Backend = "auto",
) -> MaskCut:
    """Find up to `max_masks` objects among an image's patches.

    Args:
        keys: (T, d) float, finite: a key a patch, rows of the grid one after another.
        grid: (gh, gw) patches down and across, gh * gw = T.
        tau: Keys whose cosine exceeds it are joined; in (-1, 1).
        eps: Affinity of patches that are not joined; in (0, 1).
        max_masks: Repetitions; at least 1.
        backend: "auto", "cpu" or "gpu".

    Returns:
        Masks, eigenvectors and eigenvalues of all repetitions. The eigenvectors' entry of largest
        magnitude is positive.
    """
    _check(keys, grid, tau, eps, max_masks)
    resolved = resolve_backend(backend)
    adjacency = binary_adjacency(keys, tau, backend=resolved)
    if len(keys) == 1:
        return _nothing_to_cut(max_masks)

    def solve(painted: NDArray[np.bool_]) -> Eigenpair:
        graph = paint(adjacency, painted.ravel(), tau) if painted.any() else adjacency
        return second_smallest(PatchGraph(graph, eps, resolved))

    return cut_repeatedly(solve, grid, max_masks=max_masks)


def cut_repeatedly(
    solve: Callable[[NDArray[np.bool_]], Eigenpair],
    grid: tuple[int, int],
    *,
    max_masks: int,
    orient: Orientation = lambda _, eigenvector: largest_entry_positive(eigenvector),
) -> MaskCut:
    """Run MaskCut's repetitions on any source of eigenvectors.

    As published, a rejected mask counts as an empty "previous" one. Nothing new is then painted,
    so the next repetition meets the same eigenvector (it is not computed again) and keeps what
    was rejected for overlap.

    Args:
        solve: From the painted patches, (gh, gw) bool, to the second smallest eigenpair.
        grid: (gh, gw).
        max_masks: Repetitions.
        orient: The rule for the eigenvector's sign.
    """
    masks = np.zeros((max_masks, *grid), dtype=bool)
    eigenvectors = np.zeros((max_masks, *grid))
    eigenvalues = np.zeros(max_masks)
    dense_fallbacks = 0
    painted = np.zeros(grid, dtype=bool)
    previous = np.zeros(grid, dtype=bool)
    solution: Eigenpair | None = None
    for repetition in range(max_masks):
        if solution is None:
            solution = solve(painted)
            dense_fallbacks += solution.is_dense
        eigenvector = orient(repetition, solution.vector).reshape(grid)
        found = choose_foreground(eigenvector)
        if repetition > 0 and not is_worth_keeping(found, previous):
            found = np.zeros(grid, dtype=bool)
        masks[repetition] = found & ~painted
        eigenvectors[repetition] = eigenvector
        eigenvalues[repetition] = solution.value
        if masks[repetition].any():
            solution = None  # of a graph that the next line changes
        painted |= found
        previous = found
    return MaskCut(masks, eigenvectors, eigenvalues, dense_fallbacks)


def _nothing_to_cut(max_masks: int) -> MaskCut:
    shape = (max_masks, 1, 1)
    return MaskCut(np.zeros(shape, dtype=bool), np.zeros(shape), np.full(max_masks, np.nan), 0)


def _check(
    keys: NDArray[np.floating[Any]],
    grid: tuple[int, int],
    tau: float,
    eps: float,
    max_masks: int,
) -> None:
    rows, columns = grid
    if rows < 1 or columns < 1 or keys.ndim != 2 or len(keys) != rows * columns:
        raise ValueError(
            f"keys must be (gh * gw, d) for grid (gh, gw) = {tuple(grid)}, got {keys.shape}"
        )
    if not -1.0 < tau < 1.0:
        raise ValueError(f"tau must be in (-1, 1), got {tau}")
    if not 0.0 < eps < 1.0:
        raise ValueError(f"eps must be in (0, 1), got {eps}")
    if max_masks < 1:
        raise ValueError(f"max_masks must be at least 1, got {max_masks}")
