"""The training process of the stage segmenter; it reports through Dagster Pipes.

    python -m assets.detector.segmenter_process REQUEST.json

A process of its own, so that a crash of the training does not take down the orchestrator. Under
torchrun every rank reads the same request, and rank 0 reports.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagster_pipes import PipesContext, open_dagster_pipes

from segmodels.detector.settings import Progress, TrainSettings
from segmodels.detector.training import train_segmenter
from segmodels.engine.device import resolve_device
from segmodels.engine.lifetime import end_with_parent


def main(request_file: Path) -> None:
    """Train by the request; rank 0 writes the losses to the run's log."""
    request = json.loads(request_file.read_text())
    if int(os.environ.get("RANK", "0")) == 0:
        with open_dagster_pipes() as pipes:
            _train(request, lambda progress: _report(pipes, progress))
    else:
        _train(request, None)


def _train(request: Mapping[str, Any], on_progress: Progress | None) -> None:
    train_segmenter(
        Path(request["images"]),
        Path(request["pseudo_labels"]),
        Path(request["work_dir"]),
        TrainSettings.from_json(json.dumps(request["settings"])),
        device=resolve_device(request["device"]),
        on_progress=on_progress,
    )


def _report(pipes: PipesContext, progress: Mapping[str, float]) -> None:
    losses = ", ".join(
        f"{name} {value:.3f}" for name, value in sorted(progress.items()) if "loss" in name
    )
    pipes.log.info(
        f"training: iteration {progress['iteration']:.0f} of {progress['total']:.0f}, {losses}, "
        f"about {progress['eta_s']:.0f} s left"
    )


if __name__ == "__main__":
    end_with_parent()
    main(Path(sys.argv[1]))
