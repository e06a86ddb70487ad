"""Stage dino_backbone: DINO pre-training on the dataset's own images. Optional.

`dino_features` uses the result when its `backbone` setting names the file.
"""

import dataclasses
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
from PIL import Image

from assets.backbones.weights import Weights
from assets.data.images import dataset_sources, images, train_images
from assets.stages.launch import train_apart
from assets.stages.metadata import curve, picture
from assets.stages.stage import Result, StageRun, result, stage
from segmodels.backbones.ref import BackboneRef
from segmodels.datasets.image_source import sources_state
from segmodels.engine.device import resolve_device, uses_gpu
from segmodels.formats.arrow import evenly_spaced_rows

WEIGHTS_FILE = "backbone.safetensors"
ATTENTION_FILE = "attention.png"
COLLAPSE = ("sharpness", "spread", "rank")
_ATTENTION_IMAGES = 4
_CURVE_POINTS = 200


@dataclass(frozen=True)
class DinoBackboneSettings:
    """What a user sets of `segmodels.dino.settings.PretrainSettings`, and of the run.

    Attributes:
        dino_weight, saliency_weight, shape_weight: of the three kinds of losses; 0 omits one.
        start: backbone whose weights training starts from; "" for random weights.
        objects: backbone that finds the images' objects; "" for hand-made saliency alone.
        device: "auto", "cpu" or "cuda".
        image_size, tau, center_keys: stored with the weights, see `MaskCutAdvice`.
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


@stage(
    group="features",
    inputs=(images,),
    settings=DinoBackboneSettings,
    version="3",
    kinds={"pytorch"},
)
def dino_backbone(run: StageRun[DinoBackboneSettings], weights: Weights) -> Result:
    """A backbone pre-trained on this dataset's training sources; resumes where it was stopped."""
    settings, dataset = run.settings, run.input(images)
    own = [source for source in dataset_sources(dataset).sources if source.split == "train"]
    start, objects = (
        weights.find(name, "cpu", run.log) if name else None
        for name in (settings.start, settings.objects)
    )

    def compute(folder: Path) -> dict[str, Any]:
        pretrained = [Path(source.images) for source in own]
        summary = _pretrain(run, folder, pretrained, start, objects)
        _draw_attention(folder, train_images(dataset), resolve_device(settings.device))
        return summary

    # Digests, as a path may come to hold other weights.
    used = [ref.digest for ref in (start, objects) if ref is not None]
    version = run.materialise(
        compute,
        sources_state(own),
        used,
        resumable=True,
        on_gpu=partial(uses_gpu, settings.device),
    )
    progress = version.summary["progress"]
    return result(
        version,
        {
            "weights": dg.MetadataValue.path(str(version.folder / WEIGHTS_FILE)),
            "loss_curve": curve("DINO pre-training", progress, ["step", "loss"]),
            "collapse_curve": curve(
                "The teacher's targets (sharpness 0: uniform; spread 0: one for all images), "
                "where dino_weight is above 0, and the effective rank of CLS (1: collapsed)",
                progress,
                ["step", *(name for name in COLLAPSE if name in progress[0])],
            ),
            "attention": picture(np.asarray(Image.open(version.folder / ATTENTION_FILE))),
        },
    )


def _pretrain(
    run: StageRun[DinoBackboneSettings],
    folder: Path,
    folders: list[Path],
    start: BackboneRef | None,
    objects: BackboneRef | None,
) -> dict[str, Any]:
    from segmodels.dino.export import export
    from segmodels.dino.pretrain import PROGRESS, pretrain
    from segmodels.dino.settings import PretrainSettings

    settings, standard = run.settings, PretrainSettings()
    pretraining = dataclasses.replace(
        standard,
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        dino_weight=settings.dino_weight,
        saliency=dataclasses.replace(standard.saliency, weight=settings.saliency_weight),
        shape=dataclasses.replace(standard.shape, weight=settings.shape_weight),
        seed=settings.seed,
    )
    device = resolve_device(settings.device)
    training = partial(
        pretrain, pretraining, folders, folder, device=device, start=start, objects=objects
    )
    checkpoint = train_apart(run, training)
    export(
        checkpoint,
        folder / WEIGHTS_FILE,
        num_heads=pretraining.num_heads,
        image_size=settings.image_size,
        tau=settings.tau,
        center_keys=settings.center_keys,
    )
    for derived in folder.glob("photos-*"):
        derived.unlink()
    lines = [json.loads(line) for line in (folder / PROGRESS).read_text().splitlines()]
    return {"progress": _curve_points(lines)}


def _curve_points(lines: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Thin out a run's progress; a step that a resumed run repeated counts once."""
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


def _draw_attention(folder: Path, table: pa.Table, device: str) -> None:
    """Draw the attention of CLS in a few training images, beside the weights."""
    from segmodels.backbones import load_backbone
    from segmodels.dino.attention_panel import attention_panel
    from segmodels.formats.decode import read_image

    rows = evenly_spaced_rows(table, _ATTENTION_IMAGES).to_pylist()
    pictures = [read_image(row["source"], row["path"]) for row in rows]
    panel = attention_panel(load_backbone(folder / WEIGHTS_FILE, device), pictures)
    Image.fromarray(panel).save(folder / ATTENTION_FILE)
