"""Initial centroids: random distinct points, or k-means++ (Arthur and Vassilvitskii, SODA 2007)."""

from typing import Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.errors import TooFewPointsError
from kernels.kmeans.points import Points, PointSummary, Rows, gather

Init = Literal["random", "k-means++"]

# k-means++ samples this many points, or this many a centroid where that is more.
_SAMPLE = 8192
_SAMPLE_PER_CENTROID = 4


def initial_centroids(
    points: Points, summary: PointSummary, k: int, *, init: Init, seed: int | list[int]
) -> Rows:
    """Return (k, d) float32 distinct initial centroids relative to the mean of the points.

    Raises:
        TooFewPointsError: There are fewer distinct points than centroids.
        ValueError: init is neither "random" nor "k-means++".
    """
    if init not in get_args(Init):
        raise ValueError(f"init must be 'random' or 'k-means++', got {init!r}")
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(summary.hashes))
    if init == "random":
        rows, _ = _distinct(summary.hashes, shuffled, k, k)
        return gather(points, np.sort(rows)) - summary.mean
    most = max(_SAMPLE, _SAMPLE_PER_CENTROID * k)
    rows, counts = _distinct(summary.hashes, shuffled, k, most)
    sample = gather(points, rows) - summary.mean
    return sample[_kmeans_plus_plus(sample, counts, k, random)]


def _distinct(
    hashes: NDArray[np.uint64], shuffled: NDArray[np.int64], least: int, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first distinct rows of a shuffle and their counts among the rows examined.

    These are at least `most` rows, and more until `least` are distinct.
    """
    examined = most
    while True:
        seen = hashes[shuffled[:examined]]
        _, first, counts = np.unique(seen, return_index=True, return_counts=True)
        if len(first) >= least:
            order = np.argsort(first)[:most]
            return shuffled[first[order]], counts[order]
        if examined >= len(shuffled):
            raise TooFewPointsError(
                f"{least} clusters need at least {least} distinct points, got {len(first)} "
                f"(among {len(shuffled)} points): lower the number of clusters to "
                f"{len(first)} or less, or add points."
            )
        examined *= 2


def _kmeans_plus_plus(
    sample: Rows, counts: NDArray[np.int64], k: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Choose k distinct rows, each the candidate that lowers the inertia most.

    Candidates are drawn in proportion to their squared distance to the nearest chosen row, times
    their count. Arthur and Vassilvitskii recommend several candidates a step.
    """
    candidates = 2 + int(np.log(k))
    # By columns: BLAS multiplies a few rows with that at twice the speed.
    columns = np.ascontiguousarray(sample.T)
    squares = np.einsum("nd,nd->n", sample, sample)
    closest = np.full(len(sample), np.inf, np.float32)
    chosen: list[int] = []
    weights = counts.astype(np.float64)
    for _ in range(k):
        if not weights.any():  # distances between distinct points were rounded to zero
            weights = counts.astype(np.float64)
            weights[chosen] = 0
        reached = np.cumsum(weights)
        drawn = np.searchsorted(reached, random.random(candidates) * reached[-1], side="right")
        drawn = np.minimum(drawn, np.flatnonzero(weights)[-1])
        squared = columns[:, drawn].T @ columns
        inertia = _inertias(squared, squares, squares[drawn], closest, counts)
        best = int(inertia.argmin())
        chosen.append(int(drawn[best]))
        closest = np.minimum(closest, squared[best])
        closest[chosen[-1]] = 0
        weights = closest.astype(np.float64) * counts
    return np.array(chosen)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _inertias(
    products: Rows,
    squares: NDArray[np.float32],
    drawn: NDArray[np.float32],
    closest: NDArray[np.float32],
    counts: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return each candidate's inertia; its products become squared distances in place."""
    inertias = np.zeros(len(products))
    for candidate in range(len(products)):
        values, square, total = products[candidate], drawn[candidate], 0.0
        for row in range(len(values)):
            distance = max(squares[row] + square - 2 * values[row], np.float32(0))
            values[row] = distance
            total += min(distance, closest[row]) * counts[row]
        inertias[candidate] = total
    return inertias
