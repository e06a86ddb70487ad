"""k-means in plain squared Euclidean distance, for arrays that need not fit in memory.

As in the clustering step of U2Seg (its released code, after USL) by default: random distinct
samples as first centroids, a fixed number of iterations, one start. Two things differ on purpose:
an emptied cluster gets a new centroid instead of being lost, and the loop ends early once nothing
can change any more.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from kernels.backend import Backend
from kernels.kmeans.lloyd import Labels, lloyd, own_distances
from kernels.kmeans.mini_batch import mini_batch_centroids
from kernels.kmeans.points import Points, Rows, Survey, survey
from kernels.kmeans.start import Init, first_centroids
from kernels.kmeans.threads import BlockThreads, block_threads


@dataclass(frozen=True)
class KMeansResult:
    """A partition of n points into k clusters, none of them empty.

    Attributes:
        labels: (n,) int32 in [0, k).
        centroids: (k, d) float32, the mean of each cluster's points.
        distances: (n,) float32, Euclidean distance of each point to its centroid.
        inertia: Sum of the squared distances.
        reseeded: How many times an emptied cluster was given a new centroid.
        iterations: Iterations that were run; fewer than asked for means that they had converged.
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
    """Cluster points; the same bytes for the same points and seed, however they are batched.

    Every iteration reads the points once and holds a block of them, so that a stream need not fit
    in memory; what grows with n is some thirty bytes a point.

    Args:
        points: (n, d) float array, or a re-iterable (a list, not a generator) of such batches.
        k: Number of clusters, at least 1.
        seed: Chooses the first centroids.
        iterations: Most rounds of assignment and update; in mini-batch mode, most passes.
        init: "random" distinct points, or "k-means++" on a random sample of at least 8,192 points
            and at least 4 k (all where there are no more).
        restarts: Starts, of which the one with the lowest inertia is returned.
        mini_batch: 0, or the rows after which centroids are updated (Sculley, WWW 2010); the
            passes then end once they improve little, and one plain iteration closes.
        backend: Where distances are computed; sums are always float64 on the CPU.

    Raises:
        TooFewPointsError: There are fewer distinct points than clusters.
        BackendUnavailableError: `backend` is "gpu" and faiss can use none.
        ValueError: NaN or infinity among the points, batches that do not fit together, or an
            argument out of range.
        TypeError: The points are an iterator, which can be read only once.
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
        seen = survey(points)
        best: KMeansResult | None = None
        for restart in range(restarts):
            start_seed = [seed, restart] if restart else seed
            centroids = first_centroids(points, seen, k, init=init, seed=start_seed)
            passes = 0
            if mini_batch:
                centroids, passes = mini_batch_centroids(
                    points, seen, centroids, threads.search, rows=mini_batch, passes=iterations
                )
            rounds = 1 if mini_batch else iterations
            result = _settled(points, seen, centroids, rounds, threads)
            if best is None or result.inertia < best.inertia:
                best = replace(result, iterations=passes + result.iterations)
    assert best is not None
    return best


def _settled(
    points: Points, seen: Survey, centroids: Rows, iterations: int, threads: BlockThreads
) -> KMeansResult:
    """Run plain iterations and measure what they end with."""
    found = lloyd(points, seen, centroids, iterations, threads)
    distances = own_distances(points, seen.mean, found.centroids, found.labels, threads)
    return KMeansResult(
        labels=found.labels,
        centroids=found.centroids + seen.mean,
        distances=distances,
        inertia=float((distances.astype(np.float64) ** 2).sum()),
        reseeded=found.reseeded,
        iterations=found.iterations,
    )
