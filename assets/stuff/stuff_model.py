"""Stage stuff_model: STEGO's head and cluster centroids."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from assets.backbones.dino_features import dino_features
from assets.stages.metadata import curve
from assets.stages.shards import finished_shards, reduced_folder
from assets.stages.stage import Result, StageRun, result, stage
from assets.stuff.stuff_features import NEIGHBOURS, stuff_features


@dataclass(frozen=True)
class StuffModelSettings:
    """What a user sets of `segmodels.stego.training.StegoSettings`.

    Attributes:
        loss: a preset of `segmodels.stego.presets`; "auto" chooses by the backbone.
    """

    steps: int = 5000
    batch_size: int = 16
    num_clusters: int = 27
    loss: str = "auto"
    seed: int = 0


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
        from segmodels.stego.shards import StoredViews, read_neighbours
        from segmodels.stego.training import StegoSettings, train_stego

        views = StoredViews(finished_shards(features).in_order)
        neighbours = read_neighbours(reduced_folder(features) / NEIGHBOURS)

        def report(step: int, loss: float) -> None:
            if step % max(1, settings.steps // 10) == 0:
                run.log(f"STEGO: step {step} of {settings.steps}, loss {loss:.4f}")

        model = train_stego(
            views,
            neighbours,
            StegoSettings(**(asdict(settings) | {"loss": loss_preset(settings.loss, backbone)})),
            report,
        )
        model.save(folder / "stego.safetensors")
        names = ["step", "loss", "same", "neighbour", "random"]
        history = [dict(zip(names, map(float, row), strict=True)) for row in model.history]
        return {"views": views.shape[0], "history": history}

    try:
        version = run.materialise(compute, features.digest, backbone)
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
