"""Adjacency with one bit an entry, for the CPU.

The 1.6 MB of 3,600 patches stay in the cache, and a product with a vector looks sums of eight
entries up in tables of 256 (Arlazarov et al., 1970), which is faster than multiplying bytes.
"""

from types import ModuleType
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from kernels.ncut.keys import unit_keys

# Rows of cosines at a time: large enough for the matrix product, small enough for the cache.
_ROWS = 256
# Tables that a product holds at a time; a column of bits is padded to a multiple of 8 times this.
_TABLES = 4


class BitAdjacency:
    """Implements `kernels.ncut.adjacency.Adjacency`.

    Attributes:
        bits: Per image (C, T) uint8; bit b of [c, t] is the entry (8 c + b, t). C is T / 8 rounded
            up to a multiple of four, bits beyond T are zero.
    """

    xp: ModuleType = np

    def __init__(self, bits: list[NDArray[np.uint8]]) -> None:
        self.bits = bits
        self.shape = (len(bits), bits[0].shape[1])

    @classmethod
    def of_keys(cls, keys: NDArray[np.floating[Any]], tau: float) -> "BitAdjacency":
        """Build it from keys (n, T, d); see `cosine_adjacency`."""
        return cls([_cosine_bits(image, np.float32(tau)) for image in unit_keys(keys, np)])

    def matvec(self, vectors: Any) -> Any:
        sums = np.empty(self.shape)
        for image, bits in enumerate(self.bits):
            padded = np.zeros(8 * len(bits))
            padded[: self.shape[1]] = vectors[image]
            _add_from_tables(bits, padded, sums[image])
        return sums

    def take(self, images: NDArray[np.int64]) -> "BitAdjacency":
        return BitAdjacency([self.bits[image] for image in images])

    def dense(self, image: int) -> NDArray[np.bool_]:
        columns = np.unpackbits(self.bits[image], axis=0, bitorder="little")
        return columns[: self.shape[1]].astype(bool)


def _cosine_bits(unit: NDArray[np.float32], tau: np.float32) -> NDArray[np.uint8]:
    """Return one image's bits from (T, d) unit keys; only a few rows of cosines exist at a time."""
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
    """Set the bits of rows start.. and of their mirrored columns from the lower triangle."""
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
def _add_from_tables(
    bits: NDArray[np.uint8], vector: NDArray[np.float64], sums: NDArray[np.float64]
) -> None:
    """Sum the vector's entries at each patch's set bits, eight bits a table look-up."""
    tables = np.empty((_TABLES, 256))
    sums[:] = 0.0
    for column in range(0, bits.shape[0], _TABLES):
        for slot in range(_TABLES):
            table = tables[slot]
            table[0] = 0.0
            for bit in range(8):
                value, known = vector[8 * (column + slot) + bit], 1 << bit
                for index in range(known):
                    table[known + index] = table[index] + value
        first, second, third, fourth = tables[0], tables[1], tables[2], tables[3]
        for patch in range(sums.shape[0]):
            sums[patch] += (first[bits[column, patch]] + second[bits[column + 1, patch]]) + (
                third[bits[column + 2, patch]] + fourth[bits[column + 3, patch]]
            )
