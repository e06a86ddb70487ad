"""Trainings in a process of their own, where one may be killed in the middle."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class KillAt:
    """End this process by SIGKILL where a training reports this step."""

    step: int

    def __call__(self, numbers: Mapping[str, float]) -> None:
        if numbers["step"] == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def run_killed(train: Callable[..., object], step: int) -> None:
    """Run a picklable training, which takes `on_progress`, until it reports this step."""
    assert _exit_code(partial(train, on_progress=KillAt(step))) == -signal.SIGKILL


def run_apart(*trainings: Callable[[], object]) -> None:
    """Run trainings one after the other, in a process that no other test has changed."""
    assert _exit_code(_run_all, trainings) == 0


def _run_all(trainings: tuple[Callable[[], object], ...]) -> None:
    for train in trainings:
        train()


def _exit_code(target: Callable[..., object], *arguments: object) -> int | None:
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    process.start()
    process.join(120)
    return process.exitcode
