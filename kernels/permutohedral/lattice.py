"""High-dimensional Gaussian filtering on the permutohedral lattice.

Method: Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice",
Eurographics 2010. Each point spreads its value over the d + 1 corners of the lattice simplex that
holds it (splat), the corners are blurred along the d + 1 lattice directions, and the points read
the corners back with the same weights (slice). The cost is linear in points and in d squared.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from kernels.permutohedral.embedding import embed, packing
from kernels.permutohedral.lanes import LANES, load, plus, plus_scaled, store, zero
from kernels.permutohedral.threads import claimed_threads
from kernels.permutohedral.vertices import find_neighbours, number_vertices


@dataclass(frozen=True)
class Lattice:
    """A lattice built for one set of n points in d dimensions; filters any number of channels.

    Attributes:
        corners: (n, d + 1) uint32, the vertices around each point, counted from 1.
        weights: (n, d + 1) float32, the share of the point in each of its corners.
        neighbours: (d + 1, vertices + 1, 2) uint32, both neighbours along each direction, 0 if
            none.
    """

    corners: NDArray[np.uint32]
    weights: NDArray[np.float32]
    neighbours: NDArray[np.uint32]

    @cached_property
    def num_vertices(self) -> int:
        """Number of lattice vertices that hold a value."""
        return int(self.neighbours.shape[1]) - 1

    def filter(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Sum the values of all points, weighted by the Gaussian of their distance.

        Args:
            values: (n, c) float, one row a point.

        Returns:
            (n, c) float32. The same bytes on every run, with any number of threads.
        """
        points, channels = self.corners.shape[0], values.shape[1]
        if values.shape[0] != points:
            raise ValueError(f"values must have {points} rows, one a point, got {values.shape[0]}")
        groups = in_lanes(values.T)
        filtered = np.zeros_like(groups)
        self.add_filtered(filtered, 1, groups)
        return from_lanes(filtered, channels).T

    def add_filtered(
        self, sums: NDArray[np.float32], factor: float, groups: NDArray[np.float32]
    ) -> None:
        """Add factor * filtered values to the sums, both as `in_lanes` arranges them."""
        wanted = (len(groups), len(self.corners), LANES)
        if groups.shape != wanted or sums.shape != wanted:
            raise ValueError(f"groups and sums must be {wanted}, got {groups.shape}, {sums.shape}")
        with claimed_threads() as parts:
            self._add_with(sums, np.float32(factor), groups, parts)

    def _add_with(
        self,
        sums: NDArray[np.float32],
        factor: np.float32,
        groups: NDArray[np.float32],
        parts: int,
    ) -> None:
        arrays = self.corners, self.weights, self.neighbours
        tables = np.empty((min(parts, len(groups)), 2, self.num_vertices + 1, LANES), np.float32)
        sides = (0,) * self.corners.shape[1]
        if 1 < parts <= len(groups):
            _filter_groups_in_parallel(sums, factor, groups, *arrays, tables, sides)
            return
        for total, values in zip(sums, groups, strict=True):
            if parts == 1:
                _filter_group(total, factor, values, *arrays, tables[0], sides)
            else:
                _filter_group_in_parallel(total, factor, values, *arrays, tables[0], parts)


def in_lanes(channels: NDArray[np.floating], padding: float = 0) -> NDArray[np.float32]:
    """Arrange (c, n) channels in groups of LANES, (groups, n, LANES) float32, the last one padded."""
    count, points = channels.shape
    groups = np.full((-(-count // LANES), points, LANES), padding, np.float32)
    for index, channel in enumerate(channels):
        groups[index // LANES, :, index % LANES] = channel
    return groups


def from_lanes(groups: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Undo `in_lanes`: (c, n) contiguous."""
    channels = np.empty((count, groups.shape[1]), np.float32)
    for index, channel in enumerate(channels):
        channel[:] = groups[index // LANES, :, index % LANES]
    return channels


def build_lattice(features: NDArray[np.floating]) -> Lattice:
    """Build the lattice whose filter approximates K v, K_ij = exp(-|f_i - f_j|^2 / 2).

    Args:
        features: (n, d) float, finite; already divided by the standard deviations of the kernel.
            Columns that are contiguous save a copy.

    Raises:
        ValueError: The features are not finite, or spread so far that vertex codes overflow.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features must be (points, dimensions), not empty; got {features.shape}")
    columns = np.ascontiguousarray(features.T, np.float32)
    lowest, highest = columns.min(axis=1), columns.max(axis=1)
    if not np.isfinite([lowest, highest]).all():
        raise ValueError("features must be finite, got NaN or infinity")
    # A point's number is sorted together with its code.
    strides, origins, bits = packing(lowest, highest, columns.shape[1].bit_length())
    with claimed_threads() as parts:
        codes, weights = embed(columns, strides, origins, parts)
        corners, firsts = number_vertices(codes, bits, parts)
        neighbours = find_neighbours(codes, firsts, strides, parts)
    weights *= np.sqrt(gain(len(columns)))
    return Lattice(corners, weights, neighbours)


def normalise_symmetrically(lattice: Lattice) -> Lattice:
    """Fold D^-1/2 into the weights, so that the filter gives D^-1/2 K D^-1/2 v, D = diag(K 1).

    This is the kernel normalisation of Kraehenbuehl and Koltun's later dense-CRF work (ICML 2013).
    """
    ones = np.ones((1, len(lattice.corners), LANES), np.float32)
    degrees = np.zeros_like(ones)
    lattice.add_filtered(degrees, 1, ones)  # above 0: every point is its own neighbour
    return replace(lattice, weights=_divide_rows(lattice.weights, np.sqrt(degrees[0, :, 0])))


def gain(dimensions: int) -> np.float32:
    """Return the factor that gives the filter's response the Gaussian's integral, (2 pi)^(d/2).

    The blur turns a unit mass into 2^(d+1); slicing integrates each vertex over a cell of the
    lattice, whose volume is (d + 1)^(-1/2) (3/2)^(d/2) in units of the features.
    """
    gaussian = (2 * np.pi) ** (dimensions / 2)
    cell = (3 / 2) ** (dimensions / 2) / np.sqrt(dimensions + 1)
    return np.float32(gaussian / cell / 2 ** (dimensions + 1))


@njit(cache=True, nogil=True, error_model="numpy")
def _divide_rows(
    weights: NDArray[np.float32], divisors: NDArray[np.float32]
) -> NDArray[np.float32]:
    divided = np.empty_like(weights)
    for point in range(weights.shape[0]):
        for corner in range(weights.shape[1]):
            divided[point, corner] = weights[point, corner] / divisors[point]
    return divided


# Indices are unsigned below: for others Numba also compiles what negative ones mean.


@njit(cache=True, nogil=True)
def _clear(table: NDArray[np.float32], start: np.uint64, stop: np.uint64) -> None:
    for row in range(start, stop):
        store(table, row, zero())


@njit(cache=True, nogil=True)
def _splat(
    table: NDArray[np.float32],
    values: NDArray[np.float32],
    corners: NDArray[np.uint32],
    weights: NDArray[np.float32],
    start: np.uint64,
    stop: np.uint64,
) -> None:
    """Add every point to its corners start..stop - 1.

    A vertex is the same corner of all its points: different corners touch different rows, and
    each row sums its points in the same order, however the corners are shared out.
    """
    for point in range(np.uint64(corners.shape[0])):
        value = load(values, point)
        for corner in range(start, stop):
            row = corners[point, corner]
            store(table, row, plus_scaled(load(table, row), weights[point, corner], value))


@njit(cache=True, nogil=True)
def _blur(
    blurred: NDArray[np.float32],
    table: NDArray[np.float32],
    neighbours: NDArray[np.uint32],
    start: np.uint64,
    stop: np.uint64,
) -> None:
    """Convolve with (1/2, 1, 1/2) along one lattice direction."""
    for row in range(start, stop):
        around = plus(load(table, neighbours[row, 0]), load(table, neighbours[row, 1]))
        store(blurred, row, plus_scaled(load(table, row), np.float32(0.5), around))


@njit(cache=True, nogil=True)
def _slice(
    sums: NDArray[np.float32],
    factor: np.float32,
    table: NDArray[np.float32],
    corners: NDArray[np.uint32],
    weights: NDArray[np.float32],
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
    sums: NDArray[np.float32],
    factor: np.float32,
    values: NDArray[np.float32],
    corners: NDArray[np.uint32],
    weights: NDArray[np.float32],
    neighbours: NDArray[np.uint32],
    tables: NDArray[np.float32],
    sides: tuple[int, ...],
) -> None:
    """Splat, blur and slice one group on one thread, onto the sums.

    `tables` is room for the vertices, (2, vertices + 1, LANES). Of `sides` only the length counts:
    a tuple's is known to the compiler, which then unrolls the loops over corners.
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
    sums: NDArray[np.float32],
    factor: np.float32,
    groups: NDArray[np.float32],
    corners: NDArray[np.uint32],
    weights: NDArray[np.float32],
    neighbours: NDArray[np.uint32],
    tables: NDArray[np.float32],
    sides: tuple[int, ...],
) -> None:
    """Do as `_filter_group` for several groups, each on one thread; room for each thread."""
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
    """Return where this part of a range begins."""
    return np.uint64(start + (stop - start) * part // parts)


@njit(cache=True, nogil=True, parallel=True)
def _filter_group_in_parallel(
    sums: NDArray[np.float32],
    factor: np.float32,
    values: NDArray[np.float32],
    corners: NDArray[np.uint32],
    weights: NDArray[np.float32],
    neighbours: NDArray[np.uint32],
    tables: NDArray[np.float32],
    parts: int,
) -> None:
    """Do as `_filter_group` on several threads, to the same bytes.

    Threads wait for each other some ten times a call, which costs much where other programs use
    the cores too: with a group or more for each thread, groups are shared out instead.
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
