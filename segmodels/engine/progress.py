"""Numbers that a training reports, and the check that its losses are finite."""

import math
from collections.abc import Callable, Mapping

from kernels.errors import ExNihiloError

Log = Callable[[str], None]
"""Takes a sentence."""

Progress = Callable[[Mapping[str, float]], None]
"""Takes numbers by name: "step" (steps done), "total" (steps of the run), "seconds_left", and what
the step measured: losses, whose names contain "loss", learning rate, statistics of collapse."""


class NonFiniteLossError(ExNihiloError, RuntimeError):
    """Training diverged: a loss is infinite or NaN."""


def check_finite(numbers: Mapping[str, float], step: int) -> None:
    """Check the losses of a step, counted from 1.

    Raises:
        NonFiniteLossError: one of them is infinite or NaN.
    """
    broken = {
        name: value
        for name, value in numbers.items()
        if "loss" in name and not math.isfinite(value)
    }
    if broken:
        named = ", ".join(f"{name} {value}" for name, value in sorted(broken.items()))
        raise NonFiniteLossError(
            f"training diverged at step {step} ({named}): lower the learning rate; "
            "the last checkpoint is from before"
        )


def progress_sentence(numbers: Mapping[str, float]) -> str:
    """A progress report in words; what was measured as 0 is left out."""
    measured = ", ".join(
        f"{name} {value:.4g}"
        for name, value in numbers.items()
        if value and name not in {"step", "total", "seconds_left", "steps_per_second"}
    )
    return (
        f"step {numbers['step']:.0f} of {numbers['total']:.0f}: {measured}, "
        f"about {numbers['seconds_left']:.0f} s left"
    )


def discard(_: object) -> None:
    """For callers that want no reports."""
