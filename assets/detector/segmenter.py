"""Stage segmenter: a panoptic model trained on pseudo labels, in a process of its own."""

from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from assets.data.images import images
from assets.labels.pseudo_labels import pseudo_labels
from assets.stages.launch import train_apart
from assets.stages.metadata import curve
from assets.stages.partitions import CLUSTERINGS
from assets.stages.shards import finished_shards, reduced_folder
from assets.stages.stage import Result, StageRun, result, stage
from segmodels.detector.settings import TrainSettings, config_code
from segmodels.engine.device import resolve_device, uses_gpu


class TrainerLauncher(dg.ConfigurableResource):
    """How a segmenter is trained.

    Attributes:
        processes: one per GPU; more than one are started on this machine by torchrun.
        device: "auto", "cpu" or "cuda".
    """

    processes: int = 1
    device: str = "auto"


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
def segmenter(run: StageRun[TrainSettings], trainer: TrainerLauncher) -> Result:
    """PanopticFPN with cascade heads: things are clusters, stuff are STEGO clusters and "thing"."""
    labels = run.input(pseudo_labels)
    finished_shards(labels)  # verified: the folder below links to their files
    images_file = run.input(images).folder / "images.arrow"

    def compute(folder: Path) -> dict[str, Any]:
        from segmodels.detector.training import train_segmenter, training_summary

        training = partial(
            train_segmenter,
            images_file,
            reduced_folder(labels),
            folder,
            run.settings,
            device=resolve_device(trainer.device),
        )
        train_apart(run, training, processes=trainer.processes)
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
