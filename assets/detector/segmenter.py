"""Stage segmenter: a panoptic model trained on pseudo labels, in a process of its own."""

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from assets.data.images import images
from assets.labels.pseudo_labels import pseudo_labels
from assets.stages.metadata import curve
from assets.stages.partitions import CLUSTERINGS
from assets.stages.settings import settings_dict
from assets.stages.stage import Result, StageRun, result, stage
from segmodels.detector.settings import TrainSettings, config_code
from segmodels.engine.device import uses_gpu
from segmodels.engine.lifetime import PARENT_PID

REQUEST_FILE = "request.json"


class TrainerLauncher(dg.ConfigurableResource):
    """Starts the training process.

    Attributes:
        processes: one per GPU; more than one are started on this machine by torchrun.
        device: "auto", "cpu" or "cuda".
    """

    processes: int = 1
    device: str = "auto"

    def command(self, request_file: Path) -> list[str]:
        """Return the command line of the training process."""
        module = ["-m", "assets.detector.segmenter_process", str(request_file)]
        if self.processes == 1:
            return [sys.executable, *module]
        torchrun = ["-m", "segmodels.engine.torchrun", "--nproc-per-node", str(self.processes)]
        return [sys.executable, *torchrun, *module]


@stage(
    group="model",
    inputs=(images, pseudo_labels),
    settings=TrainSettings,
    described={
        "config": "cpu_r18_half, cpu_r18, paper_r50, or the path of an mmengine config file.",
        "iterations": "Optimiser steps.",
    },
    version="1",
    partitions=CLUSTERINGS,
    kinds={"pytorch"},
)
def segmenter(
    run: StageRun[TrainSettings], trainer: TrainerLauncher, pipes: dg.PipesSubprocessClient
) -> Result:
    """PanopticFPN with cascade heads: things are clusters, stuff are STEGO clusters and "thing"."""
    labels = run.input(pseudo_labels)
    images_file = run.input(images).folder / "images.arrow"

    def compute(folder: Path) -> dict[str, Any]:
        request = {
            "images": str(images_file),
            "pseudo_labels": str(labels.folder),
            "work_dir": str(folder),
            "device": trainer.device,
            "settings": settings_dict(run.settings),
        }
        request_file = folder / REQUEST_FILE
        request_file.write_text(json.dumps(request, indent=1, sort_keys=True))
        pipes.run(
            context=run.context.op_execution_context,
            command=trainer.command(request_file),
            cwd=str(Path(__file__).resolve().parents[2]),
            # Threads that spin while they wait make a busy machine twenty times slower.
            env={"OMP_WAIT_POLICY": "PASSIVE", PARENT_PID: str(os.getpid())},
        )
        request_file.unlink()
        from segmodels.detector.training import training_summary

        return training_summary(folder)

    version = run.materialise(
        compute,
        labels.digest,
        config_code(run.settings.config),
        resumable=True,
        on_gpu=partial(uses_gpu, trainer.device),
    )
    losses = version.summary["losses"]
    return result(
        version,
        {
            **losses,
            "loss_curve": curve("Training losses", version.summary["history"], list(losses)),
        },
    )
