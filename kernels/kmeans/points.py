"""Points that may come as a stream: blocks that do not depend on the batches, mean and row hashes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Points = NDArray[np.floating] | Iterable[NDArray[np.floating]]
Rows = NDArray[np.float32]

# A block and its products with the centroids should stay in the last-level cache.
_BLOCK_VALUES = 1 << 20
_MOST_ROWS = 8192
# The sum of squares of larger values would overflow float32.
_LARGEST = 1e17


@dataclass(frozen=True)
class PointSummary:
    """What one pass over the points computes.

    Attributes:
        hashes: (n,) uint64, equal for equal rows.
        mean: (d,) float32, the mean row.
    """

    hashes: NDArray[np.uint64]
    mean: Rows


def blocks(points: Points, rows: int | None = None) -> Iterator[Rows]:
    """Yield contiguous float32 blocks, cut at the same rows whatever the batches.

    The last bits of float32 matrix products depend on the matrices' shapes, so the cuts are part of
    the result.

    Args:
        points: (n, d) array, or a re-iterable of such batches.
        rows: Rows of every block but the last; by default, as many as fit in the cache.
    """
    batches = [points] if isinstance(points, np.ndarray) else points
    held: list[Rows] = []
    count, width = 0, None
    for batch in batches:
        if batch.ndim != 2 or batch.shape[1] == 0:
            raise ValueError(f"points must be (n, d) with d >= 1, got {batch.shape}")
        if batch.shape[1] != (width := width or batch.shape[1]):
            raise ValueError(f"batches must all have {width} columns, got {batch.shape[1]}")
        size = rows or min(max(_BLOCK_VALUES // width, 1), _MOST_ROWS)
        start = 0
        while start < len(batch):
            piece = batch[start : start + size - count]
            held.append(np.ascontiguousarray(piece, np.float32))
            start, count = start + len(piece), count + len(piece)
            if count == size:
                yield held[0] if len(held) == 1 else np.concatenate(held)
                held, count = [], 0
    if count:
        yield np.concatenate(held)


def summarize(points: Points) -> PointSummary:
    """Hash every row and take the mean, in one pass.

    Raises:
        ValueError: A value is not finite or too large to be squared, or batches differ in width.
    """
    found: list[NDArray[np.uint64]] = []
    total, factors = np.zeros(0), np.zeros(0, np.uint64)
    for block in blocks(points):
        if not found:
            total = np.zeros(block.shape[1])
            random = np.random.default_rng(0)
            # Odd factors make the product a bijection.
            odd = 2 * random.integers(2**62, size=(block.shape[1],)) + 1
            factors = odd.astype(np.uint64)
        hashes = np.empty(len(block), np.uint64)
        bad = _summarize_block(block, block.view(np.uint32), factors, total, hashes)
        if bad >= 0:
            row = bad + sum(map(len, found))
            raise ValueError(
                f"points must be finite, row {row} holds NaN, infinity or a value above "
                f"{_LARGEST:.0e}"
            )
        found.append(hashes)
    if not found:
        return PointSummary(np.zeros(0, np.uint64), np.zeros(0, np.float32))
    joined = np.concatenate(found)
    return PointSummary(joined, (total / len(joined)).astype(np.float32))


def gather(points: Points, rows: NDArray[np.int64]) -> Rows:
    """Return the points with the given row indices, in their order; reads the points once."""
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    found, start = [], 0
    for block in blocks(points):
        inside = slice(*np.searchsorted(ascending, [start, start + len(block)]))
        found.append(block[ascending[inside] - start])
        start += len(block)
    gathered = np.concatenate(found)
    gathered[order] = gathered.copy()
    return gathered


@njit(cache=True, nogil=True)
def _summarize_block(
    block: Rows,
    bits: NDArray[np.uint32],
    factors: NDArray[np.uint64],
    total: NDArray[np.float64],
    hashes: NDArray[np.uint64],
) -> int:
    """Add to the column sums and hash every row; return the first bad row, or -1."""
    for row in range(block.shape[0]):
        finite = True
        mixed = np.uint64(0)
        for column in range(block.shape[1]):
            value = block[row, column]
            finite &= abs(value) <= _LARGEST  # False for NaN
            total[column] += value
            # -0.0 and 0.0 are the same point.
            word = np.uint64(0 if value == 0 else bits[row, column])
            product = (word + factors[column]) * factors[column]
            mixed += (product ^ (product >> np.uint64(32))) * factors[column]
        if not finite:
            return row
        hashes[row] = mixed
    return -1
