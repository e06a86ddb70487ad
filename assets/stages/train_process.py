"""The process that `assets.stages.launch` starts: `python -m assets.stages.train_process FOLDER`.

Under torchrun every process reads the same request; the first one reports through Dagster Pipes.
"""

import os
import pickle
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from dagster_pipes import open_dagster_pipes

from kernels.errors import ExNihiloError
from segmodels.engine.lifetime import end_with_parent
from segmodels.engine.progress import Log, Progress, discard, progress_sentence

REQUEST, RESULT, FAULT = "request.pickle", "result.pickle", "fault.txt"
"""Files in the private folder that a run shares with its training process."""

_INTERVAL_S = 10.0


def main(folder: Path) -> None:
    """Train by the request in a folder; leave the result, or the reason of a failure, there."""
    leads = int(os.environ.get("RANK", "0")) == 0
    stage, training = pickle.loads((folder / REQUEST).read_bytes())
    with ExitStack() as stack:
        log: Log = discard
        if leads:
            pipes = stack.enter_context(open_dagster_pipes())

            def log(sentence: str) -> None:
                pipes.log.info(f"{stage}: {sentence}")

        try:
            result = training(on_progress=reports_to(log), log=log)
        except Exception as error:
            sentence = str(error)
            if not isinstance(error, ExNihiloError | ValueError | OSError):
                sentence = f"{type(error).__name__}: {sentence}"
            (folder / FAULT).write_text(sentence)
            raise
    if leads:
        (folder / RESULT).write_bytes(pickle.dumps(result))


def reports_to(log: Log, clock: Callable[[], float] = time.monotonic) -> Progress:
    """Log a progress report in each tenth of a training, and ten seconds after the last one."""
    last = (-1, -_INTERVAL_S)

    def report(numbers: Mapping[str, float]) -> None:
        nonlocal last
        tenth, now = int(10 * numbers["step"] / numbers["total"]), clock()
        if tenth != last[0] or now - last[1] >= _INTERVAL_S:
            last = (tenth, now)
            log(progress_sentence(numbers))

    return report


if __name__ == "__main__":
    end_with_parent()
    main(Path(sys.argv[1]))
