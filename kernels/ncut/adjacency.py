"""Which patches of an image are joined: the zeros and ones that MaskCut's affinity is made of.

Two storages with one interface. On a CPU an entry takes one bit: the 1.6 MB of 3,600 patches stay
in the cache, and a product with a vector looks sums of eight entries up in tables of 256 (Arlazarov
et al., 1970), which is faster than multiplying bytes. On a GPU an entry is a float64, as a product
there is limited by launches rather than by bytes.
"""

from types import ModuleType
from typing import Any, Protocol, Self

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.backend import to_numpy

# Cosines with keys shorter than this are those of a zero vector, as in the reference.
_SHORTEST_KEY = 1e-12
# Rows of cosines at a time: large enough for the matrix product, small enough for the cache.
_ROWS = 256
# Tables that a product holds at a time; a column of bits is padded to a multiple of 8 times this.
_TABLES = 4


class Adjacency(Protocol):
    """Joined patches of n images of T patches each: symmetric (n, T, T) zeros and ones.

    Attributes:
        xp: The array module that vectors belong to: NumPy or CuPy.
        shape: n and T.
    """

    xp: ModuleType
    shape: tuple[int, int]

    def sum_joined(self, vectors: Any) -> Any:
        """For every patch the sum over the patches joined to it: (n, T) float64 to the same."""

    def take(self, images: NDArray[np.int64]) -> Self:
        """The adjacency of some of the images."""

    def dense(self, image: int) -> NDArray[np.bool_]:
        """One image's zeros and ones on the host: (T, T) bool."""


class BitAdjacency:
    """Adjacency with one bit an entry, for the CPU.

    Attributes:
        bits: for each image (C, T) uint8: bit b of [c, t] says whether 8 c + b and t are joined;
            C is T / 8 rounded up to a multiple of four, the bits beyond T are zero.
    """

    xp: ModuleType = np

    def __init__(self, bits: list[NDArray[np.uint8]]) -> None:
        self.bits = bits
        self.shape = (len(bits), bits[0].shape[1])

    @classmethod
    def of_keys(cls, keys: NDArray[np.floating[Any]], tau: float) -> "BitAdjacency":
        """Join the patches whose keys' cosine exceeds tau; see `join_by_cosine`."""
        return cls([_cosine_bits(image, np.float32(tau)) for image in unit_keys(keys, np)])

    def sum_joined(self, vectors: Any) -> Any:
        """See `Adjacency`."""
        sums = np.empty(self.shape)
        for image, bits in enumerate(self.bits):
            padded = np.zeros(8 * len(bits))
            padded[: self.shape[1]] = vectors[image]
            _look_sums_up(bits, padded, sums[image])
        return sums

    def take(self, images: NDArray[np.int64]) -> "BitAdjacency":
        """See `Adjacency`; nothing is copied."""
        return BitAdjacency([self.bits[image] for image in images])

    def dense(self, image: int) -> NDArray[np.bool_]:
        """See `Adjacency`."""
        columns = np.unpackbits(self.bits[image], axis=0, bitorder="little")
        return columns[: self.shape[1]].astype(bool)


class DenseAdjacency:
    """Adjacency with one float64 an entry, for the GPU.

    Attributes:
        entries: (n, T, T) float64 zeros and ones.
    """

    def __init__(self, entries: Any, xp: ModuleType) -> None:
        self.entries = entries
        self.xp = xp
        self.shape = entries.shape[:2]

    @classmethod
    def of_keys(cls, keys: Any, tau: float, xp: ModuleType) -> "DenseAdjacency":
        """Join the patches whose keys' cosine exceeds tau; see `join_by_cosine`."""
        images, patches = keys.shape[:2]
        entries = xp.empty((images, patches, patches))
        for image, unit in enumerate(unit_keys(keys, xp)):
            joined = (unit @ unit.T) > np.float32(tau)
            # NumPy computes one triangle of a Gram matrix and mirrors it; CuPy rounds both.
            entries[image] = joined | joined.T
        return cls(entries, xp)

    def sum_joined(self, vectors: Any) -> Any:
        """See `Adjacency`."""
        return self.xp.matmul(self.entries, vectors[:, :, None])[:, :, 0]

    def take(self, images: NDArray[np.int64]) -> "DenseAdjacency":
        """See `Adjacency`; the entries are copied unless all images are taken."""
        if len(images) == self.shape[0]:
            return self
        return DenseAdjacency(self.entries[self.xp.asarray(images)], self.xp)

    def dense(self, image: int) -> NDArray[np.bool_]:
        """See `Adjacency`."""
        return to_numpy(self.entries[image]).astype(bool)


def join_by_cosine(keys: Any, tau: float, xp: ModuleType) -> BitAdjacency | DenseAdjacency:
    """Join the patches whose keys' cosine exceeds tau (strictly), computed in float32.

    Args:
        keys: (n, T, d) float, finite. A zero key has cosine 0 with every key, itself included.
        tau: Cosine in (-1, 1).
        xp: NumPy for bits on the CPU, CuPy for entries on the GPU.

    Raises:
        ValueError: a key holds NaN or infinity.
    """
    if xp is np:
        return BitAdjacency.of_keys(keys, tau)
    return DenseAdjacency.of_keys(keys, tau, xp)


def unit_keys(keys: Any, xp: ModuleType) -> Any:
    """Keys scaled to length 1, zero keys left as they are: (n, T, d) float32.

    Raises:
        ValueError: a key holds NaN or infinity, or is too long for float32.
    """
    # float32 throughout, as in the reference: patches near tau must fall on the same side.
    with np.errstate(over="ignore"):
        narrow = xp.asarray(keys).astype(np.float32)
        lengths = xp.sqrt(xp.einsum("ntd,ntd->nt", narrow, narrow))
    if not bool(xp.isfinite(lengths).all()):
        raise ValueError("keys must be finite (and no longer than 1e19), got NaN or infinity")
    return narrow / xp.maximum(lengths, np.float32(_SHORTEST_KEY))[:, :, None]


def _cosine_bits(unit: NDArray[np.float32], tau: np.float32) -> NDArray[np.uint8]:
    """Bits of one image from (T, d) unit keys; the cosines exist for a few rows at a time."""
    patches = len(unit)
    columns = -(-patches // (8 * _TABLES)) * _TABLES
    bits = np.zeros((columns, patches), np.uint8)
    for start in range(0, patches, _ROWS):
        stop = start + _ROWS
        # The matrix is symmetric: the entries right of the diagonal block are never computed.
        _pack(unit[start:stop] @ unit[:stop].T, tau, start, bits)
    return bits


@numba.njit(cache=True, nogil=True)
def _pack(
    cosines: NDArray[np.float32], tau: np.float32, start: int, bits: NDArray[np.uint8]
) -> None:
    """Set the bits of rows start.. and of their mirror images from the cosines left of them."""
    for row in range(cosines.shape[0]):
        values, patch = cosines[row], start + row
        mirrored, flag = bits[patch >> 3], np.uint8(1 << (patch & 7))
        for other in range(start):
            mirrored[other] |= flag if values[other] > tau else np.uint8(0)
        for column in range(start >> 3):
            byte = np.uint8(0)
            for bit in range(8):
                byte |= np.uint8(values[8 * column + bit] > tau) << np.uint8(bit)
            bits[column, patch] = byte
        for other in range(start, patch + 1):
            if values[other] > tau:
                mirrored[other] |= flag
                bits[other >> 3, patch] |= np.uint8(1 << (other & 7))


@numba.njit(cache=True, nogil=True)
def _look_sums_up(
    bits: NDArray[np.uint8], vector: NDArray[np.float64], sums: NDArray[np.float64]
) -> None:
    """Add up the vector's entries at the set bits of every patch, eight bits a look."""
    tables = np.empty((_TABLES, 256))
    sums[:] = 0.0
    for column in range(0, bits.shape[0], _TABLES):
        for place in range(_TABLES):
            table = tables[place]
            table[0] = 0.0
            for bit in range(8):
                value, known = vector[8 * (column + place) + bit], 1 << bit
                for index in range(known):
                    table[known + index] = table[index] + value
        first, second, third, fourth = tables[0], tables[1], tables[2], tables[3]
        for patch in range(sums.shape[0]):
            sums[patch] += (first[bits[column, patch]] + second[bits[column + 1, patch]]) + (
                third[bits[column + 2, patch]] + fourth[bits[column + 3, patch]]
            )
