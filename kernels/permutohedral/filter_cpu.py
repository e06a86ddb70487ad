"""CPU: the compiled loops that filter on the permutohedral lattice.

Indices are unsigned: for signed ones Numba would also compile what negative indices mean.
"""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from kernels.permutohedral.lanes import load, plus, plus_scaled, store, zero

Floats = NDArray[np.float32]
Indices = NDArray[np.uint32]


def add_filtered(
    sums: Floats,
    factor: np.float32,
    groups: Floats,
    corners: Indices,
    weights: Floats,
    neighbours: Indices,
    parts: int,
) -> None:
    """Add factor * filtered groups to the sums, both (groups, n, LANES), on `parts` threads."""
    arrays = corners, weights, neighbours
    table = 2, neighbours.shape[1], groups.shape[2]
    tables = np.empty((min(parts, len(groups)), *table), np.float32)
    sides = (0,) * corners.shape[1]
    if 1 < parts <= len(groups):
        _filter_groups_in_parallel(sums, factor, groups, *arrays, tables, sides)
        return
    for total, values in zip(sums, groups, strict=True):
        if parts == 1:
            _filter_group(total, factor, values, *arrays, tables[0], sides)
        else:
            _filter_group_in_parallel(total, factor, values, *arrays, tables[0], parts)


@njit(cache=True, nogil=True)
def _clear(table: Floats, start: np.uint64, stop: np.uint64) -> None:
    for row in range(start, stop):
        store(table, row, zero())


@njit(cache=True, nogil=True)
def _splat(
    table: Floats,
    values: Floats,
    corners: Indices,
    weights: Floats,
    start: np.uint64,
    stop: np.uint64,
) -> None:
    """Add every point to its corners start..stop - 1.

    Different corners touch different rows, and each row sums its points in the same order, however
    the corners are split between threads.
    """
    for point in range(np.uint64(corners.shape[0])):
        value = load(values, point)
        for corner in range(start, stop):
            row = corners[point, corner]
            store(table, row, plus_scaled(load(table, row), weights[point, corner], value))


@njit(cache=True, nogil=True)
def _blur(
    blurred: Floats, table: Floats, neighbours: Indices, start: np.uint64, stop: np.uint64
) -> None:
    """Convolve with (1/2, 1, 1/2) along one lattice direction."""
    for row in range(start, stop):
        around = plus(load(table, neighbours[row, 0]), load(table, neighbours[row, 1]))
        store(blurred, row, plus_scaled(load(table, row), np.float32(0.5), around))


@njit(cache=True, nogil=True)
def _slice(
    sums: Floats,
    factor: np.float32,
    table: Floats,
    corners: Indices,
    weights: Floats,
    start: np.uint64,
    stop: np.uint64,
) -> None:
    for point in range(start, stop):
        value = zero()
        for corner in range(np.uint64(corners.shape[1])):
            value = plus_scaled(value, weights[point, corner], load(table, corners[point, corner]))
        store(sums, point, plus_scaled(load(sums, point), factor, value))


@njit(cache=True, nogil=True)
def _filter_group(
    sums: Floats,
    factor: np.float32,
    values: Floats,
    corners: Indices,
    weights: Floats,
    neighbours: Indices,
    tables: Floats,
    sides: tuple[int, ...],
) -> None:
    """Splat, blur and slice one group on one thread, onto the sums.

    `tables` is scratch memory, (2, vertices + 1, LANES). Of `sides` only the length is read: a
    tuple's is known to the compiler, which then unrolls the loops over corners.
    """
    points, rows = np.uint64(corners.shape[0]), np.uint64(neighbours.shape[1])
    table, spare = tables[0], tables[1]
    store(spare, 0, zero())
    _clear(table, np.uint64(0), rows)
    for point in range(points):
        value = load(values, point)
        for corner in range(len(sides)):
            row = corners[point, corner]
            store(table, row, plus_scaled(load(table, row), weights[point, corner], value))
    for side in range(len(sides)):
        _blur(spare, table, neighbours[side], np.uint64(1), rows)
        table, spare = spare, table
    for point in range(points):
        value = zero()
        for corner in range(len(sides)):
            value = plus_scaled(value, weights[point, corner], load(table, corners[point, corner]))
        store(sums, point, plus_scaled(load(sums, point), factor, value))


@njit(cache=True, nogil=True, parallel=True)
def _filter_groups_in_parallel(
    sums: Floats,
    factor: np.float32,
    groups: Floats,
    corners: Indices,
    weights: Floats,
    neighbours: Indices,
    tables: Floats,
    sides: tuple[int, ...],
) -> None:
    """Run `_filter_group` for several groups, each on one thread with its own tables."""
    parts = tables.shape[0]
    for thread in prange(parts):
        for group in range(thread, groups.shape[0], parts):
            _filter_group(
                sums[group],
                factor,
                groups[group],
                corners,
                weights,
                neighbours,
                tables[thread],
                sides,
            )


@njit(cache=True, nogil=True)
def _bound(start: int, stop: int, part: int, parts: int) -> np.uint64:
    """Return the first index of this part of a range."""
    return np.uint64(start + (stop - start) * part // parts)


@njit(cache=True, nogil=True, parallel=True)
def _filter_group_in_parallel(
    sums: Floats,
    factor: np.float32,
    values: Floats,
    corners: Indices,
    weights: Floats,
    neighbours: Indices,
    tables: Floats,
    parts: int,
) -> None:
    """Run `_filter_group` on several threads, to the same bytes.

    Threads synchronise some ten times a call, which is slow on a busy machine: with a group or more
    for each thread, whole groups are split between threads instead.
    """
    (points, sides), rows = corners.shape, neighbours.shape[1]
    table, spare = tables[0], tables[1]
    store(spare, 0, zero())
    for part in prange(parts):
        _clear(table, _bound(0, rows, part, parts), _bound(0, rows, part + 1, parts))
    for part in prange(parts):
        start, stop = _bound(0, sides, part, parts), _bound(0, sides, part + 1, parts)
        _splat(table, values, corners, weights, start, stop)
    for side in range(sides):
        for part in prange(parts):
            start, stop = _bound(1, rows, part, parts), _bound(1, rows, part + 1, parts)
            _blur(spare, table, neighbours[side], start, stop)
        table, spare = spare, table
    for part in prange(parts):
        start, stop = _bound(0, points, part, parts), _bound(0, points, part + 1, parts)
        _slice(sums, factor, table, corners, weights, start, stop)
