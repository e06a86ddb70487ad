"""MaskCut (CutLER, sec. 3.1 and its code): several objects of an image by repeated cuts.

A normalised cut bipartitions the patch graph; the object found is painted, i.e. its patches' keys
are set to zero, and the graph is cut again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.backend import CPU_ARRAYS, Arrays, Backend, arrays_of, resolve_backend, to_numpy
from kernels.ncut.adjacency import Adjacency, cosine_adjacency
from kernels.ncut.affinity import PatchGraphs
from kernels.ncut.eigen import Eigenpairs, largest_entry_positive, second_smallest
from kernels.ncut.foreground import choose_foreground, is_new_object

# From image indices and their painted patches (images, T) bool to their eigenpairs.
Solve = Callable[[NDArray[np.int64], Any], Eigenpairs]
# From the repetition's index and the eigenvectors (n, T) to the eigenvectors with signs chosen.
Orientation = Callable[[int, Any], Any]


@dataclass(frozen=True)
class MaskCut:
    """Masks of one image, in the order of the repetitions.

    Attributes:
        masks: (max_masks, gh, gw) bool, disjoint; all False where the object was rejected.
        eigenvectors: (max_masks, gh, gw) float64, signs chosen.
        eigenvalues: (max_masks,) float64; NaN for an image of one patch.
        dense_fallbacks: Repetitions in which Lanczos did not converge and the dense solver, some
            hundred times slower, was used.
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
        keys: (T, d) float, finite: one key a patch, the grid row by row.
        grid: (gh, gw) patches down and across, gh * gw = T.
        tau: Patches whose keys' cosine exceeds it are connected; in (-1, 1).
        eps: Affinity of unconnected patches; in (0, 1).
        max_masks: Repetitions, at least 1.
        backend: "auto", "cpu" or "gpu".

    Returns:
        Masks, eigenvectors and eigenvalues of all repetitions. Each eigenvector's entry of largest
        magnitude is positive.

    Raises:
        BackendUnavailableError: backend is "gpu" and there is none.
        EigenConvergenceError: Neither eigensolver converged.
        ValueError: An argument is out of range, or keys are not finite.

    Examples:
        Two blocks of equal keys on a background, and no third object:

        >>> import numpy as np
        >>> from kernels.ncut import maskcut
        >>> regions = np.zeros((8, 10), int)
        >>> regions[1:3, 1:3], regions[4:7, 5:9] = 1, 2
        >>> cut = maskcut(np.eye(3)[regions.ravel()], (8, 10), backend="cpu")
        >>> [np.array_equal(cut.masks[0], regions == 2), np.array_equal(cut.masks[1], regions == 1)]
        [True, True]
        >>> cut.masks.sum(axis=(1, 2)).tolist()
        [12, 4, 0]
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
    """Batched `maskcut`; results do not depend on the batch.

    A GPU needs a batch to be busy, a CPU gains nothing from it. On a GPU 32 images of 3,600 patches
    take 4 GB.

    Args:
        keys: (n, gh, gw, d) float, finite, NumPy or CuPy.
        tau, eps, max_masks, backend: See `maskcut`.
    """
    if keys.ndim != 4 or 0 in keys.shape[1:3]:
        raise ValueError(f"keys must be (n, gh, gw, d), got {keys.shape}")
    _check_settings(tau, eps, max_masks)
    arrays = arrays_of(resolve_backend(backend))
    count, *grid, width = keys.shape
    if count == 0:
        return []
    adjacency = cosine_adjacency(keys.reshape(count, -1, width), tau, arrays.xp)
    if adjacency.shape[1] == 1:
        return [_single_patch(max_masks)] * count
    solve = ncut_solver(adjacency, tau, eps)
    return cut_repeatedly(solve, (count, *grid), max_masks=max_masks, arrays=arrays)


def ncut_solver(adjacency: Adjacency, tau: float, eps: float) -> Solve:
    """Return the solver of normalised cuts of partly painted graphs.

    Args:
        adjacency: Of all images.
        tau: Its threshold; the cosine of zero keys, 0, exceeds a negative one.
        eps: Affinity of unconnected patches.
    """

    def solve(images: NDArray[np.int64], painted: Any) -> Eigenpairs:
        chosen = adjacency.take(images)
        return second_smallest(
            PatchGraphs(chosen, eps, painted=painted, painted_connected=tau < 0.0)
        )

    return solve


def cut_repeatedly(
    solve: Solve,
    shape: tuple[int, int, int],
    *,
    max_masks: int,
    orient: Orientation | None = None,
    arrays: Arrays = CPU_ARRAYS,
) -> list[MaskCut]:
    """Run MaskCut's repetitions with any eigensolver.

    As in CutLER's code, a rejected mask counts as an empty previous one. Nothing new is painted
    then, so the next repetition has the same eigenvector (it is not computed again) and accepts a
    mask that was rejected for overlap.

    Args:
        solve: Returns second smallest eigenpairs.
        shape: (n, gh, gw): images and their grid.
        max_masks: Repetitions.
        orient: Chooses the eigenvectors' signs; None for `largest_entry_positive`.
        arrays: Array library to compute with.
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
            found &= is_new_object(found, previous)[:, None, None]
        masks[:, repetition] = found & ~painted
        # Only graphs with newly painted patches are solved again.
        changed = np.flatnonzero(to_numpy(masks[:, repetition].any(axis=(1, 2))))
        painted |= found
        previous = found
    host_masks, host_vectors = to_numpy(masks), to_numpy(eigenvectors)
    return [
        MaskCut(host_masks[n], host_vectors[n], eigenvalues[n], int(dense_fallbacks[n]))
        for n in range(images)
    ]


def _single_patch(max_masks: int) -> MaskCut:
    shape = (max_masks, 1, 1)
    return MaskCut(np.zeros(shape, dtype=bool), np.zeros(shape), np.full(max_masks, np.nan), 0)


def _check_settings(tau: float, eps: float, max_masks: int) -> None:
    if not -1.0 < tau < 1.0:
        raise ValueError(f"tau must be in (-1, 1), got {tau}")
    if not 0.0 < eps < 1.0:
        raise ValueError(f"eps must be in (0, 1), got {eps}")
    if max_masks < 1:
        raise ValueError(f"max_masks must be at least 1, got {max_masks}")
