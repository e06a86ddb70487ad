"""High-dimensional Gaussian filtering on the permutohedral lattice.

Method: Adams, Baek, Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice",
Eurographics 2010. Each point spreads its value over the d + 1 corners of the lattice simplex that
holds it (splat), the corners are blurred along the d + 1 lattice directions, and the points read
the corners back with the same weights (slice). The cost is linear in points and in d squared.

The lattice is kept as integers: a vertex is one packed code, and walking around a simplex and
stepping to a blur neighbour are both the addition of one of d + 1 constants to that code.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit
from numpy.typing import NDArray

LANES = 4  # channels that are filtered together: one SIMD register of float32
_FIRST_CAPACITY = 1 << 16
_CODE_LIMIT = 2**62
_EXTENT_LIMIT = 2**20  # float32 still places a point in its cell to a few per cent


@dataclass(frozen=True)
class Lattice:
    """A lattice built for one set of n points in d dimensions; filters any number of channels.

    Attributes:
        corners: (n, d + 1) int32, the vertices around each point; vertex 0 means "none".
        weights: (n, d + 1) float32, the share of the point in each of its corners.
        neighbours: (d + 1, vertices + 1, 2) int32, both neighbours along each direction, 0 if none.
    """

    corners: NDArray[np.int32]
    weights: NDArray[np.float32]
    neighbours: NDArray[np.int32]

    @cached_property
    def num_vertices(self) -> int:
        """Number of lattice vertices that hold a value."""
        return int(self.neighbours.shape[1]) - 1

    def filter(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Sum the values of all points, weighted by the Gaussian of their distance.

        Args:
            values: (n, c) float, one row a point.

        Returns:
            (n, c) float32. The same bytes on every run.
        """
        points, channels = self.corners.shape[0], values.shape[1]
        if values.shape[0] != points:
            raise ValueError(f"values must have {points} rows, one a point, got {values.shape[0]}")
        padded = -(-channels // LANES) * LANES
        filtered = np.empty((points, padded), np.float32)
        lanes = np.zeros((points, LANES), np.float32)
        for start in range(0, padded, LANES):
            width = min(LANES, channels - start)
            lanes[:, :width] = values[:, start : start + width]
            lanes[:, width:] = 0
            filtered[:, start : start + LANES] = self.filter_lanes(lanes)
        return filtered[:, :channels]

    def filter_lanes(self, lanes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Do as `filter` for exactly LANES channels: (n, LANES) contiguous float32, no copies."""
        table = np.zeros((self.num_vertices + 1, LANES), np.float32)
        _splat(table, lanes, self.corners, self.weights)
        table = _blur(table, self.neighbours)
        sliced = np.empty_like(lanes)
        _slice(sliced, table, self.corners, self.weights)
        return sliced


def build_lattice(features: NDArray[np.floating]) -> Lattice:
    """Build the lattice whose filter approximates K v, K_ij = exp(-|f_i - f_j|^2 / 2).

    Args:
        features: (n, d) float, finite; already divided by the standard deviations of the kernel.

    Raises:
        ValueError: The features are not finite, or spread so far that vertex codes overflow.
    """
    features = np.ascontiguousarray(features, np.float32)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features must be (points, dimensions), not empty; got {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError("features must be finite, got NaN or infinity")
    basis = _hyperplane_basis(features.shape[1])
    strides, origin = _packing(features, basis)
    steps = strides.sum() - (features.shape[1] + 1) * strides
    corners, weights, codes, slots = _embed(features, basis, strides, origin, steps)
    weights *= np.sqrt(_gain(features.shape[1]))
    return Lattice(corners, weights, _find_neighbours(codes, slots, steps))


def normalise_symmetrically(lattice: Lattice) -> Lattice:
    """Fold D^-1/2 into the weights, so that the filter gives D^-1/2 K D^-1/2 v, D = diag(K 1).

    This is the kernel normalisation of Kraehenbuehl and Koltun's later dense-CRF work (ICML 2013).
    """
    ones = np.ones((lattice.corners.shape[0], LANES), np.float32)
    degree = lattice.filter_lanes(ones)[:, :1]  # above 0: every point is its own neighbour
    weights = (lattice.weights / np.sqrt(degree)).astype(np.float32)
    return Lattice(lattice.corners, weights, lattice.neighbours)


def _hyperplane_basis(dimensions: int) -> NDArray[np.float32]:
    """Return (d + 1, d): the isometry onto the plane of zero coordinate sum, scaled for the blur.

    Splat, blur and slice together have a variance of 2/3 (d + 1)^2, so that a unit standard
    deviation is (d + 1) sqrt(2/3) lattice units long (Adams et al., section 3).
    """
    basis = np.zeros((dimensions + 1, dimensions))
    for column in range(dimensions):
        basis[: column + 1, column] = 1
        basis[column + 1, column] = -(column + 1)
        basis[:, column] /= np.sqrt((column + 1) * (column + 2))
    basis *= (dimensions + 1) * np.sqrt(2 / 3)
    return np.asarray(basis, np.float32)


def _gain(dimensions: int) -> np.float32:
    """Return the factor that gives the filter's response the Gaussian's integral, (2 pi)^(d/2).

    The blur turns a unit mass into 2^(d+1); slicing integrates each vertex over a cell of the
    lattice, whose volume is (d + 1)^(-1/2) (3/2)^(d/2) in units of the features.
    """
    gaussian = (2 * np.pi) ** (dimensions / 2)
    cell = (3 / 2) ** (dimensions / 2) / np.sqrt(dimensions + 1)
    return np.float32(gaussian / cell / 2 ** (dimensions + 1))


def _packing(
    features: NDArray[np.float32], basis: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return strides (d + 1,) and origins (d + 1,) which pack a vertex into one integer.

    The last coordinate follows from the others (they sum to zero) and gets the stride 0.
    """
    dimensions = features.shape[1]
    lowest, highest = features.min(axis=0), features.max(axis=0)
    ends = np.stack([basis * lowest, basis * highest]).astype(np.float64)
    margin = 3 * (dimensions + 1)  # corners and their blur neighbours lie outside the points' box
    low = np.floor(ends.min(axis=0).sum(axis=1)) - margin
    high = np.ceil(ends.max(axis=0).sum(axis=1)) + margin
    strides, stride = [], 1
    for extent in (high - low)[:dimensions]:
        strides.append(stride)
        stride *= int(extent) + 1
        if extent > _EXTENT_LIMIT or stride > _CODE_LIMIT:
            raise ValueError(
                "features spread too far for the lattice: use larger standard deviations"
            )
    return np.array([*strides, 0], np.int64), low.astype(np.int64)


@njit(cache=True)
def _find(code: np.int64, codes: NDArray[np.int64], slots: NDArray[np.int32]) -> np.int64:
    """Return the slot that holds the code's vertex, or the empty slot where it belongs."""
    mask = np.int64(slots.shape[0] - 1)
    mixed = np.uint64(code) * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing
    slot = np.int64(mixed >> np.uint64(32)) & mask
    while slots[slot] != 0 and codes[slots[slot]] != code:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True)
def _grown(codes: NDArray[np.int64], count: int, capacity: int) -> NDArray[np.int32]:
    """Return a hash table of the given capacity over vertices 1..count."""
    slots = np.zeros(capacity, np.int32)
    for vertex in range(1, count + 1):
        slots[_find(codes[vertex], codes, slots)] = vertex
    return slots


@njit(cache=True)
def _embed(
    features: NDArray[np.float32],
    basis: NDArray[np.float32],
    strides: NDArray[np.int64],
    origin: NDArray[np.int64],
    steps: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int32]]:
    """Find each point's simplex; vertices are numbered from 1 in the order of first use."""
    points, dimensions = features.shape
    sides = dimensions + 1
    corners = np.empty((points, sides), np.int32)
    weights = np.empty((points, sides), np.float32)
    codes = np.empty(points * sides + 1, np.int64)
    slots = np.zeros(_FIRST_CAPACITY, np.int32)
    count = 0
    nearest = np.empty(sides, np.int64)
    residual = np.empty(sides, np.float32)
    order = np.empty(sides, np.int64)
    # Neighbouring pixels often share corners: remember the last one of each kind.
    last_code = np.full(sides, -1, np.int64)
    last_vertex = np.zeros(sides, np.int32)
    for point in range(points):
        surplus = np.int64(0)
        for side in range(sides):
            height = np.float32(0)
            for axis in range(dimensions):
                height += basis[side, axis] * features[point, axis]
            multiple = np.int64(np.floor(height / sides + np.float32(0.5)))
            surplus += multiple
            nearest[side] = multiple * sides
            residual[side] = height - multiple * sides
        _sort_descending(residual, order)
        # Rounding each coordinate alone may leave the plane: move those that were rounded most.
        for rank in range(abs(surplus)):
            side = order[sides - 1 - rank] if surplus > 0 else order[rank]
            shift = -sides if surplus > 0 else sides
            nearest[side] += shift
            residual[side] -= shift
        if surplus != 0:
            _sort_descending(residual, order)
        code = np.int64(0)
        for side in range(dimensions):
            code += (nearest[side] - origin[side]) * strides[side]
        for corner in range(sides):
            if corner == 0:
                weight = sides - residual[order[0]] + residual[order[dimensions]]
            else:
                moved = order[sides - corner]
                code += steps[moved]
                weight = residual[order[dimensions - corner]] - residual[moved]
            weights[point, corner] = weight / sides
            if code != last_code[corner]:
                slot = _find(code, codes, slots)
                if slots[slot] == 0:
                    count += 1
                    codes[count] = code
                    slots[slot] = count
                last_code[corner] = code
                last_vertex[corner] = slots[slot]
                if 2 * count > slots.shape[0]:
                    slots = _grown(codes, count, 4 * slots.shape[0])
            corners[point, corner] = last_vertex[corner]
    return corners, weights, codes[: count + 1].copy(), slots


@njit(cache=True)
def _sort_descending(values: NDArray[np.float32], order: NDArray[np.int64]) -> None:
    """Write into order the stable descending argsort of a handful of values."""
    for index in range(values.shape[0]):
        place = index
        while place > 0 and values[order[place - 1]] < values[index]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = index


@njit(cache=True)
def _find_neighbours(
    codes: NDArray[np.int64], slots: NDArray[np.int32], steps: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Return (d + 1, vertices + 1, 2): the vertices one step behind and ahead, 0 if none."""
    neighbours = np.zeros((steps.shape[0], codes.shape[0], 2), np.int32)
    for vertex in range(1, codes.shape[0]):
        for side in range(steps.shape[0]):
            ahead = slots[_find(codes[vertex] + steps[side], codes, slots)]
            if ahead != 0:
                neighbours[side, vertex, 1] = ahead
                neighbours[side, ahead, 0] = vertex
    return neighbours


@njit(cache=True)
def _splat(
    table: NDArray[np.float32],
    lanes: NDArray[np.float32],
    corners: NDArray[np.int32],
    weights: NDArray[np.float32],
) -> None:
    for point in range(corners.shape[0]):
        for corner in range(corners.shape[1]):
            vertex = corners[point, corner]
            weight = weights[point, corner]
            for lane in range(LANES):
                table[vertex, lane] += weight * lanes[point, lane]


@njit(cache=True)
def _slice(
    sliced: NDArray[np.float32],
    table: NDArray[np.float32],
    corners: NDArray[np.int32],
    weights: NDArray[np.float32],
) -> None:
    for point in range(corners.shape[0]):
        for lane in range(LANES):
            sliced[point, lane] = 0
        for corner in range(corners.shape[1]):
            vertex = corners[point, corner]
            weight = weights[point, corner]
            for lane in range(LANES):
                sliced[point, lane] += weight * table[vertex, lane]


@njit(cache=True)
def _blur(table: NDArray[np.float32], neighbours: NDArray[np.int32]) -> NDArray[np.float32]:
    """Convolve with (1/2, 1, 1/2) along each lattice direction in turn."""
    half = np.float32(0.5)
    blurred = np.empty_like(table)
    blurred[0] = 0  # vertex 0 stands for "no neighbour"
    for side in range(neighbours.shape[0]):
        for vertex in range(1, table.shape[0]):
            behind = neighbours[side, vertex, 0]
            ahead = neighbours[side, vertex, 1]
            for lane in range(LANES):
                blurred[vertex, lane] = table[vertex, lane] + half * (
                    table[behind, lane] + table[ahead, lane]
                )
        table, blurred = blurred, table
    return table
