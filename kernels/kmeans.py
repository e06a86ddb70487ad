"""Lloyd's k-means in plain squared Euclidean distance, for arrays that need not fit in memory.

As in the clustering step of U2Seg (its released code, after USL): random distinct samples as first
centroids, a fixed number of iterations, one start. Two things differ on purpose: an emptied cluster
gets a new centroid instead of being lost, and the loop ends early once nothing can change any more.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.backend import Backend, array_module, resolve_backend, to_numpy
from kernels.errors import TooFewPointsError

Points = NDArray[np.floating] | Iterable[NDArray[np.floating]]
Labels = NDArray[np.int32]
Distances = NDArray[np.float32]
Nearest = Callable[[NDArray[np.float32], NDArray[np.float32]], tuple[Labels, Distances]]

# Every pass cuts the points at the same places, whatever batches they come in: float32 products
# of matrices may differ in the last bit with the shape of the matrices.
_BLOCK = 8192


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
    centroids: NDArray[np.float32]
    distances: Distances
    inertia: float
    reseeded: int
    iterations: int


def kmeans(
    points: Points, k: int, *, seed: int, iterations: int = 100, backend: Backend = "auto"
) -> KMeansResult:
    """Cluster points; the same bytes for the same points and seed, however they are batched.

    Args:
        points: (n, d) float array, or a re-iterable (a list, not a generator) of such batches.
        k: Number of clusters, at least 1.
        seed: Chooses the first centroids.
        iterations: Most rounds of assignment and update.
        backend: Where distances are computed; sums are always float64 on the CPU.

    Raises:
        TooFewPointsError: There are fewer distinct points than clusters.
        ValueError: NaN or infinity among the points, or batches that do not fit together.
        TypeError: The points are an iterator, which can be read only once.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    if isinstance(points, Iterator):
        raise TypeError("points must be an array or a re-iterable of batches, got an iterator")
    nearest = _NEAREST[resolve_backend(backend)]

    survey = _survey(points)
    first = _first_centroids(survey.fingerprints, k, seed)
    # Distances are taken around the mean: far from the origin float32 would lose them.
    centroids = _gather(points, first) - survey.mean
    labels: Labels = np.full(len(survey.fingerprints), -1, np.int32)
    reseeded = round_ = 0
    for round_ in range(1, iterations + 1):  # noqa: B007
        previous = labels
        labels, squared, sums, counts = _assign(points, survey.mean, centroids, nearest)
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            labels = _reseed(labels, squared, counts, empty, survey.fingerprints)
            sums, counts = _sums(points, survey.mean, labels, k)
            reseeded += len(empty)
        centroids = (sums / counts[:, None]).astype(np.float32)
        if np.array_equal(labels, previous):
            break
    distances = _own_distances(points, survey.mean, centroids, labels)
    return KMeansResult(
        labels=labels,
        centroids=centroids + survey.mean,
        distances=distances,
        inertia=float((distances.astype(np.float64) ** 2).sum()),
        reseeded=reseeded,
        iterations=round_,
    )


@dataclass(frozen=True)
class _Survey:
    """What one pass over the points tells: a 64-bit hash of every row, and the mean row."""

    fingerprints: NDArray[np.uint64]
    mean: NDArray[np.float32]


def _blocks(points: Points) -> Iterator[NDArray[np.float32]]:
    """Yield contiguous float32 blocks of _BLOCK rows (the last one shorter)."""
    batches = [points] if isinstance(points, np.ndarray) else points
    held: list[NDArray[np.float32]] = []
    rows, width = 0, None
    for batch in batches:
        if batch.ndim != 2 or batch.shape[1] == 0:
            raise ValueError(f"points must be (n, d) with d >= 1, got {batch.shape}")
        if batch.shape[1] != (width := width or batch.shape[1]):
            raise ValueError(f"batches must all have {width} columns, got {batch.shape[1]}")
        start = 0
        while start < len(batch):
            piece = batch[start : start + _BLOCK - rows]
            held.append(np.ascontiguousarray(piece, np.float32))
            start, rows = start + len(piece), rows + len(piece)
            if rows == _BLOCK:
                yield held[0] if len(held) == 1 else np.concatenate(held)
                held, rows = [], 0
    if rows:
        yield np.concatenate(held)


def _survey(points: Points) -> _Survey:
    fingerprints: list[NDArray[np.uint64]] = []
    total = np.zeros(0)
    for block in _blocks(points):
        if not np.isfinite(block).all():
            bad = int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
            row = bad + sum(map(len, fingerprints))
            raise ValueError(f"points must be finite, row {row} holds NaN or infinity")
        if not fingerprints:
            total = np.zeros(block.shape[1])
            factors = np.random.default_rng(0).integers(2**63, size=block.shape[1], dtype=np.uint64)
        total += block.sum(axis=0, dtype=np.float64)
        # Adding 0 makes -0.0 and 0.0 the same bits; odd factors make the product a bijection.
        bits = (block + np.float32(0)).view(np.uint32).astype(np.uint64)
        bits = (bits + factors) * (factors | np.uint64(1))
        fingerprints.append(((bits ^ (bits >> np.uint64(32))) * factors).sum(axis=1))
    if not fingerprints:
        return _Survey(np.zeros(0, np.uint64), np.zeros(0, np.float32))
    joined = np.concatenate(fingerprints)
    return _Survey(joined, (total / len(joined)).astype(np.float32))


def _first_centroids(fingerprints: NDArray[np.uint64], k: int, seed: int) -> NDArray[np.int64]:
    """Return the rows, ascending, of k random points that all differ."""
    shuffled = np.random.default_rng(seed).permutation(len(fingerprints))
    _, distinct = np.unique(fingerprints[shuffled], return_index=True)
    if len(distinct) < k:
        raise TooFewPointsError(
            f"{k} clusters need at least {k} distinct points, got {len(distinct)} "
            f"(among {len(fingerprints)} points): lower the number of clusters to "
            f"{len(distinct)} or less, or add points."
        )
    return np.sort(shuffled[np.sort(distinct)[:k]])


def _gather(points: Points, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the points of ascending row numbers."""
    found, start = [], 0
    for block in _blocks(points):
        inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + len(block))]
        found.append(block[inside - start])
        start += len(block)
    return np.concatenate(found)


def _assign(
    points: Points,
    mean: NDArray[np.float32],
    centroids: NDArray[np.float32],
    nearest: Nearest,
) -> tuple[Labels, Distances, NDArray[np.float64], NDArray[np.int64]]:
    """Return labels, squared distances, and each cluster's sum and count, in one pass."""
    labels, squared = [], []
    sums = np.zeros(centroids.shape)
    counts = np.zeros(len(centroids), np.int64)
    for block in _blocks(points):
        centred = block - mean
        block_labels, block_squared = nearest(centred, centroids)
        _add_rows(sums, counts, centred, block_labels)
        labels.append(block_labels)
        squared.append(block_squared)
    return np.concatenate(labels), np.concatenate(squared), sums, counts


def _reseed(
    labels: Labels,
    squared: Distances,
    counts: NDArray[np.int64],
    empty: NDArray[np.int64],
    fingerprints: NDArray[np.uint64],
) -> Labels:
    """Give each empty cluster the point farthest from its centroid, no two of them equal.

    There always are enough: were all remaining points alone in their cluster or equal to one
    already taken, there would be fewer distinct points than clusters.
    """
    labels, counts = labels.copy(), counts.copy()
    waiting = list(empty[::-1])
    taken = set()
    for point in np.argsort(-squared, kind="stable"):
        fingerprint = int(fingerprints[point])
        if counts[labels[point]] > 1 and fingerprint not in taken:
            taken.add(fingerprint)
            counts[labels[point]] -= 1
            labels[point] = waiting.pop()
            if not waiting:
                break
    return labels


def _sums(
    points: Points, mean: NDArray[np.float32], labels: Labels, k: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    sums, counts, start = np.zeros((k, len(mean))), np.zeros(k, np.int64), 0
    for block in _blocks(points):
        _add_rows(sums, counts, block - mean, labels[start : start + len(block)])
        start += len(block)
    return sums, counts


def _own_distances(
    points: Points, mean: NDArray[np.float32], centroids: NDArray[np.float32], labels: Labels
) -> Distances:
    distances, start = [], 0
    for block in _blocks(points):
        away = block - mean - centroids[labels[start : start + len(block)]]
        distances.append(np.sqrt(np.einsum("nd,nd->n", away, away)))
        start += len(block)
    return np.concatenate(distances)


@njit(cache=True)
def _add_rows(
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    rows: NDArray[np.float32],
    labels: Labels,
) -> None:
    for row in range(rows.shape[0]):
        counts[labels[row]] += 1
        for column in range(rows.shape[1]):
            sums[labels[row], column] += rows[row, column]


def _nearest_on_cpu(
    rows: NDArray[np.float32], centroids: NDArray[np.float32]
) -> tuple[Labels, Distances]:
    import faiss

    squared, labels = faiss.knn(rows, centroids, 1)
    return labels[:, 0].astype(np.int32), squared[:, 0]


def _nearest_on_gpu(
    rows: NDArray[np.float32], centroids: NDArray[np.float32]
) -> tuple[Labels, Distances]:
    xp = array_module("gpu")
    rows, centroids = xp.asarray(rows), xp.asarray(centroids)
    squared = (centroids**2).sum(axis=1) - 2 * (rows @ centroids.T)
    labels = squared.argmin(axis=1)
    least = squared[xp.arange(len(rows)), labels] + (rows**2).sum(axis=1)
    return to_numpy(labels).astype(np.int32), to_numpy(xp.maximum(least, 0)).astype(np.float32)


_NEAREST = {"cpu": _nearest_on_cpu, "gpu": _nearest_on_gpu}
