"""Stage dino_backbone: DINO pre-training on the dataset's own photographs. Optional.

`dino_features` uses the result when its `backbone` setting names the file.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
from PIL import Image

from assets.data.images import dataset_sources, train_images
from assets.stages.metadata import curve, picture, spread
from assets.stages.run import materialise, result
from assets.stages.settings import config_for, resolve_settings
from assets.stages.store import Store, digest_of
from segmodels.datasets.sources import fingerprint_sources
from segmodels.engine.device import resolve_device

CODE_VERSION = "3"
WEIGHTS_FILE = "backbone.safetensors"
ATTENTION_FILE = "attention.png"
COLLAPSE = ("sharpness", "spread", "rank")
_ATTENTION_PHOTOS = 4
_CURVE_POINTS = 200


@dataclass(frozen=True)
class PretrainChoices:
    """Pre-training as a user gives it; the rest is `segmodels.dino.settings.PretrainSettings`.

    Attributes:
        steps: length of the schedule.
        batch_size: photographs a step.
        learning_rate: peak learning rate.
        dino_weight, saliency_weight, shape_weight: of the three kinds of losses; 0 leaves one
            out.
        start: backbone whose weights the run begins with; "" for random ones.
        objects: backbone that finds the photographs' objects; "" for hand-made saliency alone.
        seed: of every random draw.
        device: "auto", "cpu" or "cuda".
        image_size: stored with the weights as MaskCut's input size, px.
        tau: stored with the weights as MaskCut's affinity threshold.
        center_keys: stored with the weights.
    """

    steps: int = 1600
    batch_size: int = 32
    learning_rate: float = 1e-3
    dino_weight: float = 1.0
    saliency_weight: float = 1.0
    shape_weight: float = 1.0
    start: str = ""
    objects: str = ""
    seed: int = 0
    device: str = "auto"
    image_size: int = 240
    tau: float = 0.3
    center_keys: bool = True


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
        summary = _pretrain(folder, [Path(source.images) for source in own], choices, context)
        _draw_attention(folder, train_images(store), resolve_device(choices.device))
        return summary

    digest = digest_of(CODE_VERSION, choices, fingerprint_sources(own), _weights_used(choices))
    version = materialise(stage, digest, choices, compute, context.log.info, resumable=True)
    progress = version.summary["progress"]
    return result(
        version,
        {
            "weights": dg.MetadataValue.path(str(version.folder / WEIGHTS_FILE)),
            "loss_curve": curve("DINO pre-training", progress, ["step", "loss"]),
            "collapse_curve": curve(
                "The teacher's targets (sharpness 0: uniform; spread 0: one for all photographs), "
                "where dino_weight is above 0, and the effective rank of CLS (1: collapsed)",
                progress,
                ["step", *(name for name in COLLAPSE if name in progress[0])],
            ),
            "attention": picture(np.asarray(Image.open(version.folder / ATTENTION_FILE))),
        },
    )


def _weights_used(choices: PretrainChoices) -> list[str]:
    """Digests of the backbones that a run builds on: a path may come to hold other weights."""
    from segmodels.backbones import load_backbone

    return [load_backbone(name).digest for name in (choices.start, choices.objects) if name]


def _pretrain(
    folder: Path, images: list[Path], choices: PretrainChoices, context: dg.AssetExecutionContext
) -> dict[str, Any]:
    from segmodels.dino.export import export
    from segmodels.dino.pretrain import PROGRESS, pretrain
    from segmodels.dino.settings import PretrainSettings

    standard = PretrainSettings()
    settings = dataclasses.replace(
        standard,
        steps=choices.steps,
        batch_size=choices.batch_size,
        learning_rate=choices.learning_rate,
        dino_weight=choices.dino_weight,
        saliency=dataclasses.replace(standard.saliency, weight=choices.saliency_weight),
        shape=dataclasses.replace(standard.shape, weight=choices.shape_weight),
        seed=choices.seed,
    )
    checkpoint = pretrain(
        settings,
        images,
        folder,
        device=resolve_device(choices.device),
        start=choices.start or None,
        objects=choices.objects or None,
        say=context.log.info,
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
    lines = [json.loads(line) for line in (folder / PROGRESS).read_text().splitlines()]
    return {"progress": _curve_points(lines)}


def _curve_points(lines: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Spread some points over a run's progress; what a resumed run repeated counts once."""
    by_step = {
        line["step"] + 1: {
            "step": line["step"] + 1,
            "loss": line["loss"],
            **_known(line["collapse"]),
        }
        for line in lines
    }
    chosen = np.linspace(0, len(by_step) - 1, min(len(by_step), _CURVE_POINTS)).round()
    points = [by_step[step] for step in sorted(by_step)]
    return [points[index] for index in chosen.astype(int)]


def _known(collapse: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in collapse.items() if value is not None}


def _draw_attention(folder: Path, images: pa.Table, device: str) -> None:
    """Draw what the new weights' CLS looks at in a few training images, beside the weights."""
    from segmodels.backbones import load_backbone
    from segmodels.dino.attention_panel import attention_panel
    from segmodels.formats.decode import read_image

    rows = spread(images, _ATTENTION_PHOTOS).to_pylist()
    photos = [read_image(row["source"], row["path"]) for row in rows]
    panel = attention_panel(load_backbone(folder / WEIGHTS_FILE, device), photos)
    Image.fromarray(panel).save(folder / ATTENTION_FILE)
