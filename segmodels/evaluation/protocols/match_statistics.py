"""One pass over the scored images: everything that mappings and scores need, small enough to keep."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from segmodels.datasets.ground_truth import GroundTruth
from segmodels.evaluation.cluster_statistics import ClusterStatistics, cluster_statistics
from segmodels.evaluation.metrics.average_precision import Row
from segmodels.evaluation.metrics.semantic import pixel_confusion
from segmodels.evaluation.naming.instance_mapping import Objects, add_instance_votes
from segmodels.evaluation.naming.protocol import Protocol, in_mapping_half
from segmodels.evaluation.naming.segment_maps import (
    NumberedSegments,
    number_segments,
    semantic_classes,
)
from segmodels.evaluation.predictions import Predictions

Progress = Callable[[str], None]
_REPORT_EVERY = 500


@dataclass(frozen=True)
class Classes:
    """The classes of a ground truth, numbered from 0 in the order of the file.

    Attributes:
        thing_ids: (C,) category ids of the thing classes.
        stuff_ids: (D,) category ids of the stuff classes.
        names: category id -> name.
    """

    thing_ids: tuple[int, ...]
    stuff_ids: tuple[int, ...]
    names: dict[int, str]


@dataclass
class Evidence:
    """What the pass collects; things are counted apart for the mapping half and the scored half.

    Attributes:
        classes: the ground truth's classes.
        num_stuff: S.
        results: COCO result rows of images with true instances, clusters as categories.
        truths: COCO annotation rows of the same images.
        sizes: (height, width) of the same images, by id.
        thing_votes: by protocol name: (2, K, C) votes; index 0 = scored half, 1 = mapping half.
        confusions: (S + 1, D + 1) pixel counts of each image with a true panoptic map.
        panoptic_ids: ids of those images, in the same order.
    """

    classes: Classes
    num_stuff: int
    results: list[Row] = field(default_factory=list)
    truths: list[Row] = field(default_factory=list)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    thing_votes: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    confusions: list[NDArray[np.int64]] = field(default_factory=list)
    panoptic_ids: list[int] = field(default_factory=list)

    def image_ids(self) -> list[int]:
        """Images with any ground truth, ascending."""
        return sorted({*self.sizes, *self.panoptic_ids})


def gather_statistics(predictions: Predictions, image_ids: Sequence[int]) -> ClusterStatistics:
    """Count predictions by cluster; needs no ground truth."""
    rows = [predictions.results.get(image_id, []) for image_id in image_ids]
    pixels = np.zeros(predictions.num_stuff + 1, dtype=np.int64)
    if predictions.has_semantic:
        for image_id in image_ids:
            counts = np.bincount(predictions.semantic_map(image_id).ravel(), minlength=len(pixels))
            pixels += counts[: len(pixels)]
    return cluster_statistics(
        [row["category_id"] for image_rows in rows for row in image_rows],
        [row["score"] for image_rows in rows for row in image_rows],
        [len(image_rows) for image_rows in rows],
        pixels,
        predictions.num_things,
    )


def gather_evidence(
    predictions: Predictions,
    ground_truth: GroundTruth,
    sizes: dict[int, tuple[int, int]],
    *,
    protocols: Iterable[Protocol],
    on_progress: Progress,
) -> Evidence:
    """Read each image's predictions and truth once.

    Args:
        predictions: what is scored.
        ground_truth: what it is scored against.
        sizes: (height, width) of the images by id; those without ground truth are passed over.
        protocols: for whose votes to count.
        on_progress: receives a line now and then.
    """
    classes = classes_of(ground_truth)
    evidence = Evidence(classes, predictions.num_stuff)
    protocols, with_panoptic = tuple(protocols), set(ground_truth.panoptic_image_ids)
    shape = (2, predictions.num_things, len(classes.thing_ids))
    evidence.thing_votes = {p.name: np.zeros(shape, dtype=np.int64) for p in protocols}
    for number, image_id in enumerate(sorted(sizes), start=1):
        truths = truth_rows(ground_truth, image_id, sizes[image_id])
        if truths is not None:
            results = predictions.results.get(image_id, [])
            _add_instances(
                evidence, image_id, sizes[image_id], results, truths, protocols=protocols
            )
        if image_id in with_panoptic:
            evidence.panoptic_ids.append(image_id)
            if predictions.has_semantic:
                evidence.confusions.append(_confusion(predictions, ground_truth, image_id, classes))
        if number % _REPORT_EVERY == 0:
            on_progress(f"read predictions and ground truth of {number} of {len(sizes)} images")
    return evidence


def classes_of(ground_truth: GroundTruth) -> Classes:
    """Number the classes of a ground truth."""
    things, stuff = ground_truth.thing_categories, ground_truth.stuff_categories
    return Classes(
        tuple(category.id for category in things),
        tuple(category.id for category in stuff),
        {category.id: category.name for category in (*things, *stuff)},
    )


def truth_rows(ground_truth: GroundTruth, image_id: int, size: tuple[int, int]) -> list[Row] | None:
    """The true instances of one image as COCO annotation rows; None where they are not annotated."""
    instances = ground_truth.instances(image_id)
    if instances is None:
        return None
    return [
        {
            "image_id": image_id,
            "category_id": instance.category_id,
            "bbox": list(instance.bbox),
            "area": instance.area,
            "iscrowd": int(instance.iscrowd),
            "segmentation": {"size": list(size), "counts": instance.rle_counts.decode("ascii")},
        }
        for instance in instances
    ]


def numbered_truth(ground_truth: GroundTruth, image_id: int) -> NumberedSegments:
    """The true panoptic map of an image that has one."""
    truth = ground_truth.panoptic(image_id)
    if truth is None:
        raise ValueError(f"image {image_id} has no panoptic map")
    return number_segments(*truth)


def _confusion(
    predictions: Predictions, ground_truth: GroundTruth, image_id: int, classes: Classes
) -> NDArray[np.int64]:
    truth = numbered_truth(ground_truth, image_id)
    return pixel_confusion(
        predictions.semantic_map(image_id),
        semantic_classes(truth, classes.thing_ids, classes.stuff_ids),
        predictions.num_stuff,
        len(classes.stuff_ids),
    )


def _add_instances(
    evidence: Evidence,
    image_id: int,
    size: tuple[int, int],
    results: Sequence[Row],
    truths: Sequence[Row],
    *,
    protocols: Sequence[Protocol],
) -> None:
    evidence.sizes[image_id] = size
    evidence.results += results
    evidence.truths += truths
    class_index = {class_id: index for index, class_id in enumerate(evidence.classes.thing_ids)}
    found = _objects(results, [row["category_id"] - 1 for row in results])
    true = _objects(truths, [class_index[row["category_id"]] for row in truths])
    for protocol in protocols:
        votes = evidence.thing_votes[protocol.name][int(in_mapping_half(image_id))]
        add_instance_votes(votes, found, true, protocol)


def _objects(rows: Sequence[Row], labels: Sequence[int]) -> Objects:
    return Objects(
        labels=np.array(labels, dtype=np.int64),
        boxes_xywh=np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4),
        masks=[row["segmentation"] for row in rows],
        scores=np.array([row.get("score", 1.0) for row in rows], dtype=np.float64),
    )
