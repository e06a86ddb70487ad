"""Patch graphs from zeros and ones that a test writes down, in both storages."""

import numpy as np

from kernels.ncut.adjacency import BitAdjacency, DenseAdjacency
from kernels.ncut.affinity import PatchGraphs


def as_bits(*adjacencies):
    """One bit an entry, as on the CPU."""
    size = len(adjacencies[0])
    pad = -size % 32
    return BitAdjacency(
        [
            np.packbits(np.pad(adjacency, ((0, pad), (0, 0))), axis=0, bitorder="little")
            for adjacency in adjacencies
        ]
    )


def as_entries(*adjacencies):
    """One float64 an entry, as on the GPU, but in NumPy."""
    return DenseAdjacency(np.stack(adjacencies).astype(np.float64), np)


STORAGES = [as_bits, as_entries]


def graph_of(adjacency, eps=1e-5, storage=as_bits, **painting):
    """The graph of one image."""
    return PatchGraphs(storage(adjacency), eps, **painting)
