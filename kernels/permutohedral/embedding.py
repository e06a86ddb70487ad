"""Which simplex of the permutohedral lattice holds a point, and how near it is to the corners.

The lattice's vertices fall into d + 1 classes, by the remainder of their coordinates modulo d + 1,
and each corner of a simplex is of another class. Hence a vertex is (class, code), where the code
packs the coordinates' quotients into one integer.
"""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

_BLOCK = 512  # points embedded together: their temporaries stay in the first-level cache
_CODE_BITS = 62
_EXTENT_LIMIT = 2**20  # float32 still places a point in its cell to a few per cent


def hyperplane_basis(dimensions: int) -> NDArray[np.float32]:
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


def packing(
    lowest: NDArray[np.float32], highest: NDArray[np.float32], spare_bits: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Say how a vertex's quotients are packed into its code, for points inside a box.

    The last coordinate follows from the others (they sum to zero) and gets the stride 0.

    Args:
        lowest: (d,) smallest features.
        highest: (d,) largest features.
        spare_bits: which codes have to leave free in an integer.

    Returns:
        Strides (d + 1,), origins (d + 1,), and the number of bits that hold every code.

    Raises:
        ValueError: The box is so wide that codes overflow.
    """
    sides = len(lowest) + 1
    basis = hyperplane_basis(sides - 1)
    ends = np.stack([basis * lowest, basis * highest]).astype(np.float64)
    margin = 3  # corners and their blur neighbours lie outside the points' box
    low = np.floor(ends.min(axis=0).sum(axis=1) / sides) - margin
    high = np.ceil(ends.max(axis=0).sum(axis=1) / sides) + margin
    strides, stride = [], 1
    for extent in (high - low)[:-1]:
        strides.append(stride)
        stride *= int(extent) + 1
        if extent * sides > _EXTENT_LIMIT or stride.bit_length() + spare_bits > _CODE_BITS:
            raise ValueError(
                "features spread too far for the lattice: use larger standard deviations"
            )
    return np.array([*strides, 0], np.int64), low.astype(np.int64), stride.bit_length()


@njit(cache=True, nogil=True, error_model="numpy")
def _embed_block(
    features: NDArray[np.float32],
    basis: NDArray[np.float32],
    strides: NDArray[np.int64],
    origins: NDArray[np.int64],
    codes: NDArray[np.int64],
    weights: NDArray[np.float32],
    start: np.int64 | int,
) -> None:
    """Embed up to _BLOCK points from `start` on; every loop over points is a vector loop."""
    dimensions, points = features.shape
    sides = dimensions + 1
    count = min(_BLOCK, points - start)
    stop = start + count
    size = np.float32(sides)
    share = np.float32(1) / size
    quotients = np.empty((sides, _BLOCK), np.int32)
    residuals = np.zeros((sides, _BLOCK), np.float32)
    ranks = np.zeros((sides, _BLOCK), np.int32)
    surplus = np.zeros(_BLOCK, np.int32)
    for side in range(sides):
        quotient, residual = quotients[side], residuals[side]
        for axis in range(dimensions):
            feature, factor = features[axis, start:stop], basis[side, axis]
            for point in range(count):
                residual[point] += factor * feature[point]
        for point in range(count):
            multiple = np.floor(residual[point] * share + np.float32(0.5))
            residual[point] -= multiple * size
            quotient[point] = np.int32(multiple)
        for point in range(count):
            surplus[point] += quotient[point]
    # Rank 0 is the coordinate that lies furthest above its multiple; ties by index.
    for side in range(sides):
        for other in range(side + 1, sides):
            mine, theirs = residuals[side], residuals[other]
            my_rank, their_rank = ranks[side], ranks[other]
            for point in range(count):
                behind = np.int32(mine[point] >= theirs[point])
                their_rank[point] += behind
                my_rank[point] += np.int32(1) - behind
    # Rounding each coordinate alone may leave the plane: move those that were rounded most.
    for side in range(sides):
        quotient, residual, rank = quotients[side], residuals[side], ranks[side]
        for point in range(count):
            moved = np.int32(rank[point] + surplus[point])
            wraps = np.int32(np.int32(moved < 0) - np.int32(moved >= sides))
            rank[point] = moved + wraps * np.int32(sides)
            quotient[point] += wraps
            residual[point] -= np.float32(wraps) * size
    ordered = np.zeros((sides, _BLOCK), np.float32)
    for place in range(sides):
        chosen = ordered[place]
        for side in range(sides):
            residual, rank = residuals[side], ranks[side]
            for point in range(count):
                chosen[point] += residual[point] if rank[point] == place else np.float32(0)
    code = codes[0, start:stop]
    for point in range(count):
        code[point] = 0
    for side in range(dimensions):
        quotient, stride, origin = quotients[side], strides[side], np.int32(origins[side])
        for point in range(count):
            code[point] += (quotient[point] - origin) * stride
    # The next corner is one up in all coordinates and sides down in the one ranked sides - corner.
    for corner in range(1, sides):
        code, previous = codes[corner, start:stop], codes[corner - 1, start:stop]
        for point in range(count):
            code[point] = previous[point]
        for side in range(dimensions):
            rank, stride = ranks[side], strides[side]
            for point in range(count):
                code[point] -= stride if rank[point] == sides - corner else np.int64(0)
    first, final = ordered[0], ordered[dimensions]
    for point in range(count):
        weights[start + point, 0] = (size - first[point] + final[point]) * share
    for corner in range(1, sides):
        above, below = ordered[dimensions - corner], ordered[sides - corner]
        for point in range(count):
            weights[start + point, corner] = (above[point] - below[point]) * share


@njit(cache=True, nogil=True)
def _embed_blocks(
    features: NDArray[np.float32],
    basis: NDArray[np.float32],
    strides: NDArray[np.int64],
    origins: NDArray[np.int64],
    codes: NDArray[np.int64],
    weights: NDArray[np.float32],
    first: np.int64 | int,
    last: np.int64 | int,
) -> None:
    for block in range(first, last):
        _embed_block(features, basis, strides, origins, codes, weights, block * _BLOCK)


@njit(cache=True, nogil=True, parallel=True)
def _embed_in_parallel(
    features: NDArray[np.float32],
    basis: NDArray[np.float32],
    strides: NDArray[np.int64],
    origins: NDArray[np.int64],
    codes: NDArray[np.int64],
    weights: NDArray[np.float32],
    blocks: int,
    parts: int,
) -> None:
    for thread in prange(parts):
        part = np.int64(thread)
        first, last = blocks * part // parts, blocks * (part + 1) // parts
        _embed_blocks(features, basis, strides, origins, codes, weights, first, last)


def embed(
    features: NDArray[np.float32],
    strides: NDArray[np.int64],
    origins: NDArray[np.int64],
    parts: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find each point's simplex.

    Args:
        features: (d, n) float32.
        strides: of `packing`.
        origins: of `packing`.
        parts: threads; the bytes returned do not depend on them.

    Returns:
        Codes (d + 1, n) of the corners, one row a class, and weights (n, d + 1), which sum to 1.
    """
    dimensions, points = features.shape
    codes = np.empty((dimensions + 1, points), np.int64)
    weights = np.empty((points, dimensions + 1), np.float32)
    arrays = features, hyperplane_basis(dimensions), strides, origins, codes, weights
    blocks = -(-points // _BLOCK)
    if parts == 1:
        _embed_blocks(*arrays, 0, blocks)
    else:
        _embed_in_parallel(*arrays, blocks, parts)
    return codes, weights
