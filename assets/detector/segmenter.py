"""Stage segmenter: a panoptic model trained on pseudo labels, in a process of its own."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import dagster as dg

from assets.stages.metadata import curve
from assets.stages.partitions import CLUSTERINGS
from assets.stages.run import materialise, result
from assets.stages.settings import config_for, resolve_settings, settings_dict
from assets.stages.store import Store, digest_of, write_atomically
from segmodels.detector.settings import TrainSettings, config_texts
from segmodels.engine.lifetime import PARENT_PID

CODE_VERSION = "1"
TrainConfig = config_for(
    TrainSettings,
    config="cpu_r18_half, cpu_r18, paper_r50, or the path of an mmengine config file.",
    iterations="Optimiser steps.",
)
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


@dg.asset(
    group_name="model",
    deps=["images", "pseudo_labels"],
    partitions_def=CLUSTERINGS.definition,
    code_version=CODE_VERSION,
    kinds={"pytorch"},
    pool="gpu",
)
def segmenter(
    context: dg.AssetExecutionContext,
    config: TrainConfig,  # type: ignore[valid-type]
    store: Store,
    trainer: TrainerLauncher,
    pipes: dg.PipesSubprocessClient,
) -> dg.MaterializeResult[None]:
    """PanopticFPN with cascade heads: things are clusters, stuff are STEGO clusters and "thing"."""
    key = CLUSTERINGS.key_of(context)
    stage = store.stage("segmenter", str(key))
    settings = resolve_settings(config, TrainSettings, stage)
    labels = store.stage("pseudo_labels", str(key)).require()
    images_file = store.stage("images").require().folder / "images.arrow"

    def compute(folder: Path) -> dict[str, Any]:
        request = {
            "images": str(images_file),
            "pseudo_labels": str(labels.folder),
            "work_dir": str(folder),
            "device": trainer.device,
            "settings": settings_dict(settings),
        }
        write_atomically(folder / REQUEST_FILE, json.dumps(request, indent=1, sort_keys=True))
        pipes.run(
            context=context.op_execution_context,
            command=trainer.command(folder / REQUEST_FILE),
            cwd=str(Path(__file__).resolve().parents[2]),
            # Threads that spin while they wait make a busy machine twenty times slower.
            env={"OMP_WAIT_POLICY": "PASSIVE", PARENT_PID: str(os.getpid())},
        )
        (folder / REQUEST_FILE).unlink()
        from segmodels.detector.training import training_summary

        return training_summary(folder)

    digest = digest_of(CODE_VERSION, settings, labels.digest, config_texts(settings.config))
    version = materialise(stage, digest, settings, compute, context.log.info, resumable=True)
    losses = version.summary["losses"]
    return result(
        version,
        {
            **losses,
            "loss_curve": curve("Training losses", version.summary["history"], list(losses)),
        },
    )
