"""Pixel accuracy and mean IoU over "thing" and the stuff classes.

Index 0 is "thing" in prediction and truth and is never mapped (U2Seg's 16-class target: all things are
one class, beside 15 stuff groups); clusters 1..S are mapped to classes 1..D.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmodels.formats.panoptic import Segment

VOID = -1


@dataclass(frozen=True)
class SemanticScores:
    """Scores in percent; `per_class` is (D + 1,), NaN for classes without ground truth."""

    pixel_accuracy: float
    mean_iou: float
    unmapped_pixels: float
    per_class: NDArray[np.float64]

    def as_dict(self) -> dict[str, float]:
        """The scores under the names of tables."""
        return {
            "PixelAcc": self.pixel_accuracy,
            "mIoU": self.mean_iou,
            "unmapped_pixels": self.unmapped_pixels,
        }


def pixel_confusion(
    predicted: NDArray[np.integer],
    truth: NDArray[np.integer],
    num_clusters: int,
    num_classes: int,
) -> NDArray[np.int64]:
    """Count the pixels of each pair of cluster and class in one image (confusion matrix).

    Args:
        predicted: (H, W), 0 = thing, 1..S = stuff cluster.
        truth: (H, W), 0 = thing, 1..D = stuff class, -1 = void; void pixels are left out.
        num_clusters: S.
        num_classes: D.

    Returns:
        (S + 1, D + 1) int64.

    Raises:
        ValueError: if the sizes differ or a value is out of range.
    """
    if predicted.shape != truth.shape:
        raise ValueError(
            f"the semantic prediction is {predicted.shape}, its ground truth {truth.shape} (height, width)"
        )
    known = truth != VOID
    clusters, classes = predicted[known].astype(np.int64), truth[known].astype(np.int64)
    if clusters.size and (clusters.max() > num_clusters or classes.max() > num_classes):
        raise ValueError(
            f"semantic values must be at most {num_clusters} (prediction) and {num_classes} (truth), "
            f"got {clusters.max()} and {classes.max()}"
        )
    pairs = clusters * (num_classes + 1) + classes
    counts = np.bincount(pairs, minlength=(num_clusters + 1) * (num_classes + 1))
    return counts.reshape(num_clusters + 1, num_classes + 1)


def semantic_map(
    segment_map: NDArray[np.integer],
    segments: Sequence[Segment],
    thing_ids: Sequence[int],
    stuff_ids: Sequence[int],
) -> NDArray[np.int64]:
    """Turn a true panoptic map into a semantic one.

    Args:
        segment_map: (H, W) segment ids, 0 = void.
        segments: one for every id of the map.
        thing_ids: category ids of things.
        stuff_ids: (D,) category ids of stuff.

    Returns:
        (H, W) int64: 0 = thing, 1..D = stuff class in the order of `stuff_ids`, -1 = void.
    """
    number_of = dict.fromkeys(thing_ids, 0) | {c: n for n, c in enumerate(stuff_ids, start=1)}
    ordered = sorted(segments, key=lambda segment: segment.id)
    # The type of the map: searchsorted would copy a map of another type.
    ids = np.array([0, *(segment.id for segment in ordered)], dtype=segment_map.dtype)
    classes = [VOID, *(number_of[segment.category_id] for segment in ordered)]
    return np.array(classes, dtype=np.int64)[np.searchsorted(ids, segment_map)]


def semantic_scores(
    confusion: NDArray[np.integer],
    class_of_cluster: Sequence[int] | NDArray[np.integer],
    *,
    score_unmapped: bool,
) -> SemanticScores | None:
    """Score a confusion matrix whose clusters have classes.

    Args:
        confusion: (S + 1, D + 1) summed over the scored images.
        class_of_cluster: (S,) 0-based stuff class of each stuff cluster, -1 for none.
        score_unmapped: whether pixels of clusters without a class count as wrong or are left out.

    Returns:
        The scores; mean IoU is over the classes with ground truth. None without any scored pixel.
    """
    num_classes = confusion.shape[1] - 1
    # Row num_classes + 1 collects clusters without a class.
    rows = np.array([0, *(c + 1 if c >= 0 else num_classes + 1 for c in class_of_cluster)])
    merged = np.zeros((num_classes + 2, num_classes + 1), dtype=np.int64)
    np.add.at(merged, rows, confusion)
    total, unmapped = merged.sum(), merged[-1].sum()
    scored = merged if score_unmapped else merged[:-1]
    right = np.diagonal(merged)[: num_classes + 1].astype(np.float64)
    of_class, as_class = scored.sum(axis=0), merged[:-1].sum(axis=1)
    if scored.sum() == 0:
        return None
    with np.errstate(invalid="ignore"):
        iou = np.where(of_class > 0, right / (of_class + as_class - right), np.nan)
    return SemanticScores(
        pixel_accuracy=float(100.0 * right.sum() / scored.sum()),
        mean_iou=float(100.0 * np.nanmean(iou)),
        unmapped_pixels=float(100.0 * unmapped / total),
        per_class=100.0 * iou,
    )
