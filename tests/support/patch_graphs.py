"""Patch graphs from matrices that a test writes down, in every adjacency storage."""

import numpy as np

from kernels.ncut.adjacency_cpu import BitAdjacency
from kernels.ncut.adjacency_gpu import DenseAdjacency
from kernels.ncut.affinity import PatchGraphs


class BitStorage:
    """One bit an entry, as on the CPU."""

    xp = np

    def of_matrices(self, *matrices):
        pad = -len(matrices[0]) % 32
        return BitAdjacency(
            [
                np.packbits(np.pad(matrix, ((0, pad), (0, 0))), axis=0, bitorder="little")
                for matrix in matrices
            ]
        )

    def of_keys(self, keys, tau):
        return BitAdjacency.of_keys(keys, tau)


class DenseStorage:
    """One float64 an entry, as on a GPU; xp may be NumPy."""

    def __init__(self, xp):
        self.xp = xp

    def of_matrices(self, *matrices):
        return DenseAdjacency(self.xp.asarray(np.stack(matrices).astype(np.float64)), self.xp)

    def of_keys(self, keys, tau):
        return DenseAdjacency.of_keys(keys, tau, self.xp)


BITS = BitStorage()


def graph_of(matrix, eps=1e-5, storage=BITS, **painting):
    """The graph of one image."""
    return PatchGraphs(storage.of_matrices(matrix), eps, **painting)
