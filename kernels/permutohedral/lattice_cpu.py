"""The permutohedral lattice in compiled loops, for a CPU."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.permutohedral.embedding import embed
from kernels.permutohedral.filter_cpu import add_filtered
from kernels.permutohedral.geometry import gain, packing
from kernels.permutohedral.lanes import LANES
from kernels.permutohedral.threads import claimed_threads
from kernels.permutohedral.vertices import find_neighbours, number_vertices


@dataclass(frozen=True)
class Lattice:
    """A lattice built for one set of n points in d dimensions; filters any number of channels.

    Attributes:
        corners: (n, d + 1) uint32, the vertices around each point, from 1.
        weights: (n, d + 1) float32, barycentric weights of each point times the filter's gain.
        neighbours: (d + 1, vertices + 1, 2) uint32, both neighbours along each direction; 0: none.
    """

    corners: NDArray[np.uint32]
    weights: NDArray[np.float32]
    neighbours: NDArray[np.uint32]

    @cached_property
    def num_vertices(self) -> int:
        """Number of lattice vertices with a value."""
        return int(self.neighbours.shape[1]) - 1

    def add_filtered(
        self, sums: NDArray[np.float32], factor: float, groups: NDArray[np.float32]
    ) -> None:
        """Add factor * K @ values to the sums, both as `in_lanes` arranges them.

        K sums the values of all points, weighted by the Gaussian of their distance. The bytes are the
        same on every run, with any number of threads.
        """
        wanted = (len(groups), len(self.corners), LANES)
        if groups.shape != wanted or sums.shape != wanted:
            raise ValueError(f"groups and sums must be {wanted}, got {groups.shape}, {sums.shape}")
        with claimed_threads() as parts:
            arrays = self.corners, self.weights, self.neighbours
            add_filtered(sums, np.float32(factor), groups, *arrays, parts)


def in_lanes(channels: NDArray[np.floating], padding: float = 0) -> NDArray[np.float32]:
    """Arrange (c, n) channels as (groups, n, LANES) float32, the last group padded."""
    count, points = channels.shape
    groups = np.full((-(-count // LANES), points, LANES), padding, np.float32)
    for index, channel in enumerate(channels):
        groups[index // LANES, :, index % LANES] = channel
    return groups


def from_lanes(groups: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Undo `in_lanes`: (c, n) float32, contiguous."""
    channels = np.empty((count, groups.shape[1]), np.float32)
    for index, channel in enumerate(channels):
        channel[:] = groups[index // LANES, :, index % LANES]
    return channels


def build_lattice(features: NDArray[np.floating]) -> Lattice:
    """Build the lattice whose filter approximates K v, K_ij = exp(-|f_i - f_j|^2 / 2).

    Args:
        features: (n, d) float, finite, in units of the kernel's standard deviations. Contiguous
            columns save a copy.

    Raises:
        ValueError: The features are not finite, or spread so far that vertex codes overflow.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features must be (points, dimensions), not empty; got {features.shape}")
    columns = np.ascontiguousarray(features.T, np.float32)
    lowest, highest = columns.min(axis=1), columns.max(axis=1)
    if not np.isfinite([lowest, highest]).all():
        raise ValueError("features must be finite, got NaN or infinity")
    # The spare bits hold a point's index, which is sorted together with its code.
    strides, origins, bits = packing(lowest, highest, columns.shape[1].bit_length())
    with claimed_threads() as parts:
        codes, weights = embed(columns, strides, origins, parts)
        corners, firsts = number_vertices(codes, bits, parts)
        neighbours = find_neighbours(codes, firsts, strides, parts)
    weights *= np.sqrt(gain(len(columns)))
    return Lattice(corners, weights, neighbours)


def normalise_symmetrically(lattice: Lattice) -> Lattice:
    """Fold D^-1/2 into the weights: the filter becomes D^-1/2 K D^-1/2 v, D = diag(K 1).

    This is the kernel normalisation of Kraehenbuehl and Koltun's later dense-CRF work (ICML 2013).
    """
    ones = np.ones((1, len(lattice.corners), LANES), np.float32)
    degrees = np.zeros_like(ones)
    lattice.add_filtered(degrees, 1, ones)  # above 0: every point is its own neighbour
    return replace(lattice, weights=_divide_rows(lattice.weights, np.sqrt(degrees[0, :, 0])))


@njit(cache=True, nogil=True, error_model="numpy")
def _divide_rows(
    weights: NDArray[np.float32], divisors: NDArray[np.float32]
) -> NDArray[np.float32]:
    divided = np.empty_like(weights)
    for point in range(weights.shape[0]):
        for corner in range(weights.shape[1]):
            divided[point, corner] = weights[point, corner] / divisors[point]
    return divided
