"""CPU: indices and neighbours of the lattice vertices around a set of points.

Vertices are indexed class by class (see `geometry`), each class by code, so that equal codes are
found by sorting and neighbours by merging two sorted lists. A hash table was slower: its branches
cannot be predicted. `parts` is the number of threads; results do not depend on it.
"""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Indices = NDArray[np.uint32]

_DIGIT_BITS = 11


@njit(cache=True, nogil=True)
def _sort_from_bit(keys: NDArray[np.uint64], first: int, bits: int) -> NDArray[np.uint64]:
    """Radix sort keys, stably, by `bits` bits from bit `first` on; overwrites them."""
    other = np.empty_like(keys)
    offsets = np.empty(1 << _DIGIT_BITS, np.uint32)
    mask = np.uint64(offsets.shape[0] - 1)
    for shift in range(first, first + bits, _DIGIT_BITS):
        for digit in range(offsets.shape[0]):
            offsets[digit] = 0
        for key in keys:
            offsets[(key >> np.uint64(shift)) & mask] += np.uint32(1)
        below = np.uint32(0)
        for digit in range(offsets.shape[0]):
            count = offsets[digit]
            offsets[digit] = below
            below += count
        for key in keys:
            bucket = (key >> np.uint64(shift)) & mask
            other[offsets[bucket]] = key
            offsets[bucket] += np.uint32(1)
        keys, other = other, keys
    return keys


@njit(cache=True, nogil=True)
def _number_class(codes: Ints, vertices: Indices, bits: int) -> int:
    """Index the vertices of one class by their codes.

    Args:
        codes: (n,) one a point; its beginning is overwritten by the distinct ones, sorted.
        vertices: (n,) output: each point's vertex, from 0.
        bits: Of the codes.

    Returns:
        The number of distinct codes.
    """
    points = codes.shape[0]
    point_bits = 0
    while points >> point_bits:
        point_bits += 1
    # Neighbouring pixels often share a vertex: only the first of a run is sorted.
    keys = np.empty(points, np.uint64)
    runs = np.int64(0)
    last = np.int64(-1)
    for point in range(points):
        code = codes[point]
        keys[runs] = np.uint64(code << point_bits | point)
        runs += np.int64(code != last)
        last = code
        vertices[point] = 0
    keys = _sort_from_bit(keys[:runs], point_bits, bits)
    mask = np.uint64((1 << point_bits) - 1)
    count = np.int64(0)
    last = np.int64(-1)
    for key in keys:
        code = np.int64(key >> np.uint64(point_bits))
        codes[count] = code
        count += np.int64(code != last)
        last = code
        vertices[key & mask] = count
    current = np.uint32(0)
    for point in range(points):
        started = vertices[point]
        current = started if started != 0 else current
        vertices[point] = current - np.uint32(1)
    return int(count)


@njit(cache=True, nogil=True, parallel=True)
def _number_in_parallel(codes: Ints, vertices: Indices, counts: Ints, bits: int) -> None:
    for side in prange(codes.shape[0]):
        counts[side] = _number_class(codes[side], vertices[side], bits)


@njit(cache=True, nogil=True)
def _join_classes(vertices: Indices, firsts: Ints) -> Indices:
    sides, points = vertices.shape
    corners = np.empty((points, sides), np.uint32)
    for point in range(points):
        for side in range(sides):
            corners[point, side] = vertices[side, point] + np.uint32(firsts[side])
    return corners


def number_vertices(codes: Ints, bits: int, parts: int) -> tuple[Indices, Ints]:
    """Index all vertices from 1, class by class, each class by code.

    Args:
        codes: (d + 1, n) of `embed`; the distinct ones, sorted, overwrite each row's beginning.
        bits: Of the codes.
        parts: Threads.

    Returns:
        Corners (n, d + 1), the vertices around each point, and firsts (d + 2,): class k has the
        vertices firsts[k]..firsts[k + 1] - 1.
    """
    sides, points = codes.shape
    vertices = np.empty((sides, points), np.uint32)
    counts = np.empty(sides, np.int64)
    if parts == 1:
        for side in range(sides):
            counts[side] = _number_class(codes[side], vertices[side], bits)
    else:
        _number_in_parallel(codes, vertices, counts, bits)
    firsts = np.concatenate([[1], 1 + np.cumsum(counts)])
    return _join_classes(vertices, firsts), firsts


@njit(cache=True, nogil=True)
def _match_class(
    behind: Ints,
    ahead: Ints,
    step: np.int64,
    first_behind: int,
    first_ahead: int,
    neighbours: Indices,
) -> None:
    """Merge sorted codes where `behind + step == ahead`; no branch depends on the codes."""
    one, other = np.int64(0), np.int64(0)
    while one < behind.shape[0] and other < ahead.shape[0]:
        here, there = behind[one] + step, ahead[other]
        met = here == there
        neighbours[first_behind + one, 1] = np.uint32(first_ahead + other) if met else np.uint32(0)
        neighbours[first_ahead + other, 0] = np.uint32(first_behind + one) if met else np.uint32(0)
        one += np.int64(here <= there)
        other += np.int64(there <= here)


@njit(cache=True, nogil=True)
def _match_side(
    codes: Ints, firsts: Ints, strides: Ints, side: np.int64 | int, neighbours: Indices
) -> None:
    sides = codes.shape[0]
    for here in range(sides):
        there = (here + 1) % sides
        # One up in all coordinates is the next class; from the last class it is a whole multiple.
        step = -strides[side]
        if there == 0:
            for stride in strides:
                step += stride
        _match_class(
            codes[here, : firsts[here + 1] - firsts[here]],
            codes[there, : firsts[there + 1] - firsts[there]],
            step,
            firsts[here],
            firsts[there],
            neighbours,
        )


@njit(cache=True, nogil=True, parallel=True)
def _match_in_parallel(codes: Ints, firsts: Ints, strides: Ints, neighbours: Indices) -> None:
    for side in prange(codes.shape[0]):
        _match_side(codes, firsts, strides, np.int64(side), neighbours[side])


def find_neighbours(codes: Ints, firsts: Ints, strides: Ints, parts: int) -> Indices:
    """Return (d + 1, vertices + 1, 2) uint32: the vertices one step behind and ahead; 0: none.

    Args:
        codes: As `number_vertices` leaves them.
        firsts: Of `number_vertices`.
        strides: Of `packing`.
        parts: Threads.
    """
    neighbours = np.zeros((len(codes), firsts[-1], 2), np.uint32)
    if parts == 1:
        for side in range(len(codes)):
            _match_side(codes, firsts, strides, side, neighbours[side])
    else:
        _match_in_parallel(codes, firsts, strides, neighbours)
    return neighbours
