"""Adjacency with one float64 an entry, in array operations that NumPy and CuPy share, for a GPU.

On a GPU a product with a vector is limited by kernel launches, not by memory.
"""

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.backend import to_numpy
from kernels.ncut.keys import unit_keys


class DenseAdjacency:
    """Implements `kernels.ncut.adjacency.Adjacency`.

    Attributes:
        entries: (n, T, T) float64 zeros and ones.
    """

    def __init__(self, entries: Any, xp: ModuleType) -> None:
        self.entries = entries
        self.xp = xp
        self.shape = entries.shape[:2]

    @classmethod
    def of_keys(cls, keys: Any, tau: float, xp: ModuleType) -> "DenseAdjacency":
        """Build it from keys (n, T, d); see `cosine_adjacency`."""
        images, patches = keys.shape[:2]
        entries = xp.empty((images, patches, patches))
        for image, unit in enumerate(unit_keys(keys, xp)):
            connected = (unit @ unit.T) > np.float32(tau)
            # NumPy computes one triangle of a Gram matrix and mirrors it; CuPy rounds both.
            entries[image] = connected | connected.T
        return cls(entries, xp)

    def matvec(self, vectors: Any) -> Any:
        return self.xp.matmul(self.entries, vectors[:, :, None])[:, :, 0]

    def take(self, images: NDArray[np.int64]) -> "DenseAdjacency":
        if len(images) == self.shape[0]:
            return self  # saves a copy
        return DenseAdjacency(self.entries[self.xp.asarray(images)], self.xp)

    def dense(self, image: int) -> NDArray[np.bool_]:
        return to_numpy(self.entries[image]).astype(bool)
