"""CPU: the simplex of the permutohedral lattice that holds each point, and its barycentric weights."""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from kernels.permutohedral.geometry import hyperplane_basis

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_BLOCK = 512  # points embedded together, so that temporaries stay in the first-level cache


@njit(cache=True, nogil=True, error_model="numpy")
def _embed_block(
    features: Floats,
    basis: Floats,
    strides: Ints,
    origins: Ints,
    codes: Ints,
    weights: Floats,
    start: np.int64 | int,
) -> None:
    """Embed up to _BLOCK points from `start` on; every loop over points is vectorised."""
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
    # Rank 0 is the coordinate furthest above its multiple; ties by index.
    for side in range(sides):
        for other in range(side + 1, sides):
            first, second = residuals[side], residuals[other]
            first_rank, second_rank = ranks[side], ranks[other]
            for point in range(count):
                behind = np.int32(first[point] >= second[point])
                second_rank[point] += behind
                first_rank[point] += np.int32(1) - behind
    # Rounding the coordinates one by one may leave the plane: correct those rounded most.
    for side in range(sides):
        quotient, residual, rank = quotients[side], residuals[side], ranks[side]
        for point in range(count):
            moved = np.int32(rank[point] + surplus[point])
            wraps = np.int32(np.int32(moved < 0) - np.int32(moved >= sides))
            rank[point] = moved + wraps * np.int32(sides)
            quotient[point] += wraps
            residual[point] -= np.float32(wraps) * size
    ordered = np.zeros((sides, _BLOCK), np.float32)
    for position in range(sides):
        chosen = ordered[position]
        for side in range(sides):
            residual, rank = residuals[side], ranks[side]
            for point in range(count):
                chosen[point] += residual[point] if rank[point] == position else np.float32(0)
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
    features: Floats,
    basis: Floats,
    strides: Ints,
    origins: Ints,
    codes: Ints,
    weights: Floats,
    first: np.int64 | int,
    last: np.int64 | int,
) -> None:
    for block in range(first, last):
        _embed_block(features, basis, strides, origins, codes, weights, block * _BLOCK)


@njit(cache=True, nogil=True, parallel=True)
def _embed_in_parallel(
    features: Floats,
    basis: Floats,
    strides: Ints,
    origins: Ints,
    codes: Ints,
    weights: Floats,
    blocks: int,
    parts: int,
) -> None:
    for thread in prange(parts):
        part = np.int64(thread)
        first, last = blocks * part // parts, blocks * (part + 1) // parts
        _embed_blocks(features, basis, strides, origins, codes, weights, first, last)


def embed(features: Floats, strides: Ints, origins: Ints, parts: int) -> tuple[Ints, Floats]:
    """Find the simplex that holds each point.

    Args:
        features: (d, n) float32.
        strides: Of `packing`.
        origins: Of `packing`.
        parts: Threads; the bytes returned do not depend on them.

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
