"""The two centroids nearest to each row, on the CPU or on a GPU behind one function.

On the CPU this is a product of matrices by NumPy's BLAS and one sweep over it. faiss's own search
there returns other bits with another number of threads, and is no faster.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.backend import Backend
from kernels.errors import BackendUnavailableError
from kernels.kmeans_points import Rows

Nearest = tuple[NDArray[np.int32], Rows, Rows]
"""Index of the nearest centroid, the least and the second least remoteness of each row.

Remoteness is a number that orders one row's centroids as their distances do; it is infinite where
there is no second centroid. Of equally near centroids the first one counts.
"""
TwoNearest = Callable[[Rows, Rows], Nearest]
"""Search of (n, d) float32 rows among (k, d) float32 centroids."""


def gpu_search(backend: Backend) -> TwoNearest | None:
    """Return faiss's search on a GPU where it is wanted and there is one, None for the CPU.

    Raises:
        BackendUnavailableError: "gpu" was asked for and there is none.
        ValueError: Any other word than the three.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be 'auto', 'cpu' or 'gpu', got {backend!r}")
    if backend == "cpu":
        return None
    obstacle = _gpu_obstacle()
    if obstacle is None:
        import faiss

        return by_faiss(partial(faiss.knn_gpu, faiss.StandardGpuResources()))
    if backend == "auto":
        return None
    raise BackendUnavailableError(
        f"backend='gpu' cannot run here ({obstacle}): install the `gpu` extra in place of "
        "faiss-cpu on a machine with a CUDA device, or use backend='auto' or 'cpu'."
    )


class OnCpu:
    """Search by squared distance, less the row's own square, halved."""

    def __init__(self) -> None:
        self._memory: Rows = np.empty(0, np.float32)

    def __call__(self, rows: Rows, centroids: Rows) -> Nearest:
        """Return each row's nearest centroid and its two least remotenesses."""
        products = self._products(centroids, rows)
        halves = np.einsum("kd,kd->k", centroids, centroids) / 2
        nearest = np.zeros(len(rows), np.int32)
        least, second = (np.full(len(rows), np.inf, np.float32) for _ in range(2))
        _two_least(products, halves, nearest, least, second)
        return nearest, least, second

    def _products(self, centroids: Rows, rows: Rows) -> Rows:
        """Return (centroids, rows) inner products, in memory that the next call uses again."""
        size = len(centroids) * len(rows)
        if len(self._memory) < size:
            self._memory = np.empty(size, np.float32)
        out = self._memory[:size].reshape(len(centroids), len(rows))
        return np.matmul(centroids, rows.T, out=out)


@njit(cache=True, nogil=True)
def _two_least(
    products: Rows,
    halves: NDArray[np.float32],
    nearest: NDArray[np.int32],
    least: Rows,
    second: Rows,
) -> None:
    """Sweep centroid by centroid, which is the order in which a processor can take many rows."""
    for centroid in range(products.shape[0]):
        half = halves[centroid]
        values = products[centroid]
        for row in range(products.shape[1]):
            value = half - values[row]
            lowest = least[row]
            nearer = value < lowest
            second[row] = lowest if nearer else min(value, second[row])
            nearest[row] = np.int32(centroid) if nearer else nearest[row]
            least[row] = value if nearer else lowest


def by_faiss(knn: Callable[..., Any]) -> TwoNearest:
    """Search with faiss's `knn`, or with its `knn_gpu` that was given its resources."""

    def search(rows: Rows, centroids: Rows) -> Nearest:
        found = min(2, len(centroids))
        squared, nearest = knn(rows, centroids, found)
        second = squared[:, 1] if found == 2 else np.full(len(rows), np.inf, np.float32)
        return nearest[:, 0].astype(np.int32), squared[:, 0], second

    return search


def _gpu_obstacle() -> str | None:
    """Why faiss can use no GPU, in a few words; None where it can."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        return "this faiss was built without GPU support"
    return None if faiss.get_num_gpus() else "faiss sees no CUDA device"
