"""Geometry of the permutohedral lattice: its embedding, vertex codes and gain.

Vertices fall into d + 1 classes, by the remainder of their coordinates modulo d + 1, and each corner
of a simplex is of another class. Hence a vertex is (class, code), where the code packs the
coordinates' quotients into one integer.
"""

import numpy as np
from numpy.typing import NDArray

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
    """Return how a vertex's quotients are packed into its code, for points inside a box.

    The last coordinate follows from the others (they sum to zero) and gets the stride 0.

    Args:
        lowest: (d,) smallest features.
        highest: (d,) largest features.
        spare_bits: Bits of the integer that codes leave free.

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


def gain(dimensions: int) -> np.float32:
    """Return the factor that gives the filter's response the Gaussian's integral, (2 pi)^(d/2).

    The blur turns a unit mass into 2^(d+1); slicing integrates each vertex over a cell of the
    lattice, whose volume is (d + 1)^(-1/2) (3/2)^(d/2) in units of the features.
    """
    gaussian = (2 * np.pi) ** (dimensions / 2)
    cell = (3 / 2) ** (dimensions / 2) / np.sqrt(dimensions + 1)
    return np.float32(gaussian / cell / 2 ** (dimensions + 1))
