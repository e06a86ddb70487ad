"""Trainings without a model, for processes that a stage starts."""

import os
import signal

from segmodels.engine.progress import Log, NonFiniteLossError, Progress


def finishes(total: int, *, on_progress: Progress, log: Log) -> dict[str, str]:
    log("resuming at step 0")
    for step in range(1, total + 1):
        on_progress({"step": step, "total": total, "loss": 1 / step, "seconds_left": total - step})
    return {name: os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK", "OMP_WAIT_POLICY")}


def diverges(total: int, *, on_progress: Progress, log: Log) -> None:
    raise NonFiniteLossError("lower the learning rate")


def breaks(total: int, *, on_progress: Progress, log: Log) -> None:
    raise KeyError("photos")


def is_killed(total: int, *, on_progress: Progress, log: Log) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
