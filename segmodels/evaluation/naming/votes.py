"""Votes of clusters for classes: of predicted instances for things, of pixels or regions for stuff."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from kernels.overlaps import box_iou_xywh
from segmodels.evaluation.naming.protocol import Protocol

RleDict = dict[str, Any]
"""COCO's run-length dict: {"size": [height, width], "counts": compressed}."""


@dataclass(frozen=True)
class Objects:
    """The predicted or the true instances of one image.

    Attributes:
        labels: (n,) 0-based thing cluster or thing class.
        boxes_xywh: (n, 4) float, px.
        masks: n run-length dicts.
        scores: (n,) in [0, 1]; ones for ground truth.
    """

    labels: NDArray[np.int64]
    boxes_xywh: NDArray[np.float64]
    masks: Sequence[RleDict]
    scores: NDArray[np.float64]


def add_instance_votes(
    votes: NDArray[np.int64], predicted: Objects, truth: Objects, protocol: Protocol
) -> None:
    """Add the votes of one image's instances in place.

    By boxes, each pair of a confident prediction and a true box with enough IoU is one vote, so a
    prediction can vote several times and crowd boxes count (U2Seg's evaluator). By pixels, each pair
    votes with the number of pixels that its two masks share.

    Args:
        votes: (K, C) int64, changed.
        predicted: labels are clusters.
        truth: labels are classes.
        protocol: gives the rule and its thresholds.
    """
    confident = np.flatnonzero(predicted.scores >= protocol.min_score)
    if not len(confident) or not len(truth.labels):
        return
    if protocol.instance_votes == "boxes":
        overlap = box_iou_xywh(predicted.boxes_xywh[confident], truth.boxes_xywh)
        weights = (overlap > protocol.min_box_iou).astype(np.int64)
    else:
        weights = shared_pixels([predicted.masks[i] for i in confident.tolist()], truth.masks)
    rows, columns = np.nonzero(weights)
    pairs = predicted.labels[confident[rows]], truth.labels[columns]
    np.add.at(votes, pairs, weights[rows, columns])


def shared_pixels(a: Sequence[RleDict], b: Sequence[RleDict]) -> NDArray[np.int64]:
    """Count the pixels that each pair of run-length coded masks shares: (m, n).

    Nothing is decoded: the intersection i follows from IoU = i / (area_a + area_b - i).
    """
    ratio = np.asarray(coco_mask.iou(list(a), list(b), [0] * len(b)), dtype=np.float64)
    areas = np.asarray(coco_mask.area(list(a)), dtype=np.float64)[:, None] + np.asarray(
        coco_mask.area(list(b)), dtype=np.float64
    )
    return np.rint(ratio * areas / (1 + ratio)).astype(np.int64)


def stuff_votes(confusions: NDArray[np.int64], protocol: Protocol) -> NDArray[np.int64]:
    """Count the votes of stuff clusters for stuff classes.

    By masks, an image is one vote if the regions of cluster and class exceed an IoU (U2Seg's
    evaluator). By pixels, each shared pixel is a vote.

    Args:
        confusions: (n, S + 1, D + 1) pixel counts of n images, see `pixel_confusion`.
        protocol: gives the rule and its threshold.

    Returns:
        (S, D) int64.
    """
    shared = confusions[:, 1:, 1:]
    if protocol.semantic_votes == "pixels":
        return np.asarray(shared.sum(axis=0), dtype=np.int64)
    areas = confusions.sum(axis=2, keepdims=True) + confusions.sum(axis=1, keepdims=True)
    iou = shared / np.maximum(areas[:, 1:, 1:] - shared, 1)
    return np.asarray(np.count_nonzero(iou > protocol.min_mask_iou, axis=0), dtype=np.int64)
