"""Backbone quality: MaskCut's scores with its keys, and the k-NN purity of its instance vectors.

Any source of patch features is measured alike, MaskCut without its CRF. Labels only score.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from kernels import rle
from kernels.ncut import maskcut
from kernels.ncut.keys import center_keys
from segmodels.cutler.maskcut import MaskCutSettings, discover_masks
from segmodels.datasets.ground_truth import GroundTruth
from segmodels.diagnostics.patch_features import Keys, Masks, PatchFeatures
from segmodels.evaluation.metrics.average_precision import (
    AveragePrecision,
    Row,
    average_precision,
    merge_classes,
    truth_rows,
)
from segmodels.formats.decode import read_image

NEIGHBOURS = 5
OBJECT_MASKS = 3
DETECTIONS = (3, 10)
# COCO's bound of "small": smaller crops hardly show their class.
SMALLEST_AREA = 32**2

Log = Callable[[str], None]
_LOG_EVERY = 50


@dataclass(frozen=True, eq=False)
class ObjectOverlaps:
    """IoU (n,) of each image's first mask, and of its best of three, with the only object."""

    first: NDArray[np.float64]
    best: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """An image (H, W, 3) uint8 RGB with its true instances, COCO annotation rows."""

    image_id: int
    image: NDArray[np.uint8]
    rows: list[Row]


@dataclass(frozen=True, eq=False)
class ClassNeighbours:
    """Classes of the nearest neighbours of true instances that are not small.

    Attributes:
        shares: (m,) share, 0 to 1, of an instance's neighbours that have its class; NaN where that
            class occurs in no other image.
        image_ids: (m,) image of each instance.
    """

    shares: NDArray[np.float64]
    image_ids: NDArray[np.int64]

    @property
    def purity(self) -> float:
        """Mean share in percent; NaN where no class occurs in two images."""
        known = self.shares[~np.isnan(self.shares)]
        return 100 * float(known.mean()) if len(known) else float("nan")


@dataclass(frozen=True, eq=False)
class InstanceQuality:
    """Scores on annotated instances, in percent.

    Attributes:
        ar3, ar10: class-agnostic average recall (IoU 0.5 to 0.95) of MaskCut's first 3 or 10 masks.
        ap50: class-agnostic average precision of 10 masks, ranked in the order of the cuts.
        neighbours: see `class_neighbours`.
    """

    ar3: float
    ar10: float
    ap50: float
    neighbours: ClassNeighbours

    @property
    def purity(self) -> float:
        """See ClassNeighbours."""
        return self.neighbours.purity


def object_overlaps(
    features: PatchFeatures, images: Iterable[NDArray[np.uint8]], masks: Iterable[Masks]
) -> ObjectOverlaps:
    """Score MaskCut on images of one object each.

    Args:
        features: source of the keys.
        images: (H, W, 3) uint8 RGB each.
        masks: (H, W) bool each, the true object.
    """
    keys = map(features.keys, images)
    return keys_overlaps(keys, masks, tau=features.tau, center=features.center_keys)


def keys_overlaps(
    keys: Iterable[Keys], masks: Iterable[Masks], *, tau: float, center: bool
) -> ObjectOverlaps:
    """Score MaskCut on given keys (g, g, d); see `object_overlaps`."""
    scores = []
    for key, object_mask in zip(keys, masks, strict=True):
        truth = patch_truth(object_mask, key.shape[0])
        chosen = center_keys(key) if center else key
        found = maskcut(
            chosen.reshape(truth.size, -1), truth.shape, tau=tau, max_masks=OBJECT_MASKS
        ).masks
        overlaps = [overlap(mask, truth) for mask in found]
        scores.append((overlaps[0], max(overlaps)))
    first, best = np.array(scores, np.float64).reshape(-1, 2).T
    return ObjectOverlaps(first, best)


def patch_truth(mask: Masks, grid: int) -> Masks:
    """Reduce a mask to the (grid, grid) patches that it covers by more than half."""
    cover = Image.fromarray(mask.astype(np.float32)).resize((grid, grid), Image.Resampling.BOX)
    return np.asarray(cover) > 0.5


def overlap(a: Masks, b: Masks) -> float:
    """IoU of two masks of one shape; 1 where both are empty."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def annotated_images(table: pa.Table, ground_truth: GroundTruth) -> Iterator[AnnotatedImage]:
    """Read the images of a table (IMAGES_SCHEMA) whose instances are annotated, in its order."""
    for record in table.select(["image_id", "source", "path", "height", "width"]).to_pylist():
        size = (record["height"], record["width"])
        rows = truth_rows(ground_truth, record["image_id"], size)
        if rows is not None:
            image = read_image(record["source"], record["path"])
            yield AnnotatedImage(record["image_id"], image, rows)


def instance_quality(
    features: PatchFeatures, images: Sequence[AnnotatedImage], log: Log = lambda _: None
) -> InstanceQuality | None:
    """Measure recall, precision and purity; None where no image has an instance.

    Args:
        features: source of the keys and of the instances' vectors.
        images: what is measured on.
        log: receives a sentence every 50 images.
    """
    scores = mask_scores(features, images, log)
    if scores is None:
        return None
    neighbours = class_neighbours(features, images, log)
    return InstanceQuality(scores.recall[3], scores.recall[10], scores.ap50, neighbours)


def mask_scores(
    features: PatchFeatures, images: Sequence[AnnotatedImage], log: Log = lambda _: None
) -> AveragePrecision | None:
    """Score MaskCut's masks class-agnostically; None where no image has an instance."""
    settings = MaskCutSettings(
        image_size=features.image_size,
        tau=features.tau,
        center_keys=features.center_keys,
        max_masks=DETECTIONS[-1],
        use_crf=False,
    )
    found = [
        row
        for image in _logged(images, "cut", log)
        for row in _found_rows(image, features, settings)
    ]
    return average_precision(
        merge_classes(found),
        merge_classes(row for image in images for row in image.rows),
        {image.image_id: image.image.shape[:2] for image in images},
        kind="mask",
        max_detections=DETECTIONS,
    )


def class_neighbours(
    features: PatchFeatures, images: Sequence[AnnotatedImage], log: Log = lambda _: None
) -> ClassNeighbours:
    """Find the 5 nearest neighbours, by cosine, of each true instance's vector.

    Crowds and COCO's small instances are left out.
    """
    vectors, class_ids, image_ids = [], [], []
    for image in _logged(images, "embedded", log):
        rows = [row for row in image.rows if not row["iscrowd"]]
        counts = [row["segmentation"]["counts"].encode() for row in rows]
        masks = rle.decode(counts, *image.image.shape[:2])
        large = masks.sum(axis=(1, 2)) >= SMALLEST_AREA
        if large.any():
            vectors.append(features.embed(image.image, masks[large]))
        class_ids += [row["category_id"] for row, kept in zip(rows, large, strict=True) if kept]
        image_ids += [image.image_id] * int(large.sum())
    if not image_ids:
        return ClassNeighbours(np.zeros(0), np.zeros(0, np.int64))
    ids = np.array(image_ids, np.int64)
    shares = neighbour_shares(np.concatenate(vectors), np.array(class_ids), ids)
    return ClassNeighbours(shares, ids)


def neighbour_shares(
    vectors: NDArray[np.floating],
    class_ids: NDArray[np.integer],
    image_ids: NDArray[np.integer],
    k: int = NEIGHBOURS,
) -> NDArray[np.float64]:
    """Share of each instance's k nearest neighbours in other images that have its class.

    Args:
        vectors: (m, d), compared by cosine.
        class_ids: (m,).
        image_ids: (m,); instances of one image share its light and scene, and do not count.
        k: neighbours; fewer where other images have fewer instances.

    Returns:
        (m,) in [0, 1]; NaN where no other image has an instance of the class.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    elsewhere = image_ids[:, None] != image_ids
    alike = (class_ids[:, None] == class_ids) & elsewhere
    similarity = np.where(elsewhere, unit @ unit.T, -np.inf)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(alike, nearest, axis=1).sum(axis=1)
    counted = np.minimum(elsewhere.sum(axis=1), k)
    return np.where(alike.any(axis=1), found / np.maximum(counted, 1), np.nan)


def _logged(images: Sequence[AnnotatedImage], done: str, log: Log) -> Iterator[AnnotatedImage]:
    """Yield the images, and log progress."""
    for number, image in enumerate(images, start=1):
        yield image
        if number % _LOG_EVERY == 0:
            log(f"backbone quality: {done} {number} of {len(images)} images")


def _found_rows(
    image: AnnotatedImage, features: PatchFeatures, settings: MaskCutSettings
) -> list[Row]:
    """MaskCut's masks as COCO result rows; earlier cuts have the higher score."""
    found = discover_masks([image.image], features.keys(image.image)[None], settings)[0].masks
    if not found:
        return []
    size = list(image.image.shape[:2])
    counts = rle.encode(np.stack([mask.mask for mask in found]))
    boxes = rle.bbox_xywh(counts, *size).tolist()
    return [
        {
            "image_id": image.image_id,
            "category_id": 1,
            "bbox": box,
            "score": 1 / (1 + mask.repetition),
            "segmentation": {"size": size, "counts": count.decode("ascii")},
        }
        for mask, count, box in zip(found, counts, boxes, strict=True)
    ]
