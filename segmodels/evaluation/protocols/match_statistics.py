"""One pass over the scored images: each prediction and each truth is read once, and maps are dropped.

What is kept is small: result and annotation rows, and two tables of pixel counts per image (a few kB).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels.panoptic_quality import segment_overlaps
from segmodels.datasets.ground_truth import GroundTruth, PanopticTruth
from segmodels.evaluation.metrics.average_precision import Row, truth_rows
from segmodels.evaluation.metrics.cluster_statistics import ClusterStatistics, cluster_statistics
from segmodels.evaluation.metrics.semantic import pixel_confusion, semantic_map
from segmodels.evaluation.naming.protocol import Protocol, in_mapping_half
from segmodels.evaluation.naming.votes import Objects, add_instance_votes
from segmodels.evaluation.predictions import Predictions

Log = Callable[[str], None]
_LOG_EVERY = 500


@dataclass(frozen=True)
class Classes:
    """The classes of a ground truth, numbered from 0 in the order of the file, things first.

    Attributes:
        thing_ids: (C,) category ids of the thing classes.
        stuff_ids: (D,) category ids of the stuff classes.
        names: category id -> name.
    """

    thing_ids: tuple[int, ...]
    stuff_ids: tuple[int, ...]
    names: dict[int, str]


@dataclass(frozen=True)
class SegmentOverlaps:
    """Overlaps of the n true and m predicted panoptic segments of one image.

    Attributes:
        pixels: (1 + n, 1 + m) int64 shared pixels; row 0 and column 0 are void.
        clusters: (m,) predicted clusters, 1..K for things, K+1..K+S for stuff.
        classes: (n,) true class numbers, things from 0, stuff from C.
        crowd: (n,) whether a true segment is a crowd.
    """

    pixels: NDArray[np.int64]
    clusters: NDArray[np.int64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]


@dataclass
class MatchStatistics:
    """What mappings and scores are computed from.

    Attributes:
        classes: the ground truth's classes.
        num_stuff: S.
        results: COCO result rows of images with annotated instances, clusters as categories.
        truths: COCO annotation rows of the same images.
        sizes: (height, width) of the same images, by id.
        thing_votes: by protocol name: (2, K, C) votes; index 0 = scored half, 1 = mapping half.
        panoptic_ids: ids of images with a true panoptic map.
        confusions: (S + 1, D + 1) pixel counts of these images, by id; empty without semantic maps.
        overlaps: of the same images, by id; empty if no panoptic maps were predicted.
    """

    classes: Classes
    num_stuff: int
    results: list[Row] = field(default_factory=list)
    truths: list[Row] = field(default_factory=list)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    thing_votes: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    panoptic_ids: list[int] = field(default_factory=list)
    confusions: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    overlaps: dict[int, SegmentOverlaps] = field(default_factory=dict)

    def image_ids(self) -> list[int]:
        """Ids of images with any ground truth, ascending."""
        return sorted({*self.sizes, *self.panoptic_ids})

    def confusions_of(self, image_ids: Iterable[int]) -> NDArray[np.int64]:
        """Confusions of the images that have one: (n, S + 1, D + 1)."""
        shape = (-1, self.num_stuff + 1, len(self.classes.stuff_ids) + 1)
        chosen = [self.confusions[i] for i in image_ids if i in self.confusions]
        return np.array(chosen, dtype=np.int64).reshape(shape)


def collect_statistics(
    predictions: Predictions,
    ground_truth: GroundTruth | None,
    sizes: dict[int, tuple[int, int]],
    *,
    protocols: Sequence[Protocol],
    log: Log,
) -> tuple[ClusterStatistics, MatchStatistics]:
    """Read the predictions and the ground truth of each image once.

    Args:
        predictions: what is scored.
        ground_truth: what it is scored against; None leaves the match statistics empty.
        sizes: (height, width) of the predicted images by id, with or without ground truth.
        protocols: whose votes are counted.
        log: takes a sentence every 500 images.

    Raises:
        InputError: the predictions are missing or belong to another clustering.
    """
    image_ids, results = sorted(sizes), predictions.results
    matches = MatchStatistics(classes_of(ground_truth), predictions.num_stuff)
    shape = (2, predictions.num_things, len(matches.classes.thing_ids))
    matches.thing_votes = {p.name: np.zeros(shape, dtype=np.int64) for p in protocols}
    pixels = np.zeros(predictions.num_stuff + 1, dtype=np.int64)
    for number, image_id in enumerate(image_ids, start=1):
        semantic = predictions.semantic_map(image_id) if predictions.has_semantic else None
        if semantic is not None:
            pixels += np.bincount(semantic.ravel(), minlength=len(pixels))[: len(pixels)]
        if ground_truth is not None:
            size = sizes[image_id]
            panoptic = ground_truth.panoptic(image_id)
            truths = truth_rows(ground_truth, image_id, size, panoptic)
            if truths is not None:
                found = results.get(image_id, [])
                _add_instances(matches, image_id, size, found, truths, protocols=protocols)
            if panoptic is not None:
                _add_panoptic(matches, image_id, panoptic, semantic, predictions)
        if number % _LOG_EVERY == 0:
            log(f"read predictions and ground truth of {number} of {len(sizes)} images")
    rows = [row for image_id in image_ids for row in results.get(image_id, [])]
    statistics = cluster_statistics(
        [row["category_id"] for row in rows],
        [row["score"] for row in rows],
        [len(results.get(image_id, [])) for image_id in image_ids],
        pixels,
        predictions.num_things,
    )
    return statistics, matches


def classes_of(ground_truth: GroundTruth | None) -> Classes:
    """Number the classes of a ground truth; none without one."""
    if ground_truth is None:
        return Classes((), (), {})
    things, stuff = ground_truth.thing_categories, ground_truth.stuff_categories
    return Classes(
        tuple(category.id for category in things),
        tuple(category.id for category in stuff),
        {category.id: category.name for category in (*things, *stuff)},
    )


def _add_panoptic(
    matches: MatchStatistics,
    image_id: int,
    truth: PanopticTruth,
    semantic: NDArray[np.uint8] | None,
    predictions: Predictions,
) -> None:
    true_map, true_segments = truth
    things, stuff = matches.classes.thing_ids, matches.classes.stuff_ids
    matches.panoptic_ids.append(image_id)
    if semantic is not None:
        true_semantic = semantic_map(true_map, true_segments, things, stuff)
        matches.confusions[image_id] = pixel_confusion(
            semantic, true_semantic, matches.num_stuff, len(stuff)
        )
    if predictions.panoptic is None:
        return
    predicted_map, predicted_segments = predictions.segments(image_id)
    number_of = {class_id: number for number, class_id in enumerate((*things, *stuff))}
    predicted, true = (
        sorted(segments, key=lambda segment: segment.id)
        for segments in (predicted_segments, true_segments)
    )
    integers = partial(np.array, dtype=np.int64)
    matches.overlaps[image_id] = SegmentOverlaps(
        segment_overlaps(predicted_map, [s.id for s in predicted], true_map, [s.id for s in true]),
        clusters=integers([segment.category_id for segment in predicted]),
        classes=integers([number_of[segment.category_id] for segment in true]),
        crowd=np.array([segment.iscrowd for segment in true], dtype=bool),
    )


def _add_instances(
    matches: MatchStatistics,
    image_id: int,
    size: tuple[int, int],
    results: Sequence[Row],
    truths: Sequence[Row],
    *,
    protocols: Sequence[Protocol],
) -> None:
    matches.sizes[image_id] = size
    matches.results += results
    matches.truths += truths
    class_index = {class_id: index for index, class_id in enumerate(matches.classes.thing_ids)}
    found = _objects(results, [row["category_id"] - 1 for row in results])
    true = _objects(truths, [class_index[row["category_id"]] for row in truths])
    for protocol in protocols:
        votes = matches.thing_votes[protocol.name][int(in_mapping_half(image_id))]
        add_instance_votes(votes, found, true, protocol)


def _objects(rows: Sequence[Row], labels: Sequence[int]) -> Objects:
    return Objects(
        labels=np.array(labels, dtype=np.int64),
        boxes_xywh=np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4),
        masks=[row["segmentation"] for row in rows],
        scores=np.array([row.get("score", 1.0) for row in rows], dtype=np.float64),
    )
