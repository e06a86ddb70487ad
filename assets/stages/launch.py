"""Trainings in processes of their own: a crash stays out of the run, and they end with it."""

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError

from assets.stages.stage import StageRun
from assets.stages.train_process import FAULT, REQUEST, RESULT
from kernels.errors import ExNihiloError
from segmodels.engine.lifetime import PARENT_PID


class TrainingProcessError(ExNihiloError, RuntimeError):
    """A training process failed."""


def train_apart(run: StageRun[Any], training: Callable[..., object], *, processes: int = 1) -> Any:
    """Call a function in a process of its own; its progress goes to the run's log.

    Args:
        run: the run of the stage that trains.
        training: a function of segmodels with its arguments, as a `partial`; it is called with
            `on_progress` and `log`, see `segmodels.engine.progress`.
        processes: one a GPU; torchrun starts several, on this machine.

    Returns:
        What the function returned, in the first process.

    Raises:
        TrainingProcessError: the function raised an error, or its process was killed.
    """
    with TemporaryDirectory(prefix="exnihilo-") as shared:
        folder = Path(shared)
        (folder / REQUEST).write_bytes(pickle.dumps((run.stage.name, training)))
        try:
            dg.PipesSubprocessClient().run(
                context=run.context.op_execution_context,
                command=_command(folder, processes),
                cwd=str(Path(__file__).resolve().parents[2]),
                # Threads that spin while they wait make a busy machine twenty times slower.
                env={"OMP_WAIT_POLICY": "PASSIVE", PARENT_PID: str(os.getpid())},
            )
        except DagsterPipesExecutionError as error:
            fault = folder / FAULT
            raise TrainingProcessError(
                fault.read_text()
                if fault.exists()
                else f"the training process ended early ({error}): its last lines are above; "
                "run again to continue from the last checkpoint"
            ) from error
        return pickle.loads((folder / RESULT).read_bytes())


def _command(folder: Path, processes: int) -> list[str]:
    module = ["-m", "assets.stages.train_process", str(folder)]
    if processes == 1:
        return [sys.executable, *module]
    torchrun = ["-m", "segmodels.engine.torchrun", "--nproc-per-node", str(processes)]
    return [sys.executable, *torchrun, *module]
