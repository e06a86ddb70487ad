"""The two centroids nearest to each row, found by faiss on the CPU or on a GPU."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.backend import ResolvedBackend
from kernels.kmeans.points import Rows

Nearest = tuple[NDArray[np.int32], Rows, Rows]
"""Each row's nearest centroid, the first of ties, and the squared distances to it and to the second
nearest one (infinity without)."""
TwoNearest = Callable[[Rows, Rows], Nearest]
"""Search of (n, d) float32 rows among (k, d) float32 centroids."""


def faiss_obstacle() -> str | None:
    """Why faiss can use no GPU, in a few words; None where it can."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        return "faiss-cpu has no GPU support and must be uninstalled first"
    return None if faiss.get_num_gpus() else "faiss sees no CUDA device"


def search_of(backend: ResolvedBackend) -> TwoNearest:
    """Return faiss's exact search; on the CPU with the calling thread's OpenMP threads."""
    import faiss

    knn: Callable[..., Any] = faiss.knn
    if backend == "gpu":
        knn = partial(faiss.knn_gpu, faiss.StandardGpuResources())

    def search(rows: Rows, centroids: Rows) -> Nearest:
        found = min(2, len(centroids))
        squared, nearest = knn(rows, centroids, found)
        second = squared[:, 1] if found == 2 else np.full(len(rows), np.inf, np.float32)
        return nearest[:, 0].astype(np.int32), squared[:, 0], second

    return search
