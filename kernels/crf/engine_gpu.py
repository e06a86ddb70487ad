"""Mean field in array operations that NumPy and CuPy share, for a GPU; arrays are (pixels, c)."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.backend import to_numpy
from kernels.permutohedral.lattice_gpu import ArrayLattice, build_normalised_lattice


@dataclass(frozen=True)
class ArrayEngine:
    """Implements `kernels.crf.engines.Engine`; xp is the array module, NumPy or CuPy."""

    xp: ModuleType

    def build_lattice(self, features: NDArray[np.float32], images: int) -> ArrayLattice:
        return build_normalised_lattice(features, images, self.xp)

    def from_channels(self, channels: NDArray[np.floating], _padding: float) -> Any:
        return self.xp.asarray(channels, np.float32).T.copy()

    def to_channels(self, array: Any, _count: int) -> NDArray[np.float32]:
        return np.ascontiguousarray(to_numpy(array.T))

    def tanh_half(self, odds: Any) -> None:
        odds[...] = self.xp.tanh(odds * np.float32(0.5))

    def softmax(self, scores: Any) -> None:
        scores -= scores.max(axis=1, keepdims=True)
        scores[...] = self.xp.exp(scores)
        scores /= scores.sum(axis=1, keepdims=True)
