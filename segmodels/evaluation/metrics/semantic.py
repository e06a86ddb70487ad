"""Semantic scores of label-free stuff: pixel accuracy and mean IoU over "thing" and the stuff classes.

Index 0 stands for "thing" on both sides and is never re-assigned (U2Seg's 16-class target: things in one
class, 15 stuff groups); clusters 1..S are mapped to classes 1..C.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VOID = -1


@dataclass(frozen=True)
class SemanticScores:
    """Scores in percent; `per_class` is (C + 1,), NaN for classes without ground truth."""

    pixel_accuracy: float
    mean_iou: float
    unmapped_pixels: float
    per_class: NDArray[np.float64]

    def as_dict(self) -> dict[str, float]:
        """The numbers a table shows."""
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
    """Count the pixels of each pair of cluster and class in one image.

    Args:
        predicted: (H, W), 0 = thing, 1..S = stuff cluster.
        truth: (H, W), 0 = thing, 1..C = stuff class, -1 = void; void pixels are left out.
        num_clusters: S.
        num_classes: C.

    Returns:
        (S + 1, C + 1) int64.

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


def mask_votes(confusions: NDArray[np.integer], min_iou: float) -> NDArray[np.int64]:
    """One vote an image where the regions of a stuff cluster and a stuff class overlap enough (U2Seg).

    Args:
        confusions: (n, S + 1, C + 1) pixel counts of n images.
        min_iou: IoU that must be exceeded.

    Returns:
        (S, C) votes.
    """
    unions = (
        confusions.sum(axis=2, keepdims=True) + confusions.sum(axis=1, keepdims=True) - confusions
    )
    overlap = confusions[:, 1:, 1:] / np.maximum(unions[:, 1:, 1:], 1)
    return np.asarray(np.count_nonzero(overlap > min_iou, axis=0), dtype=np.int64)


def pixel_votes(confusions: NDArray[np.integer]) -> NDArray[np.int64]:
    """Pixels that each stuff cluster shares with each stuff class: (S, C)."""
    return np.asarray(confusions[:, 1:, 1:].sum(axis=0), dtype=np.int64)


def semantic_scores(
    confusion: NDArray[np.integer],
    class_of_cluster: Sequence[int] | NDArray[np.integer],
    *,
    score_unmapped: bool,
) -> SemanticScores | None:
    """Score a pixel confusion once its clusters have classes.

    Args:
        confusion: (S + 1, C + 1) summed over the scored images.
        class_of_cluster: (S,) 0-based stuff class of each stuff cluster, -1 for none.
        score_unmapped: whether pixels of clusters without a class count as wrong, or are left out.

    Returns:
        The scores; mean IoU is over the classes with ground truth. None without any scored pixel.
    """
    num_classes = confusion.shape[1] - 1
    # Row "num_classes + 1" gathers what has no class.
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
