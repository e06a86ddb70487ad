"""The two centroids nearest to each row, found by faiss on the CPU or on a GPU."""

from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from kernels.backend import Backend, ResolvedBackend
from kernels.errors import BackendUnavailableError
from kernels.kmeans.points import Rows

Nearest = tuple[NDArray[np.int32], Rows, Rows]
"""Index of the nearest centroid, the least and the second least remoteness of each row.

Remoteness is a number that orders one row's centroids as their distances do; it is infinite where
there is no second centroid. Of equally near centroids the first one counts.
"""
TwoNearest = Callable[[Rows, Rows], Nearest]
"""Search of (n, d) float32 rows among (k, d) float32 centroids."""


def search_of(backend: ResolvedBackend) -> TwoNearest:
    """Return faiss's exact search; on the CPU in as many threads as OpenMP has for the caller."""
    import faiss

    if backend == "cpu":
        return by_faiss(faiss.knn)
    return by_faiss(partial(faiss.knn_gpu, faiss.StandardGpuResources()))


def resolve_faiss_backend(backend: Backend) -> ResolvedBackend:
    """Turn a wish into where faiss can search.

    Raises:
        BackendUnavailableError: "gpu" was asked for and there is none.
        ValueError: Any other word than the three.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be 'auto', 'cpu' or 'gpu', got {backend!r}")
    obstacle = None if backend == "cpu" else _gpu_obstacle()
    if backend == "gpu" and obstacle is not None:
        raise BackendUnavailableError(
            f"backend='gpu' cannot run here ({obstacle}): install the `gpu` extra in place of "
            "faiss-cpu on a machine with a CUDA device, or use backend='auto' or 'cpu'."
        )
    return "cpu" if backend == "cpu" or obstacle is not None else "gpu"


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
