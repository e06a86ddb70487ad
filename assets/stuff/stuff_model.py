"""Stage stuff_model: STEGO's head and cluster centroids."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from assets.backbones.dino_features import dino_features
from assets.stages.launch import train_apart
from assets.stages.metadata import curve
from assets.stages.shards import finished_shards, reduced_folder
from assets.stages.stage import Result, StageRun, result, stage
from assets.stuff.stuff_features import NEIGHBOURS, stuff_features
from segmodels.engine.device import resolve_device, uses_gpu
from segmodels.engine.settings import FREE, deciding_settings


@dataclass(frozen=True)
class StuffModelSettings:
    """What a user sets of `segmodels.stego.training.StegoSettings`.

    Attributes:
        loss: a preset of `segmodels.stego.presets`; "auto" chooses by the backbone.
        device: "auto", "cpu" or "cuda"; it may change between the runs of one training.
        checkpoint_every: steps between two checkpoints.
    """

    steps: int = 5000
    batch_size: int = 16
    num_clusters: int = 27
    loss: str = "auto"
    seed: int = 0
    device: str = field(default="auto", metadata=FREE)
    checkpoint_every: int = field(default=500, metadata=FREE)


@stage(
    group="stuff",
    inputs=(dino_features, stuff_features),
    settings=StuffModelSettings,
    described={"num_clusters": "Stuff clusters S."},
    version="1",
    kinds={"pytorch"},
)
def stuff_model(run: StageRun[StuffModelSettings]) -> Result:
    """STEGO's head and cluster centroids, trained by feature correspondence."""
    features, settings = run.input(stuff_features), run.settings
    backbone = str(run.input(dino_features).settings["backbone"])

    def compute(folder: Path) -> dict[str, Any]:
        from segmodels.stego.presets import loss_preset
        from segmodels.stego.shards import CHECKPOINT, train_on_shards
        from segmodels.stego.training import StegoSettings

        chosen = deciding_settings(settings) | {"loss": loss_preset(settings.loss, backbone)}
        training = partial(
            train_on_shards,
            finished_shards(features).in_order,
            reduced_folder(features) / NEIGHBOURS,
            folder,
            StegoSettings(**chosen),
            device=resolve_device(settings.device),
            checkpoint_every=settings.checkpoint_every,
        )
        summary: dict[str, Any] = train_apart(run, training)
        (folder / CHECKPOINT).unlink()
        return summary

    try:
        version = run.materialise(
            compute,
            features.digest,
            backbone,
            resumable=True,
            on_gpu=partial(uses_gpu, settings.device),
        )
    except ValueError as error:
        raise dg.Failure(f"stuff_model: {error}") from error
    history = version.summary["history"]
    return result(
        version,
        {
            "views": version.summary["views"],
            "final_loss": history[-1]["loss"],
            "loss_curve": curve("Correspondence loss", history, list(history[0])),
        },
    )
