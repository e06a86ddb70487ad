"""Lloyd's iterations, with the work left out that cannot change anything.

Beside each point's remoteness from its own centroid a bound is kept below which no other one
came. A centroid that stood still since the last iteration therefore cannot win a point that has
something nearer than the bound, so most searches need only the centroids that moved. Labels are
those of the plain algorithm; neither a triangle inequality nor a tolerance is involved.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.kmeans.nearest import Nearest, TwoNearest
from kernels.kmeans.points import Points, Rows, Survey, gather
from kernels.kmeans.threads import BlockThreads

Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Clusters:
    """What the iterations ended with; see kmeans.KMeansResult."""

    labels: Labels
    centroids: Rows
    reseeded: int
    iterations: int


def lloyd(
    points: Points, survey: Survey, centroids: Rows, iterations: int, threads: BlockThreads
) -> Clusters:
    """Iterate from first centroids, given and returned around the mean."""
    state = _State(len(survey.fingerprints), centroids.shape)
    reseeded = round_ = 0
    for round_ in range(1, iterations + 1):  # noqa: B007
        _assign(points, survey.mean, centroids, state, threads)
        empty = np.flatnonzero(state.counts == 0)
        if len(empty):
            distances = own_distances(points, survey.mean, centroids, state.labels, threads)
            _reseed(points, survey, distances, empty, state)
            reseeded += len(empty)
        previous = centroids
        centroids = (state.sums / state.counts[:, None]).astype(np.float32)
        state.moved = (centroids != previous).any(axis=1)
        if not state.moved.any():
            break
        if len(empty):  # the bounds know nothing of points that were given away
            state.moved[:] = True
    return Clusters(state.labels, centroids, reseeded, round_)


class _State:
    """What is known of every point and cluster after an iteration."""

    def __init__(self, num_points: int, shape: tuple[int, ...]) -> None:
        self.labels: Labels = np.full(num_points, -1, np.int32)
        self.least = np.zeros(num_points, np.float32)
        self.bound = np.full(num_points, np.inf, np.float32)
        self.sums = np.zeros(shape)
        self.counts = np.zeros(shape[0], np.int64)
        self.moved = np.ones(shape[0], np.bool_)


def _assign(
    points: Points, mean: Rows, centroids: Rows, state: _State, threads: BlockThreads
) -> None:
    """Bring labels, bounds and sums up to date in one pass."""
    searched = np.flatnonzero(state.moved).astype(np.int32)
    nearby = centroids[searched]

    def search(block: Rows, here: slice, two_nearest: TwoNearest) -> Nearest:
        labels, least, second = two_nearest(block, nearby)
        if len(nearby) == len(centroids):
            return labels, least, second
        labels = searched[labels]
        own, bound = state.labels[here], state.bound[here]
        stood = ~state.moved[own]
        unsure = np.flatnonzero(~stood & (least >= bound))
        kept = np.where(stood, state.least[here], np.inf)
        keep = (kept < least) | ((kept == least) & (own < labels))
        bound = np.minimum(bound, np.where(keep, least, np.minimum(second, kept)))
        labels, least = np.where(keep, own, labels), np.where(keep, kept, least)
        if len(unsure):
            labels[unsure], least[unsure], bound[unsure] = two_nearest(block[unsure], centroids)
        return labels, least, bound

    for here, block, (labels, least, bound) in threads.run(points, mean, search):
        _move(block, state.labels[here], labels, state.sums, state.counts)
        state.labels[here], state.least[here], state.bound[here] = labels, least, bound


def _reseed(
    points: Points, survey: Survey, distances: Rows, empty: NDArray[np.int64], state: _State
) -> None:
    """Give each empty cluster the point farthest from its centroid, no two of them equal."""
    rows = farthest(distances, state.labels, state.counts, survey.fingerprints, len(empty))
    before = state.labels[rows]
    state.labels[rows] = empty
    taken = gather(points, rows) - survey.mean
    _move(taken, before, state.labels[rows], state.sums, state.counts)


def farthest(
    distances: Rows,
    labels: Labels,
    counts: NDArray[np.int64],
    fingerprints: NDArray[np.uint64],
    wanted: int,
) -> NDArray[np.int64]:
    """Return different points, far from their centroids, that leave no cluster empty.

    There always are enough: were all remaining points alone in their cluster or equal to one
    already taken, there would be fewer distinct points than clusters.
    """
    counts = counts.copy()
    rows: list[int] = []
    taken: set[int] = set()
    for point in np.argsort(-distances, kind="stable"):
        fingerprint = int(fingerprints[point])
        if counts[labels[point]] > 1 and fingerprint not in taken:
            taken.add(fingerprint)
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
    rows: Rows,
    before: Labels,
    after: Labels,
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> None:
    """Take rows out of one cluster's sum and into another's; a label of -1 is no cluster."""
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
