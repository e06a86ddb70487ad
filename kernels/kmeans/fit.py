"""k-means in squared Euclidean distance, for arrays that need not fit in memory.

The defaults are those of U2Seg's clustering (its code, after USL): random distinct samples as
initial centroids, a fixed number of iterations, one start. Two deliberate differences: an empty
cluster gets a new centroid instead of being lost, and the loop ends early on convergence.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from kernels.backend import Backend
from kernels.kmeans.init import Init, initial_centroids
from kernels.kmeans.lloyd import Labels, lloyd, own_distances
from kernels.kmeans.mini_batch import mini_batch_centroids
from kernels.kmeans.points import Points, PointSummary, Rows, summarize
from kernels.kmeans.threads import BlockThreads, block_threads


@dataclass(frozen=True)
class KMeansResult:
    """A partition of n points into k clusters, none empty.

    Attributes:
        labels: (n,) int32 in [0, k).
        centroids: (k, d) float32, the mean of each cluster's points.
        distances: (n,) float32, Euclidean distance of each point to its centroid.
        inertia: Sum of the squared distances.
        reseeded: How many times an empty cluster got a new centroid.
        iterations: Iterations run; fewer than the maximum after convergence.
    """

    labels: Labels
    centroids: Rows
    distances: Rows
    inertia: float
    reseeded: int
    iterations: int


def kmeans(
    points: Points,
    k: int,
    *,
    seed: int,
    iterations: int = 100,
    init: Init = "random",
    restarts: int = 1,
    mini_batch: int = 0,
    backend: Backend = "auto",
) -> KMeansResult:
    """Cluster points; equal points and seed give equal bytes, whatever the batches.

    Every iteration reads the points once, a block at a time; memory grows by some thirty bytes a
    point.

    Args:
        points: (n, d) float array, or a re-iterable (a list, not a generator) of such batches.
        k: Number of clusters, at least 1.
        seed: Seed of the initial centroids.
        iterations: Maximum number of iterations; in mini-batch mode, of passes.
        init: "random" distinct points, or "k-means++" on a random sample of at least 8,192 points
            and at least 4 k (or all points).
        restarts: Number of starts; the result is the one of lowest inertia.
        mini_batch: 0, or the batch size (Sculley, WWW 2010); passes then end once the inertia
            hardly improves, and one full iteration follows.
        backend: Where distances are computed; sums are always float64 on the CPU.

    Raises:
        TooFewPointsError: There are fewer distinct points than clusters.
        BackendUnavailableError: backend is "gpu" and faiss can use none.
        ValueError: Points are not finite, batches differ in width, or an argument is out of range.
        TypeError: The points are an iterator, which can be read only once.

    Examples:
        >>> import numpy as np
        >>> from kernels.kmeans import kmeans
        >>> points = np.array([[0.0, 0], [0, 2], [10, 0], [10, 2]])
        >>> result = kmeans(points, 2, seed=0, backend="cpu")
        >>> result.labels.tolist()
        [0, 0, 1, 1]
        >>> result.centroids.tolist(), result.inertia
        ([[0.0, 1.0], [10.0, 1.0]], 4.0)
    """
    for name, value, least in (
        ("k", k, 1),
        ("iterations", iterations, 1),
        ("restarts", restarts, 1),
        ("mini_batch", mini_batch, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if isinstance(points, Iterator):
        raise TypeError("points must be an array or a re-iterable of batches, got an iterator")
    with block_threads(backend) as threads:
        summary = summarize(points)
        best: KMeansResult | None = None
        for restart in range(restarts):
            start_seed = [seed, restart] if restart else seed
            centroids = initial_centroids(points, summary, k, init=init, seed=start_seed)
            passes = 0
            if mini_batch:
                centroids, passes = mini_batch_centroids(
                    points, summary, centroids, threads.search, rows=mini_batch, passes=iterations
                )
            rounds = 1 if mini_batch else iterations
            result = _full_iterations(points, summary, centroids, rounds, threads)
            if best is None or result.inertia < best.inertia:
                best = replace(result, iterations=passes + result.iterations)
    assert best is not None
    return best


def _full_iterations(
    points: Points, summary: PointSummary, centroids: Rows, iterations: int, threads: BlockThreads
) -> KMeansResult:
    """Run Lloyd's iterations and measure the distances to the final centroids."""
    found = lloyd(points, summary, centroids, iterations, threads)
    distances = own_distances(points, summary.mean, found.centroids, found.labels, threads)
    return KMeansResult(
        labels=found.labels,
        centroids=found.centroids + summary.mean,
        distances=distances,
        inertia=float((distances.astype(np.float64) ** 2).sum()),
        reseeded=found.reseeded,
        iterations=found.iterations,
    )
