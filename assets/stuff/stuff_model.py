"""Stage stuff_model: STEGO's head and cluster centroids."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from assets.backbones.weights import backbone_name
from assets.stages.metadata import curve
from assets.stages.run import materialise, result
from assets.stages.settings import config_for, resolve_settings
from assets.stages.shards import finished_shards
from assets.stages.store import Store, digest_of
from assets.stuff.stuff_features import neighbours_folder

CODE_VERSION = "1"


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


StuffModelConfig = config_for(StuffModelSettings, num_clusters="Stuff clusters S.")


@dg.asset(
    group_name="stuff",
    deps=["stuff_features"],
    code_version=CODE_VERSION,
    kinds={"pytorch"},
    pool="gpu",
)
def stuff_model(
    context: dg.AssetExecutionContext,
    config: StuffModelConfig,  # type: ignore[valid-type]
    store: Store,
) -> dg.MaterializeResult[None]:
    """STEGO's head and cluster centroids, trained by feature correspondence."""
    stage = store.stage("stuff_model")
    settings = resolve_settings(config, StuffModelSettings, stage)
    upstream_stage = store.stage("stuff_features")
    upstream = upstream_stage.require()
    backbone = backbone_name(store)

    def compute(folder: Path) -> dict[str, Any]:
        from segmodels.stego.presets import loss_preset
        from segmodels.stego.shards import StoredViews, read_neighbours
        from segmodels.stego.training import StegoSettings, train_stego

        views = StoredViews(finished_shards(upstream).in_order)
        neighbours = read_neighbours(neighbours_folder(upstream_stage.path, upstream))

        def report(step: int, loss: float) -> None:
            if step % max(1, settings.steps // 10) == 0:
                context.log.info(f"STEGO: step {step} of {settings.steps}, loss {loss:.4f}")

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

    digest = digest_of(CODE_VERSION, settings, upstream.digest, backbone)
    try:
        version = materialise(stage, digest, settings, compute, context.log.info)
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
