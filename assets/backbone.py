"""Stage dino_backbone: DINO pre-training on the dataset's own photographs. Optional.

`dino_features` uses the result when its `backbone` setting names the file.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from assets.config import config_for, resolve_settings
from assets.images import dataset_sources
from assets.metadata import curve
from assets.stage_run import materialise, result
from assets.store import Store, digest_of
from segmodels.device import resolve_device
from segmodels.formats.sources import fingerprint_sources

CODE_VERSION = "1"
WEIGHTS_FILE = "backbone.safetensors"


@dataclass(frozen=True)
class PretrainChoices:
    """Pre-training as a user gives it; the rest is `segmodels.dino.settings.PretrainSettings`.

    Attributes:
        steps: length of the schedule.
        batch_size: photographs a step.
        learning_rate: peak learning rate.
        seed: of every random draw.
        device: "auto", "cpu" or "cuda".
        image_size: stored with the weights as MaskCut's input size, px.
        tau: stored with the weights as MaskCut's affinity threshold.
        center_keys: stored with the weights.
    """

    steps: int = 1600
    batch_size: int = 32
    learning_rate: float = 1e-3
    seed: int = 0
    device: str = "auto"
    image_size: int = 240
    tau: float = 0.2
    center_keys: bool = False


PretrainConfig = config_for(PretrainChoices)


@dg.asset(
    group_name="features", deps=["images"], code_version=CODE_VERSION, kinds={"pytorch"}, pool="gpu"
)
def dino_backbone(
    context: dg.AssetExecutionContext,
    config: PretrainConfig,  # type: ignore[valid-type]
    store: Store,
) -> dg.MaterializeResult[None]:
    """A backbone pre-trained on this dataset's training sources; resumes where it was stopped."""
    stage = store.stage("dino_backbone")
    choices = resolve_settings(config, PretrainChoices, stage)
    sources = dataset_sources(store.stage("images").require()).sources
    own = [source for source in sources if source.split == "train"]

    def compute(folder: Path) -> dict[str, Any]:
        return _pretrain(folder, [Path(source.images) for source in own], choices, context)

    digest = digest_of(CODE_VERSION, choices, fingerprint_sources(own))
    version = materialise(stage, digest, choices, compute, context.log.info, resumable=True)
    progress = version.summary["progress"]
    return result(
        version,
        {
            "weights": dg.MetadataValue.path(str(version.folder / WEIGHTS_FILE)),
            "loss_curve": curve("DINO pre-training", progress, ["step", "loss"]),
        },
    )


def _pretrain(
    folder: Path, images: list[Path], choices: PretrainChoices, context: dg.AssetExecutionContext
) -> dict[str, Any]:
    from segmodels.dino.export import export
    from segmodels.dino.pretrain import PROGRESS, pretrain
    from segmodels.dino.settings import PretrainSettings

    settings = dataclasses.replace(
        PretrainSettings(),
        steps=choices.steps,
        batch_size=choices.batch_size,
        learning_rate=choices.learning_rate,
        seed=choices.seed,
    )
    checkpoint = pretrain(
        settings, images, folder, device=resolve_device(choices.device), say=context.log.info
    )
    export(
        checkpoint,
        folder / WEIGHTS_FILE,
        num_heads=settings.num_heads,
        image_size=choices.image_size,
        tau=choices.tau,
        center_keys=choices.center_keys,
    )
    for derived in folder.glob("photos-*"):
        derived.unlink()
    lines = (folder / PROGRESS).read_text().splitlines() if (folder / PROGRESS).exists() else []
    points = [json.loads(line) for line in lines]
    return {"progress": [{"step": p["step"] + 1, "loss": p["loss"]} for p in points][-200:]}
