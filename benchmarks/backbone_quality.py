"""Backbone quality: MaskCut's scores and k-NN purity, beside random weights and descriptors.

    python -m benchmarks backbone_quality --data ...   the tables
    python -m benchmarks.backbone_quality --data ...   trials: sizes, thresholds, centring

The measures are `segmodels.diagnostics.backbone_quality`. Small image sets compare variants; they
reproduce no paper.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.descriptors import DescriptorFeatures
from benchmarks.options import Options
from benchmarks.tables import Table
from pipelines.settings import read_settings
from segmodels.backbones import Backbone, load_backbone
from segmodels.backbones.cache import cached_names
from segmodels.backbones.pixels import resize_square
from segmodels.backbones.registry import EMBEDDED
from segmodels.datasets.ground_truth import load_ground_truth
from segmodels.datasets.image_source import ImageSource
from segmodels.datasets.scan import scan_sources
from segmodels.diagnostics.backbone_quality import (
    AnnotatedImage,
    ClassNeighbours,
    InstanceQuality,
    ObjectOverlaps,
    annotated_images,
    class_neighbours,
    instance_quality,
    keys_overlaps,
    mask_scores,
    object_overlaps,
    overlap,
    patch_truth,
)
from segmodels.diagnostics.patch_features import BackboneFeatures, PatchFeatures
from segmodels.dino.salient_maps import salient_map
from segmodels.dino.settings import PretrainSettings
from segmodels.formats.decode import read_image

RANDOM, DESCRIPTORS, SALIENCY = "random", "descriptors", "saliency, no backbone"
PHOTOGRAPHS, QUICK = 100, 12
RESAMPLES = 10_000
Scores = NDArray[np.float64]
# Of the photographs and maps that the embedded backbone was pre-trained with.
_SIZES = PretrainSettings()


def run(options: Options) -> list[Table]:
    """Measure the embedded backbone beside random weights, descriptors and what the cache holds."""
    if options.data is None:
        title = "Not measured: it needs photographs with ground truth (`--data`)."
        return [Table(title, ["backbone"], [])]
    photos, masks = photographs(options.data, QUICK if options.quick else PHOTOGRAPHS)
    annotated = coco_images(options.data, QUICK if options.quick else None)
    overlaps: dict[str, ObjectOverlaps] = {}
    instances: dict[str, InstanceQuality] = {}
    settings = []
    for name in (EMBEDDED, RANDOM, DESCRIPTORS, *cached_names(read_settings().backbone_cache)):
        log(f"backbone quality: {name}")
        features = features_of(name)
        centred = ", centred keys" if features.center_keys else ""
        settings.append(f"{name} {features.image_size} px, tau {features.tau}{centred}")
        overlaps[name] = object_overlaps(features, photos, masks)
        if (found := instance_quality(features, annotated, log)) is not None:
            instances[name] = found
    overlaps[SALIENCY] = saliency_overlaps(photos, masks)
    return [
        object_table(overlaps, len(photos), "; ".join(settings)),
        instance_table(instances, len(annotated)),
    ]


def features_of(name: str) -> PatchFeatures:
    """Features by name; random weights take the embedded backbone's settings."""
    return DescriptorFeatures() if name == DESCRIPTORS else BackboneFeatures(backbone_of(name))


def backbone_of(name: str) -> Backbone:
    """Load a backbone by its name, or draw random weights."""
    if name == RANDOM:
        return load_backbone(EMBEDDED).untrained(0)
    return load_backbone(name, cache_folder=read_settings().backbone_cache)


def saliency_overlaps(
    photos: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.bool_]]
) -> ObjectOverlaps:
    """Overlaps of pre-training's saliency alone: one mask, at pre-training's own sizes."""
    side, cells = _SIZES.photo_size, _SIZES.saliency.cells
    found = [
        overlap(salient_map(resize_square(photo, side), cells) > 127, patch_truth(mask, cells))
        for photo, mask in zip(photos, masks, strict=True)
    ]
    return ObjectOverlaps(np.array(found), np.array(found))


def object_table(found: Mapping[str, ObjectOverlaps], count: int, settings: str) -> Table:
    """Table of ECSSD, each row with its difference from the embedded backbone's."""
    ours, each = found[EMBEDDED], np.arange(count)
    rows = []
    for name, scores in found.items():
        row = [name, f"{scores.first.mean():.3f}", f"{scores.best.mean():.3f}"]
        pairs = ((ours.first, scores.first), (ours.best, scores.best))
        more = [difference(mine - theirs, each, 3) for mine, theirs in pairs]
        rows.append([*row, *(("-", "-") if name == EMBEDDED else more)])
    side, cells = _SIZES.photo_size, _SIZES.saliency.cells
    title = (
        f"MaskCut's three masks of {count} ECSSD photographs, no CRF, IoU at patch resolution. "
        f"{settings}; saliency: the one mask that pre-training begins with, of photographs of "
        f"{side} px on {cells} x {cells} cells. Differences with 95 % intervals of a paired bootstrap "
        "over photographs."
    )
    columns = ["backbone", "first mask", "best of three", "embedded more, first", "best of three"]
    return Table(title, columns, rows)


def instance_table(found: Mapping[str, InstanceQuality], count: int) -> Table:
    """Table of COCO in percent, each row with its difference from the embedded backbone's."""
    rows = []
    for name, scores in found.items():
        ours, theirs = found[EMBEDDED].neighbours, scores.neighbours
        more = difference(100 * (ours.shares - theirs.shares), ours.image_ids, 1)
        numbers = (scores.ar3, scores.ar10, scores.ap50, scores.purity)
        row = [name, *(f"{number:.2f}" for number in numbers)]
        rows.append([*row, "-" if name == EMBEDDED else more])
    title = (
        f"{count} COCO photographs, the same settings, in percent: MaskCut's masks without a CRF, "
        "whatever their class; purity is the share of an instance's 5 nearest neighbours in other "
        "photographs that are of its class, with a 95 % interval of a paired bootstrap over "
        "photographs."
    )
    columns = ["backbone", "AR@3", "AR@10", "mask AP50", "k-NN purity", "embedded more, purity"]
    return Table(title, columns, rows)


def difference(more: Scores, image_ids: NDArray[np.integer], digits: int) -> str:
    """Mean of paired differences with its interval, without those that are NaN; "-" of none."""
    known = ~np.isnan(more)
    if not known.any():
        return "-"
    low, high = paired_interval(more[known], image_ids[known])
    return f"{more[known].mean():+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def paired_interval(
    differences: Scores, image_ids: NDArray[np.integer], seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of the mean difference; images are resampled with their instances."""
    _, image_of = np.unique(image_ids, return_inverse=True)
    sums, counts = np.bincount(image_of, differences), np.bincount(image_of)
    chosen = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def photographs(data: Path, limit: int) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.bool_]]]:
    """ECSSD's images (H, W, 3) uint8 with their masks (H, W) bool."""
    folder = data / "data" / "ecssd"
    images, masks = [], []
    for path in sorted((folder / "ground_truth_mask").glob("*.png"))[:limit]:
        images.append(read_image(folder / "images", f"{path.stem}.jpg"))
        with Image.open(path) as mask:
            masks.append(np.asarray(mask.convert("L")) > 127)
    return images, masks


def coco_images(data: Path, limit: int | None) -> list[AnnotatedImage]:
    """COCO's images with their instances; all, or the first few."""
    folder = data / "data" / "coco"
    source = ImageSource(
        str(folder / "images" / "train2017"),
        instances_json=str(folder / "annotations" / "instances_train2017.json"),
    )
    table = scan_sources([source]).images.slice(0, limit)
    return list(annotated_images(table, load_ground_truth([source], table)))


def log(line: str) -> None:
    """Log progress to the error stream, apart from the tables."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Parse the command line and print one line for each combination."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backbone_quality")
    parser.add_argument("--data", type=Path, required=True, help="has data/ecssd and data/coco")
    parser.add_argument("--backbones", nargs="+", default=[EMBEDDED, RANDOM])
    parser.add_argument("--sizes", type=int, nargs="+", default=[240])
    parser.add_argument("--taus", type=float, nargs="+", default=[0.15])
    parser.add_argument("--center", type=int, nargs="+", choices=(0, 1), default=[1])
    parser.add_argument("--limit", type=int, default=PHOTOGRAPHS, help="photographs of ECSSD")
    parser.add_argument("--coco", type=int, default=0, help="photographs of COCO; 0: none")
    given = parser.parse_args()
    images, masks = photographs(given.data, given.limit)
    annotated = coco_images(given.data, given.coco) if given.coco else []
    for name, size in product(given.backbones, given.sizes):
        backbone = backbone_of(name)
        # As if the weights recommended it: crops of instances take this size too.
        backbone.advice = replace(backbone.advice, image_size=size)
        features = BackboneFeatures(backbone)
        keys = [features.keys(image) for image in images]
        neighbours = class_neighbours(features, annotated, log)
        for tau, center in product(given.taus, given.center):
            features.tau, features.center_keys = tau, bool(center)
            scores = keys_overlaps(keys, masks, tau=tau, center=bool(center))
            print(
                f"{name} size {size} tau {tau} center_keys {bool(center)}: "
                f"first {scores.first.mean():.3f} best of three {scores.best.mean():.3f}"
                f"{coco_trial(features, annotated, neighbours)}",
                flush=True,
            )


def coco_trial(
    features: PatchFeatures, annotated: Sequence[AnnotatedImage], neighbours: ClassNeighbours
) -> str:
    """The end of a trial's line: scores on COCO, "" without images."""
    scores = mask_scores(features, annotated, log)
    if scores is None:
        return ""
    return (
        f" AR@3 {scores.recall[3]:.1f} AR@10 {scores.recall[10]:.1f} AP50 {scores.ap50:.1f} "
        f"purity {neighbours.purity:.1f}"
    )


if __name__ == "__main__":
    main()
