"""Asset checks: whether a backbone scores above the same network untrained."""

import math
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from assets.backbones.dino_backbone import WEIGHTS_FILE, dino_backbone
from assets.backbones.dino_features import dino_features
from assets.backbones.weights import Weights, dataset_backbone, maskcut_advice
from assets.data.images import dataset_sources, read_images
from assets.stages.locks import gpu_locked
from assets.stages.store import Store
from segmodels.engine.device import resolve_device, uses_gpu
from segmodels.formats.arrow import evenly_spaced_rows, rows_in

if TYPE_CHECKING:
    from segmodels.backbones.backbone import Backbone
    from segmodels.diagnostics.backbone_quality import AnnotatedImage, InstanceQuality
    from segmodels.diagnostics.patch_features import PatchFeatures

NAME = "backbone_quality"
DESCRIPTION = (
    "MaskCut's recall and the k-NN purity on annotated images, beside the same network with random "
    "weights (docs/backbone.md)."
)
UNTRAINED_SEED = 0


class BackboneQualityConfig(dg.Config):
    """How much the check measures."""

    images: int = Field(
        default=32, ge=1, description="Annotated images, evenly over the dataset. Default: 32."
    )


@dg.asset_check(asset=dino_features, name=NAME, description=DESCRIPTION)
def dino_features_quality(
    context: dg.AssetCheckExecutionContext,
    config: BackboneQualityConfig,
    store: Store,
    weights: Weights,
) -> dg.AssetCheckResult:
    """Measure the backbone that the dataset's features were computed with, at their size."""
    features = store.stage("dino_features").require()
    ref = dataset_backbone(features, weights)
    image_size = maskcut_advice(features).image_size
    with gpu_locked(uses_gpu(ref.device), "a check of dino_features", context.log.info):
        backbone = weights.load(ref, context.log.info)
        return _checked(backbone, image_size, store, config.images, context)


@dg.asset_check(asset=dino_backbone, name=NAME, description=DESCRIPTION)
def dino_backbone_quality(
    context: dg.AssetCheckExecutionContext, config: BackboneQualityConfig, store: Store
) -> dg.AssetCheckResult:
    """Measure the weights that were pre-trained on the dataset."""
    from segmodels.backbones import load_backbone

    version = store.stage("dino_backbone").require()
    device = resolve_device(version.settings["device"])
    with gpu_locked(uses_gpu(device), "a check of dino_backbone", context.log.info):
        backbone = load_backbone(version.folder / WEIGHTS_FILE, device)
        return _checked(backbone, backbone.image_size, store, config.images, context)


def _checked(
    backbone: "Backbone",
    image_size: int,
    store: Store,
    limit: int,
    context: dg.AssetCheckExecutionContext,
) -> dg.AssetCheckResult:
    from segmodels.diagnostics.backbone_quality import instance_quality
    from segmodels.diagnostics.patch_features import BackboneFeatures

    images = annotated_sample(store, limit)
    found: list[InstanceQuality] = []
    for measured in (backbone, backbone.untrained(UNTRAINED_SEED)):
        context.log.info(f"measuring {measured.name} on {len(images)} annotated images")
        features: PatchFeatures = BackboneFeatures(measured, image_size)
        scores = instance_quality(features, images, context.log.info)
        if scores is None:
            return _nothing_measured(len(images))
        found.append(scores)
    return compared(*found, images=len(images))


def annotated_sample(store: Store, limit: int) -> list["AnnotatedImage"]:
    """Read at most `limit` of the dataset's annotated images, evenly over its table."""
    from segmodels.diagnostics.backbone_quality import annotated_images

    version = store.stage("images").require()
    table = read_images(version)
    truth = dataset_sources(version).ground_truth(table)
    if truth is None:
        return []
    chosen = evenly_spaced_rows(rows_in(table, "image_id", truth.instance_image_ids), limit)
    return list(annotated_images(chosen, truth))


def compared(
    trained: "InstanceQuality", untrained: "InstanceQuality", *, images: int
) -> dg.AssetCheckResult:
    """Pass where recall and purity are not below the untrained network's."""
    pairs = {
        "AR3": (trained.ar3, untrained.ar3),
        "AR10": (trained.ar10, untrained.ar10),
        "AP50": (trained.ap50, untrained.ap50),
        "purity": (trained.purity, untrained.purity),
    }
    below = [name for name in ("AR10", "purity") if pairs[name][0] < pairs[name][1]]
    summary = "; ".join(
        f"{name} {_cell(pairs[name][0])}, with random weights {_cell(pairs[name][1])}"
        for name in ("AR10", "purity")
    )
    if below:
        summary += ": check the weights, or measure more images"
    numbers = {
        label: value
        for name, (mine, theirs) in pairs.items()
        for label, value in ((name, mine), (f"{name}_untrained", theirs))
        # The UI's JSON has no NaN.
        if not math.isnan(value)
    }
    return dg.AssetCheckResult(
        passed=not below,
        severity=dg.AssetCheckSeverity.WARN,
        description=summary,
        metadata={"images": images, **numbers, "scores": _table(pairs)},
    )


def _nothing_measured(images: int) -> dg.AssetCheckResult:
    sentence = (
        "Nothing was measured: none of the dataset's images has an annotated instance; name an "
        "instances_json or a panoptic_json among the sources of images."
    )
    return dg.AssetCheckResult(
        passed=True,
        severity=dg.AssetCheckSeverity.WARN,
        description=sentence,
        metadata={"images": images, "measured": sentence},
    )


def _table(pairs: dict[str, tuple[float, float]]) -> dg.MarkdownMetadataValue:
    lines = ["| percent | this backbone | random weights |", "|---|---:|---:|"]
    for name, values in pairs.items():
        lines.append(f"| {name} | {' | '.join(map(_cell, values))} |")
    return dg.MetadataValue.md("\n".join(lines))


def _cell(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


CHECKS = [dino_features_quality, dino_backbone_quality]
