"""Lloyd's iterations without the searches that cannot change a label.

Each point keeps its squared distance to its own centroid and a lower bound on that to all others.
A centroid that did not move cannot win a point that has a centroid nearer than the bound, so most
searches need only the centroids that moved. Labels are those of the plain algorithm; neither the
triangle inequality nor a tolerance is used.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.kmeans.nearest import Nearest, TwoNearest
from kernels.kmeans.points import Points, PointSummary, Rows, gather
from kernels.kmeans.threads import BlockThreads

Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Clusters:
    """Result of the iterations; see `KMeansResult`."""

    labels: Labels
    centroids: Rows
    reseeded: int
    iterations: int


def lloyd(
    points: Points, summary: PointSummary, centroids: Rows, iterations: int, threads: BlockThreads
) -> Clusters:
    """Iterate from initial centroids; centroids are relative to the mean of the points."""
    state = _State(len(summary.hashes), centroids.shape)
    reseeded = round_ = 0
    for round_ in range(1, iterations + 1):  # noqa: B007
        _assign(points, summary.mean, centroids, state, threads)
        empty = np.flatnonzero(state.counts == 0)
        if len(empty):
            distances = own_distances(points, summary.mean, centroids, state.labels, threads)
            _reseed(points, summary, distances, empty, state)
            reseeded += len(empty)
        previous = centroids
        centroids = (state.sums / state.counts[:, None]).astype(np.float32)
        state.moved = (centroids != previous).any(axis=1)
        if not state.moved.any():
            break
        if len(empty):  # the bounds of points that were given away are void
            state.moved[:] = True
    return Clusters(state.labels, centroids, reseeded, round_)


class _State:
    """State of every point and cluster after an iteration."""

    def __init__(self, num_points: int, shape: tuple[int, ...]) -> None:
        self.labels: Labels = np.full(num_points, -1, np.int32)
        self.squared = np.zeros(num_points, np.float32)
        self.bound = np.full(num_points, np.inf, np.float32)
        self.sums = np.zeros(shape)
        self.counts = np.zeros(shape[0], np.int64)
        self.moved = np.ones(shape[0], np.bool_)


def _assign(
    points: Points, mean: Rows, centroids: Rows, state: _State, threads: BlockThreads
) -> None:
    """Update labels, bounds and sums in one pass."""
    searched = np.flatnonzero(state.moved).astype(np.int32)
    nearby = centroids[searched]

    def search(block: Rows, here: slice, two_nearest: TwoNearest) -> Nearest:
        labels, squared, second = two_nearest(block, nearby)
        if len(nearby) == len(centroids):
            return labels, squared, second
        labels = searched[labels]
        own, bound = state.labels[here], state.bound[here]
        still = ~state.moved[own]
        unsure = np.flatnonzero(~still & (squared >= bound))
        kept = np.where(still, state.squared[here], np.inf)
        keep = (kept < squared) | ((kept == squared) & (own < labels))
        bound = np.minimum(bound, np.where(keep, squared, np.minimum(second, kept)))
        labels, squared = np.where(keep, own, labels), np.where(keep, kept, squared)
        if len(unsure):
            labels[unsure], squared[unsure], bound[unsure] = two_nearest(block[unsure], centroids)
        return labels, squared, bound

    for here, block, (labels, squared, bound) in threads.run(points, mean, search):
        _move(block, state.labels[here], labels, state.sums, state.counts)
        state.labels[here], state.squared[here], state.bound[here] = labels, squared, bound


def _reseed(
    points: Points, summary: PointSummary, distances: Rows, empty: NDArray[np.int64], state: _State
) -> None:
    """Give each empty cluster one of the points farthest from their centroids, no two equal."""
    rows = farthest(distances, state.labels, state.counts, summary.hashes, len(empty))
    before = state.labels[rows]
    state.labels[rows] = empty
    taken = gather(points, rows) - summary.mean
    _move(taken, before, state.labels[rows], state.sums, state.counts)


def farthest(
    distances: Rows,
    labels: Labels,
    counts: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    wanted: int,
) -> NDArray[np.int64]:
    """Return distinct points, far from their centroids, that leave no cluster empty.

    There are always enough: if all other points were alone in their cluster or equal to a taken
    one, there would be fewer distinct points than clusters.
    """
    counts = counts.copy()
    rows: list[int] = []
    taken: set[int] = set()
    for point in np.argsort(-distances, kind="stable"):
        digest = int(hashes[point])
        if counts[labels[point]] > 1 and digest not in taken:
            taken.add(digest)
            counts[labels[point]] -= 1
            rows.append(int(point))
            if len(rows) == wanted:
                break
    return np.array(rows)


def own_distances(
    points: Points, mean: Rows, centroids: Rows, labels: Labels, threads: BlockThreads
) -> Rows:
    """Return the (n,) float32 distances of points to their centroids."""

    def measure(block: Rows, here: slice, _: TwoNearest) -> Rows:
        block -= centroids[labels[here]]
        lengths: Rows = np.sqrt(np.einsum("nd,nd->n", block, block))
        return lengths

    distances = np.empty(len(labels), np.float32)
    for here, _, found in threads.run(points, mean, measure):
        distances[here] = found
    return distances


@njit(cache=True, nogil=True)
def _move(
    rows: Rows, before: Labels, after: Labels, sums: NDArray[np.float64], counts: NDArray[np.int64]
) -> None:
    """Move rows from one cluster's sum to another's; label -1 is no cluster."""
    for row in range(rows.shape[0]):
        old, new = before[row], after[row]
        if old == new:
            continue
        if old >= 0:
            counts[old] -= 1
            for column in range(rows.shape[1]):
                sums[old, column] -= rows[row, column]
        counts[new] += 1
        for column in range(rows.shape[1]):
            sums[new, column] += rows[row, column]
