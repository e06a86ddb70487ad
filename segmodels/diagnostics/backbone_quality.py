"""How good a backbone is for this pipeline: do its keys cut objects out, do alike objects lie near.

Any source of patch features is measured the same way, by what MaskCut makes of its keys without a
CRF and by the classes of neighbouring instance vectors. No label reaches the features themselves.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from kernels import rle
from kernels.ncut import maskcut
from kernels.ncut.affinity import center_keys
from segmodels.cutler.maskcut import MaskCutSettings, discover_masks
from segmodels.datasets.ground_truth import GroundTruth
from segmodels.diagnostics.patch_features import Keys, Masks, PatchFeatures
from segmodels.evaluation.metrics.average_precision import (
    AveragePrecision,
    Row,
    average_precision,
    merge_classes,
)
from segmodels.evaluation.protocols.match_statistics import truth_rows
from segmodels.formats.decode import read_image

NEIGHBOURS = 5
OBJECT_MASKS = 3
DETECTIONS = (3, 10)
# COCO's bound of "small": a crop of fewer pixels shows no class.
SMALLEST_AREA = 32**2

Say = Callable[[str], None]
_REPORT_EVERY = 50


@dataclass(frozen=True, eq=False)
class ObjectOverlaps:
    """IoU of each photograph of one object: of the first mask, and of the best of three."""

    first: NDArray[np.float64]
    best: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """One photograph whose instances are known.

    Attributes:
        image_id: its id.
        image: (H, W, 3) uint8 RGB.
        rows: true instances, COCO annotation rows.
    """

    image_id: int
    image: NDArray[np.uint8]
    rows: list[Row]


@dataclass(frozen=True, eq=False)
class ClassNeighbours:
    """Which classes lie near each true instance that is large enough to show its own.

    Attributes:
        shares: (m,) share, 0 to 1, of the nearest neighbours that have the instance's class; NaN
            where that class occurs in no other image.
        image_ids: (m,) where each instance is.
    """

    shares: NDArray[np.float64]
    image_ids: NDArray[np.int64]

    @property
    def purity(self) -> float:
        """Mean share in percent; NaN where no class occurs in two images."""
        asked = self.shares[~np.isnan(self.shares)]
        return 100 * float(asked.mean()) if len(asked) else float("nan")


@dataclass(frozen=True, eq=False)
class InstanceQuality:
    """Scores on annotated instances, in percent.

    Attributes:
        ar3, ar10: class-agnostic average recall (IoU 0.5 to 0.95) of MaskCut's first masks.
        ap50: class-agnostic average precision of ten masks, the first cut first.
        neighbours: of the instances' vectors, see `class_neighbours`.
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
    """Cut photographs of one object each.

    Args:
        features: what is measured.
        images: (H, W, 3) uint8 RGB each.
        masks: (H, W) bool each, the true object.
    """
    keys = map(features.keys, images)
    return keys_overlaps(keys, masks, tau=features.tau, center=features.center_keys)


def keys_overlaps(
    keys: Iterable[Keys], masks: Iterable[Masks], *, tau: float, center: bool
) -> ObjectOverlaps:
    """Do as `object_overlaps` for keys (g, g, d) that are at hand."""
    scores = []
    for key, mask in zip(keys, masks, strict=True):
        truth = patch_truth(mask, key.shape[0])
        chosen = center_keys(key) if center else key
        found = maskcut(
            chosen.reshape(truth.size, -1), truth.shape, tau=tau, max_masks=OBJECT_MASKS
        ).masks
        overlaps = [overlap(one, truth) for one in found]
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
    features: PatchFeatures, images: Sequence[AnnotatedImage], on_progress: Say = lambda _: None
) -> InstanceQuality | None:
    """Measure recall, precision and neighbours on annotated photographs.

    Args:
        features: what is measured.
        images: the photographs.
        on_progress: receives a line now and then.

    Returns:
        The scores, or None where no photograph has an instance.
    """
    scores = mask_scores(features, images, on_progress)
    if scores is None:
        return None
    neighbours = class_neighbours(features, images, on_progress)
    return InstanceQuality(scores.recall[3], scores.recall[10], scores.ap50, neighbours)


def mask_scores(
    features: PatchFeatures, images: Sequence[AnnotatedImage], on_progress: Say = lambda _: None
) -> AveragePrecision | None:
    """Score what MaskCut finds, whatever its class; None where no photograph has an instance."""
    settings = MaskCutSettings(
        image_size=features.image_size,
        tau=features.tau,
        center_keys=features.center_keys,
        max_masks=DETECTIONS[-1],
        use_crf=False,
    )
    found = [
        row
        for one in _reported(images, "cut", on_progress)
        for row in _found_rows(one, features, settings)
    ]
    return average_precision(
        merge_classes(found),
        merge_classes(row for one in images for row in one.rows),
        {one.image_id: one.image.shape[:2] for one in images},
        kind="mask",
        max_detections=DETECTIONS,
    )


def class_neighbours(
    features: PatchFeatures, images: Sequence[AnnotatedImage], on_progress: Say = lambda _: None
) -> ClassNeighbours:
    """Find the 5 nearest neighbours, by cosine, of each true instance's vector.

    Crowds, and instances smaller than COCO's bound of "small", are left out.
    """
    vectors, class_ids, image_ids = [], [], []
    for one in _reported(images, "embedded", on_progress):
        rows = [row for row in one.rows if not row["iscrowd"]]
        counts = [row["segmentation"]["counts"].encode() for row in rows]
        masks = rle.decode(counts, *one.image.shape[:2])
        large = masks.sum(axis=(1, 2)) >= SMALLEST_AREA
        if large.any():
            vectors.append(features.embed(one.image, masks[large]))
        class_ids += [row["category_id"] for row, kept in zip(rows, large, strict=True) if kept]
        image_ids += [one.image_id] * int(large.sum())
    if not image_ids:
        return ClassNeighbours(np.zeros(0), np.zeros(0, np.int64))
    places = np.array(image_ids, np.int64)
    shares = neighbour_shares(np.concatenate(vectors), np.array(class_ids), places)
    return ClassNeighbours(shares, places)


def neighbour_shares(
    vectors: NDArray[np.floating],
    class_ids: NDArray[np.integer],
    image_ids: NDArray[np.integer],
    k: int = NEIGHBOURS,
) -> NDArray[np.float64]:
    """Share of each instance's nearest neighbours, among those of other images, of its class.

    Args:
        vectors: (m, d), compared by cosine.
        class_ids: (m,).
        image_ids: (m,); neighbours within one image share its light and place, and do not count.
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


def _reported(
    images: Sequence[AnnotatedImage], done: str, on_progress: Say
) -> Iterator[AnnotatedImage]:
    """Hand out the images, with a line now and then."""
    for number, one in enumerate(images, start=1):
        yield one
        if number % _REPORT_EVERY == 0:
            on_progress(f"backbone quality: {done} {number} of {len(images)} images")


def _found_rows(
    one: AnnotatedImage, features: PatchFeatures, settings: MaskCutSettings
) -> list[Row]:
    """MaskCut's masks as COCO result rows, earlier cuts with the higher score."""
    found = discover_masks([one.image], features.keys(one.image)[None], settings)[0].masks
    if not found:
        return []
    size = list(one.image.shape[:2])
    counts = rle.encode(np.stack([mask.mask for mask in found]))
    boxes = rle.bbox_xywh(counts, *size).tolist()
    return [
        {
            "image_id": one.image_id,
            "category_id": 1,
            "bbox": box,
            "score": 1 / (1 + mask.repetition),
            "segmentation": {"size": size, "counts": count.decode("ascii")},
        }
        for mask, count, box in zip(found, counts, boxes, strict=True)
    ]
