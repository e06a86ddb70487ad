"""MaskCut: several objects of an image, each by a normalised cut of its patches.

CutLER, sec. 3.1 and its published program. One cut bipartitions the patch graph; the object
found is painted, i.e. its patches' keys become zero, and the graph is cut again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.backend import ON_HOST, Arrays, Backend, arrays_of, resolve_backend, to_numpy
from kernels.ncut.adjacency import Adjacency, join_by_cosine
from kernels.ncut.affinity import PatchGraphs
from kernels.ncut.eigen import Eigenpairs, largest_entry_positive, second_smallest
from kernels.ncut.foreground import are_worth_keeping, choose_foreground

# From the numbers of images and their painted patches (images, T) bool to their eigenpairs.
Solve = Callable[[NDArray[np.int64], Any], Eigenpairs]
# Called with the repetition's number, from 0, and the eigenvectors (n, T); returns them, each
# with its own sign or the other.
Orientation = Callable[[int, Any], Any]


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
    rows, columns = grid
    if rows < 1 or columns < 1 or keys.ndim != 2 or len(keys) != rows * columns:
        raise ValueError(
            f"keys must be (gh * gw, d) for grid (gh, gw) = {tuple(grid)}, got {keys.shape}"
        )
    return maskcut_batch(
        keys.reshape(1, rows, columns, -1), tau=tau, eps=eps, max_masks=max_masks, backend=backend
    )[0]


def maskcut_batch(
    keys: Any,
    *,
    tau: float = 0.15,
    eps: float = 1e-5,
    max_masks: int = 3,
    backend: Backend = "auto",
) -> list[MaskCut]:
    """Do as `maskcut` for several images, each as if it were alone.

    A GPU needs many images at once to be busy; a CPU gains nothing from them. There a batch of 32
    images of 3,600 patches takes 4 GB.

    Args:
        keys: (n, gh, gw, d) float, finite, NumPy or on the device.
        tau, eps, max_masks, backend: See `maskcut`.
    """
    if keys.ndim != 4 or 0 in keys.shape[1:3]:
        raise ValueError(f"keys must be (n, gh, gw, d), got {keys.shape}")
    _check_settings(tau, eps, max_masks)
    arrays = arrays_of(resolve_backend(backend))
    count, *grid, width = keys.shape
    if count == 0:
        return []
    adjacency = join_by_cosine(keys.reshape(count, -1, width), tau, arrays.xp)
    if adjacency.shape[1] == 1:
        return [_nothing_to_cut(max_masks)] * count
    solve = solver(adjacency, tau, eps)
    return cut_repeatedly(solve, (count, *grid), max_masks=max_masks, arrays=arrays)


def solver(adjacency: Adjacency, tau: float, eps: float) -> Solve:
    """The normalised cut of graphs with some patches painted.

    Args:
        adjacency: The images' joined patches.
        tau: The threshold that it was made with; zero keys exceed it if it is negative.
        eps: Affinity of patches that are not joined.
    """

    def solve(images: NDArray[np.int64], painted: Any) -> Eigenpairs:
        chosen = adjacency.take(images)
        return second_smallest(PatchGraphs(chosen, eps, painted=painted, painted_joined=tau < 0.0))

    return solve


def cut_repeatedly(
    solve: Solve,
    shape: tuple[int, int, int],
    *,
    max_masks: int,
    orient: Orientation | None = None,
    arrays: Arrays = ON_HOST,
) -> list[MaskCut]:
    """Run MaskCut's repetitions on any source of eigenvectors.

    As published, a rejected mask counts as an empty "previous" one. Nothing new is then painted,
    so the next repetition meets the same eigenvector (it is not computed again) and keeps what
    was rejected for overlap.

    Args:
        solve: Gives second smallest eigenpairs.
        shape: (n, gh, gw): images and their grid.
        max_masks: Repetitions.
        orient: The rule for the eigenvectors' signs; None for `largest_entry_positive`.
        arrays: Where to compute.
    """
    xp = arrays.xp
    images, rows, columns = shape
    masks = xp.zeros((images, max_masks, rows, columns), dtype=bool)
    eigenvectors = xp.zeros((images, max_masks, rows, columns))
    eigenvalues = np.zeros((images, max_masks))
    dense_fallbacks = np.zeros(images, dtype=np.int64)
    painted, previous = xp.zeros(shape, dtype=bool), xp.zeros(shape, dtype=bool)
    vectors, values = xp.zeros((images, rows * columns)), np.zeros(images)
    changed = np.arange(images)
    for repetition in range(max_masks):
        if len(changed):
            on_device = xp.asarray(changed)
            solution = solve(changed, painted.reshape(images, -1)[on_device])
            vectors[on_device], values[changed] = solution.vectors, solution.values
            dense_fallbacks[changed] += solution.is_dense
        oriented = orient(repetition, vectors) if orient else largest_entry_positive(vectors, xp)
        eigenvectors[:, repetition] = oriented.reshape(shape)
        eigenvalues[:, repetition] = values
        found = choose_foreground(eigenvectors[:, repetition], arrays)
        if repetition > 0:
            found &= are_worth_keeping(found, previous)[:, None, None]
        masks[:, repetition] = found & ~painted
        # Only where something was painted is the next graph another one.
        changed = np.flatnonzero(to_numpy(masks[:, repetition].any(axis=(1, 2))))
        painted |= found
        previous = found
    host_masks, host_vectors = to_numpy(masks), to_numpy(eigenvectors)
    return [
        MaskCut(host_masks[n], host_vectors[n], eigenvalues[n], int(dense_fallbacks[n]))
        for n in range(images)
    ]


def _nothing_to_cut(max_masks: int) -> MaskCut:
    shape = (max_masks, 1, 1)
    return MaskCut(np.zeros(shape, dtype=bool), np.zeros(shape), np.full(max_masks, np.nan), 0)


def _check_settings(tau: float, eps: float, max_masks: int) -> None:
    if not -1.0 < tau < 1.0:
        raise ValueError(f"tau must be in (-1, 1), got {tau}")
    if not 0.0 < eps < 1.0:
        raise ValueError(f"eps must be in (0, 1), got {eps}")
    if max_masks < 1:
        raise ValueError(f"max_masks must be at least 1, got {max_masks}")
