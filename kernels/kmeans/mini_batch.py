"""Mini-batch k-means (Sculley, "Web-scale k-means clustering", WWW 2010)."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.kmeans.lloyd import Labels, farthest
from kernels.kmeans.nearest import TwoNearest
from kernels.kmeans.points import Points, PointSummary, Rows, blocks, gather

# Passes end with the first that lowers the inertia by less than this share.
_LEAST_GAIN = 1e-3


def mini_batch_centroids(
    points: Points,
    summary: PointSummary,
    centroids: Rows,
    two_nearest: TwoNearest,
    *,
    rows: int,
    passes: int,
) -> tuple[Rows, int]:
    """Update centroids after every batch, to the running mean of their points.

    Batches are consecutive rows. A centroid without points in a whole pass moves to one of the
    points farthest from their centroids.

    Returns:
        (k, d) float32 centroids relative to the mean of the points, and the number of passes run.
    """
    means, weights = centroids.astype(np.float64), np.zeros(len(centroids), np.int64)
    labels: Labels = np.empty(len(summary.hashes), np.int32)
    distances = np.empty(len(labels), np.float32)
    before, pass_ = np.inf, 0
    for pass_ in range(1, passes + 1):  # noqa: B007
        got, start = np.zeros_like(weights), 0
        for batch in blocks(points, rows):
            block = batch - summary.mean
            here = slice(start, start + len(block))
            start += len(block)
            current = means.astype(np.float32)
            labels[here], _, _ = two_nearest(block, current)
            sums, counts = np.zeros_like(means), np.zeros_like(weights)
            distances[here] = _measure(block, labels[here], current, sums, counts)
            touched = np.flatnonzero(counts)
            weights[touched] += counts[touched]
            share = counts[touched, None] * means[touched]
            means[touched] += (sums[touched] - share) / weights[touched, None]
            got += counts
        inertia = float((distances.astype(np.float64) ** 2).sum())
        starved = np.flatnonzero(got == 0)
        if len(starved):
            chosen = farthest(distances, labels, got, summary.hashes, len(starved))
            means[starved] = gather(points, chosen) - summary.mean
            weights[starved] = 0
        elif inertia > (1 - _LEAST_GAIN) * before:
            break
        before = inertia
    return means.astype(np.float32), pass_


@njit(cache=True, nogil=True)
def _measure(
    rows: Rows,
    labels: Labels,
    centroids: Rows,
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> Rows:
    """Return each row's distance to its centroid; add it to its cluster's sum and count."""
    distances = np.empty(len(rows), np.float32)
    for row in range(rows.shape[0]):
        label = labels[row]
        counts[label] += 1
        squared = 0.0
        for column in range(rows.shape[1]):
            value = rows[row, column]
            sums[label, column] += value
            squared += (value - centroids[label, column]) ** 2
        distances[row] = np.sqrt(squared)
    return distances
