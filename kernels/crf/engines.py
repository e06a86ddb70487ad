"""What mean field does with arrays, on the processor and on a GPU.

On the processor an array is (groups, pixels, LANES), the rows of a vector register; on a device it
is (pixels, channels).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.backend import ResolvedBackend, array_module, to_numpy
from kernels.crf.marginals import softmax, tanh_half
from kernels.permutohedral.arrays import build_normalised_lattice
from kernels.permutohedral.lattice import (
    build_lattice,
    from_lanes,
    in_lanes,
    normalise_symmetrically,
)
from kernels.permutohedral.threads import claimed_threads


class Filter(Protocol):
    """A lattice of either kind."""

    def add_filtered(self, sums: Any, factor: float, values: Any) -> None:
        """Add factor * filtered values to the sums."""


@dataclass(frozen=True)
class Engine:
    """Lattices and element-wise steps of one backend.

    Attributes:
        build: from features (d, n) float32 and a number of images to their normalised lattice.
        arrange: from channels (c, n) on the host, and what stands in unused lanes, to an array.
        channels: from an array and c back to (c, n) float32 on the host.
        spins: turns the log-odds of two-class problems, one a channel, into P(mask) - P(rest).
        marginals: turns the scores of one problem's classes into probabilities. Both in place.
    """

    build: Callable[[NDArray[np.float32], int], Filter]
    arrange: Callable[[NDArray[np.floating], float], Any]
    channels: Callable[[Any, int], NDArray[np.float32]]
    spins: Callable[[Any], None]
    marginals: Callable[[Any], None]


def engine_of(backend: ResolvedBackend) -> Engine:
    """Return the backend's engine."""
    return HOST if backend == "cpu" else engine_of_arrays(array_module(backend))


@lru_cache
def engine_of_arrays(xp: ModuleType) -> Engine:
    """Return the engine that computes with an array module, NumPy or CuPy."""
    return Engine(
        build=partial(build_normalised_lattice, xp=xp),
        arrange=lambda channels, _: xp.asarray(channels, np.float32).T.copy(),
        channels=lambda array, _: np.ascontiguousarray(to_numpy(array.T)),
        spins=partial(_spins_of_arrays, xp=xp),
        marginals=partial(_marginals_of_arrays, xp=xp),
    )


def _spins_of_arrays(odds: Any, xp: ModuleType) -> None:
    odds[...] = xp.tanh(odds * np.float32(0.5))


def _marginals_of_arrays(scores: Any, xp: ModuleType) -> None:
    scores -= scores.max(axis=1, keepdims=True)
    scores[...] = xp.exp(scores)
    scores /= scores.sum(axis=1, keepdims=True)


def _build_on_host(features: NDArray[np.float32], images: int) -> Filter:
    if images != 1:
        raise ValueError(f"the processor takes images one by one, got {images}")
    return normalise_symmetrically(build_lattice(features.T))


def _spins_on_host(odds: NDArray[np.float32]) -> None:
    with claimed_threads() as parts:
        tanh_half(odds.reshape(-1), parts)


def _marginals_on_host(scores: NDArray[np.float32]) -> None:
    with claimed_threads() as parts:
        softmax(scores, parts)


HOST = Engine(_build_on_host, in_lanes, from_lanes, _spins_on_host, _marginals_on_host)
