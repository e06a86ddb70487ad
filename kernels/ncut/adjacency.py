"""Adjacency of an image's patches: 1 where the cosine of two keys exceeds tau, else 0.

The CPU stores one bit an entry (adjacency_cpu), the GPU one float64 (adjacency_gpu).
"""

from types import ModuleType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from kernels.ncut.adjacency_cpu import BitAdjacency
from kernels.ncut.adjacency_gpu import DenseAdjacency


class Adjacency(Protocol):
    """Symmetric (n, T, T) zeros and ones of n images with T patches each.

    Attributes:
        xp: The array module that vectors belong to: NumPy or CuPy.
        shape: n and T.
    """

    xp: ModuleType
    shape: tuple[int, int]

    def matvec(self, vectors: Any) -> Any:
        """Multiply each image's adjacency with its vector: (n, T) float64 to the same."""

    def take(self, images: NDArray[np.int64]) -> Self:
        """Select images by index."""

    def dense(self, image: int) -> NDArray[np.bool_]:
        """Return one image's adjacency on the host: (T, T) bool."""


def cosine_adjacency(keys: Any, tau: float, xp: ModuleType) -> BitAdjacency | DenseAdjacency:
    """Connect the patches whose keys' cosine, computed in float32, is strictly above tau.

    Args:
        keys: (n, T, d) float, finite. A zero key has cosine 0 with every key, itself included.
        tau: Cosine in (-1, 1).
        xp: NumPy for bits on the CPU, CuPy for float64 on the GPU.

    Raises:
        ValueError: A key holds NaN or infinity.
    """
    if xp is np:
        return BitAdjacency.of_keys(keys, tau)
    return DenseAdjacency.of_keys(keys, tau, xp)
