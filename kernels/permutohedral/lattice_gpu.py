"""The permutohedral lattice in array operations that NumPy and CuPy share, for a GPU.

Its vertices have the same indices as in `lattice_cpu`. Sums run in a fixed order, for results that
are equal from run to run; CUDA's sparse products and atomic additions do not promise that.
"""

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.permutohedral.geometry import gain, hyperplane_basis, packing

_WIDTH = 16  # terms of a partial sum


@dataclass(frozen=True)
class ArrayLattice:
    """A lattice built for one set of n points in d dimensions; filters any number of channels.

    Attributes:
        xp: Array module of the other attributes, NumPy or CuPy.
        corners: (n, d + 1) int64, the vertices around each point, from 1.
        weights: (n, d + 1) float32, barycentric weights of each point times the filter's gain.
        neighbours: (d + 1, vertices + 1, 2) int64, both neighbours along each direction; 0: none.
        partial_sums: Summation plan of the splat; see `_partial_sums`.
    """

    xp: ModuleType
    corners: Any
    weights: Any
    neighbours: Any
    partial_sums: list[Any]

    def add_filtered(self, sums: Any, factor: float, values: Any) -> None:
        """Add factor * filtered values to the sums, both (n, c) float32."""
        xp, channels = self.xp, values.shape[1]
        shares = (self.weights[:, :, None] * values[:, None, :]).reshape(-1, channels)
        for indices in self.partial_sums:
            padded = xp.concatenate([shares, xp.zeros((1, channels), np.float32)])
            shares = padded[indices].sum(axis=1)
        table = xp.concatenate([xp.zeros((1, channels), np.float32), shares])
        for behind_and_ahead in self.neighbours:
            behind, ahead = behind_and_ahead.T
            table = table + np.float32(0.5) * (table[behind] + table[ahead])
        sums += np.float32(factor) * (self.weights[:, :, None] * table[self.corners]).sum(axis=1)


def build_normalised_lattice(
    features: NDArray[np.float32], images: int, xp: ModuleType
) -> ArrayLattice:
    """Build the lattice of `lattice_cpu.normalise_symmetrically` for a batch of images.

    Args:
        features: (d, n) float32, finite; n / images points an image, image by image.
        images: Their number; points of different images share no vertex.
        xp: NumPy or CuPy.

    Raises:
        ValueError: The features spread so far that vertex codes overflow.
    """
    lowest, highest = features.min(axis=1), features.max(axis=1)
    strides, origins, bits = packing(lowest, highest, images.bit_length())
    codes, weights = _embed(xp.asarray(features), strides, origins, xp)
    image = xp.arange(features.shape[1]) // (features.shape[1] // images)
    codes += image << bits
    vertices, corners = [], []
    first = 1
    for own in codes:
        distinct, indices = xp.unique(own, return_inverse=True)
        vertices.append(distinct)
        corners.append(indices + first)
        first += len(distinct)
    lattice = ArrayLattice(
        xp,
        xp.stack(corners, axis=1),
        weights * np.sqrt(gain(len(features))),
        _find_neighbours(vertices, strides, xp),
        _partial_sums(xp.stack(corners, axis=1).reshape(-1), first - 1, xp),
    )
    degrees = xp.zeros((features.shape[1], 1), np.float32)
    lattice.add_filtered(degrees, 1, xp.ones_like(degrees))
    return replace(lattice, weights=lattice.weights / xp.sqrt(degrees))


def _embed(
    features: Any, strides: NDArray[np.int64], origins: NDArray[np.int64], xp: ModuleType
) -> tuple[Any, Any]:
    """Do the operations of `embedding.embed` in the same order, for all points at once."""
    dimensions = len(features)
    sides = dimensions + 1
    size, share = np.float32(sides), np.float32(1) / np.float32(sides)
    residuals = xp.zeros((sides, features.shape[1]), np.float32)
    for axis, column in enumerate(hyperplane_basis(dimensions).T):
        residuals += xp.asarray(column)[:, None] * features[axis]
    multiples = xp.floor(residuals * share + np.float32(0.5))
    residuals -= multiples * size
    quotients = multiples.astype(np.int64)
    ranks = xp.zeros(quotients.shape, np.int64)
    for side in range(sides):
        for other in range(side + 1, sides):
            behind = residuals[side] >= residuals[other]
            ranks[other] += behind
            ranks[side] += ~behind
    ranks += quotients.sum(axis=0)
    wraps = (ranks < 0).astype(np.int64) - (ranks >= sides)
    ranks += wraps * sides
    quotients += wraps
    residuals -= wraps.astype(np.float32) * size
    order = xp.argsort(ranks, axis=0)
    ordered = xp.take_along_axis(residuals, order, axis=0)
    first = ((quotients - xp.asarray(origins)[:, None]) * xp.asarray(strides)[:, None]).sum(axis=0)
    # The next corner is one up in all coordinates and sides down in the one ranked sides - corner.
    moved = xp.asarray(strides)[order[:0:-1]]
    codes = xp.concatenate([first[None], first[None] - xp.cumsum(moved, axis=0)])
    gaps = (ordered[:-1] - ordered[1:])[::-1] * share
    nearest = ((size - ordered[0]) + ordered[-1]) * share
    return codes, xp.concatenate([nearest[None], gaps]).T


def _find_neighbours(vertices: list[Any], strides: NDArray[np.int64], xp: ModuleType) -> Any:
    """Do `vertices.find_neighbours` for one sorted list of codes a class."""
    sides = len(vertices)
    firsts = np.cumsum([1, *map(len, vertices)]).tolist()
    neighbours = xp.zeros((sides, firsts[-1], 2), np.int64)
    for here in range(sides):
        there = (here + 1) % sides
        for side in range(sides):
            step = (int(strides.sum()) if there == 0 else 0) - int(strides[side])
            wanted = vertices[here] + step
            found = xp.minimum(xp.searchsorted(vertices[there], wanted), len(vertices[there]) - 1)
            met = xp.flatnonzero(vertices[there][found] == wanted)
            neighbours[side, firsts[here] + met, 1] = firsts[there] + found[met]
            neighbours[side, firsts[there] + found[met], 0] = firsts[here] + met
    return neighbours


def _partial_sums(targets: Any, vertices: int, xp: ModuleType) -> list[Any]:
    """Plan the sums of entries by target as a few rounds of sums of _WIDTH rows.

    Args:
        targets: (m,) int64, the vertex of each entry, from 1; every vertex occurs.
        vertices: Their number.
        xp: NumPy or CuPy.

    Returns:
        Per round (sums, _WIDTH) int64, the rows of the previous round (first: of the entries) in each
        sum; the index after the last row means zero. The last round has one sum a vertex.
    """
    rows = xp.argsort(targets, kind="stable")
    counts = xp.bincount(targets, minlength=vertices + 1)[1:]
    rounds: list[Any] = []
    while not rounds or len(rounds[-1]) > vertices:
        sums = -(-counts // _WIDTH)
        ends, sums_end = xp.cumsum(counts), xp.cumsum(sums)
        each = xp.arange(int(sums_end[-1]))
        vertex = xp.searchsorted(sums_end, each, side="right")
        start = (ends - counts)[vertex] + (each - (sums_end - sums)[vertex]) * _WIDTH
        positions = start[:, None] + xp.arange(_WIDTH)
        total = len(rows)
        inside = positions < ends[vertex][:, None]
        rounds.append(xp.where(inside, rows[xp.minimum(positions, total - 1)], total))
        rows, counts = each, sums
    return rounds
