"""Mean field on the CPU; arrays are (groups, pixels, LANES), rows of a vector register."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.crf.marginals import softmax, tanh_half
from kernels.permutohedral.lattice_cpu import (
    Lattice,
    build_lattice,
    from_lanes,
    in_lanes,
    normalise_symmetrically,
)
from kernels.permutohedral.threads import claimed_threads


@dataclass(frozen=True)
class CpuEngine:
    """Implements `kernels.crf.engines.Engine`, for one image at a time."""

    def build_lattice(self, features: NDArray[np.float32], images: int) -> Lattice:
        if images != 1:
            raise ValueError(f"the CPU takes one image at a time, got {images}")
        return normalise_symmetrically(build_lattice(features.T))

    def from_channels(self, channels: NDArray[np.floating], padding: float) -> NDArray[np.float32]:
        return in_lanes(channels, padding)

    def to_channels(self, array: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        return from_lanes(array, count)

    def tanh_half(self, odds: NDArray[np.float32]) -> None:
        with claimed_threads() as parts:
            tanh_half(odds.reshape(-1), parts)

    def softmax(self, scores: NDArray[np.float32]) -> None:
        with claimed_threads() as parts:
            softmax(scores, parts)
