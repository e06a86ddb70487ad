"""The training loop: steps, checkpoints, exact resume, progress, and a guard against divergence."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from segmodels.engine.checkpoint import Checkpointed, load_checkpoint, save_checkpoint
from segmodels.engine.distributed import Group
from segmodels.engine.progress import Log, Progress, check_finite, discard


class Training(Checkpointed, Protocol):
    """Networks and optimiser of one run; the next step follows from identity, step and state."""

    @property
    def total(self) -> int:
        """Steps of the run."""

    def train_step(self, measure: bool) -> Mapping[str, float]:
        """Run one optimiser step, and count it.

        Args:
            measure: a progress report is due: also measure what is too slow for every step, as
                statistics of collapse.

        Returns:
            Numbers by name; the names of losses contain "loss".
        """


def train(
    training: Training,
    checkpoint: Path | None,
    *,
    group: Group | None = None,
    checkpoint_every: int,
    report_every: int,
    minutes: float = float("inf"),
    on_progress: Progress = discard,
    log: Log = discard,
) -> None:
    """Train, or continue, until the last step or until the time is over.

    Every process of a group calls this; rank 0 writes the checkpoint and reports.

    Args:
        training: what is trained.
        checkpoint: its file, continued from where it exists, and written at the end; None keeps
            none.
        group: the processes of the run; None is this one alone.
        checkpoint_every: steps between two checkpoints.
        report_every: steps between two reports; the last step has one too.
        minutes: stop after this long; a later call continues.
        on_progress: takes the numbers of `train_step`, and "steps_per_second".
        log: takes a sentence where the run is continued.

    Raises:
        CheckpointMismatchError: the checkpoint is of a run with another identity.
        NonFiniteLossError: a loss is infinite or NaN; the last checkpoint stays.
    """
    group = group or Group()
    deadline = time.monotonic() + 60 * minutes
    if checkpoint is not None and checkpoint.is_file():
        load_checkpoint(training, checkpoint)
        if group.leads:
            log(f"resuming at step {training.step}")
    saved = None
    since, first = time.monotonic(), training.step
    while training.step < training.total and group.agree(time.monotonic() < deadline):
        number = training.step + 1
        due = group.leads and (number % report_every == 0 or number == training.total)
        numbers = training.train_step(due)
        check_finite(numbers, number)
        if due:
            speed = (number - first) / (time.monotonic() - since)
            since, first = time.monotonic(), number
            left = (training.total - number) / speed
            position = {"step": number, "total": training.total}
            on_progress({**position, **numbers, "steps_per_second": speed, "seconds_left": left})
        if checkpoint is not None and number % checkpoint_every == 0:
            _save(training, checkpoint, group)
            saved = number
    if checkpoint is not None and saved != training.step:
        _save(training, checkpoint, group)


def _save(training: Training, checkpoint: Path, group: Group) -> None:
    # A process that diverged never comes here, and the others must not replace the checkpoint.
    group.wait()
    with group.leader_first():
        if group.leads:
            save_checkpoint(training, checkpoint)
