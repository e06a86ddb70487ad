"""Checkpoints of a training, which continue exactly or are refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from kernels.errors import ExNihiloError
from segmodels.formats.atomic import replacing


class CheckpointMismatchError(ExNihiloError, ValueError):
    """The checkpoint belongs to a run with other settings, data or initial weights."""


class Checkpointed(Protocol):
    """What a checkpoint needs of a training.

    Attributes:
        step: optimiser steps done.
        identity: what decides the run besides its step (format, settings, data, start), as text.
    """

    step: int

    @property
    def identity(self) -> Mapping[str, str]: ...

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, in types that `weights_only` loads."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over a state, whose tensors are on the CPU."""


def save_checkpoint(training: Checkpointed, path: Path) -> None:
    """Write a checkpoint atomically: identity, step and state in one dictionary."""
    content = {**training.identity, "step": training.step, **training.state()}
    with replacing(path) as partial:
        torch.save(content, partial)


def load_checkpoint(training: Checkpointed, path: Path) -> None:
    """Continue exactly from a checkpoint.

    Raises:
        CheckpointMismatchError: a run of another identity wrote it.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    other = [name for name, value in training.identity.items() if content.get(name) != value]
    if other:
        raise CheckpointMismatchError(
            f"{path} was written by a run with other {' and '.join(other)}: "
            "give the same ones, or another output folder"
        )
    training.step = content["step"]
    training.load_state(content)
