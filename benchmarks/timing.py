"""Timing of alternatives side by side, so that whatever else the machine does meets them all."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds of every repetition of one alternative."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median, s."""
        return statistics.median(self.seconds)

    @property
    def fastest(self) -> float:
        """Shortest, s."""
        return min(self.seconds)


def time_each(
    alternatives: Mapping[str, Callable[[], object]], *, repeats: int = 5, warm_up: bool = True
) -> dict[str, Timing]:
    """Time alternatives in turns: each once, then each again, `repeats` times.

    Args:
        alternatives: what to call, by name.
        repeats: timed calls of each.
        warm_up: call each once before, untimed: compilers and caches are not what is measured.
    """
    if warm_up:
        for function in alternatives.values():
            function()
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(repeats):
        for name, function in alternatives.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def spelled(seconds: float) -> str:
    """A duration with its unit, three digits: 12.3 ms, 4.56 s."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
