"""Array operations of mean field: one engine for the CPU (engine_cpu), one for a GPU (engine_gpu)."""

from collections.abc import Hashable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.backend import ResolvedBackend, array_module
from kernels.crf.engine_cpu import CpuEngine
from kernels.crf.engine_gpu import ArrayEngine


class Filter(Protocol):
    """A normalised lattice of either engine."""

    def add_filtered(self, sums: Any, factor: float, values: Any) -> None:
        """Add factor * filtered values to the sums."""


class Engine(Hashable, Protocol):
    """Lattices and element-wise steps of one backend, on arrays in a layout of its own."""

    def build_lattice(self, features: NDArray[np.float32], images: int) -> Filter:
        """Build the normalised lattice of features (d, n), n / images points an image."""

    def from_channels(self, channels: NDArray[np.floating], padding: float) -> Any:
        """Arrange (c, n) channels on the host in the engine's layout, unused lanes padded."""

    def to_channels(self, array: Any, count: int) -> NDArray[np.float32]:
        """Undo `from_channels`: (count, n) float32 on the host."""

    def tanh_half(self, odds: Any) -> None:
        """Replace log-odds of two-class problems, one a channel, by P(mask) - P(rest)."""

    def softmax(self, scores: Any) -> None:
        """Replace the scores of one problem's classes by probabilities."""


def engine_of(backend: ResolvedBackend) -> Engine:
    """Return the backend's engine."""
    return CpuEngine() if backend == "cpu" else ArrayEngine(array_module(backend))
