"""Votes of predicted instances for classes, and the cluster-to-class tables that come of votes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from kernels.matching import majority_vote, one_to_one
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
        scores: (n,) in 0..1; ones for ground truth.
    """

    labels: NDArray[np.int64]
    boxes_xywh: NDArray[np.float64]
    masks: Sequence[RleDict]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class ClusterMapping:
    """Which class each cluster stands for.

    Attributes:
        things: (K,) 0-based thing class of each thing cluster, -1 for none.
        stuff: (S,) 0-based stuff class of each stuff cluster, -1 for none.
        thing_votes: (K,) votes for the chosen class; 0 where there is none.
        stuff_votes: (S,) likewise.
    """

    things: NDArray[np.int64]
    stuff: NDArray[np.int64]
    thing_votes: NDArray[np.int64]
    stuff_votes: NDArray[np.int64]


def add_instance_votes(
    votes: NDArray[np.int64], predicted: Objects, truth: Objects, protocol: Protocol
) -> None:
    """Add the votes of one image's instances in place.

    By boxes, each pair of a confident prediction and a true box that overlap enough is a vote, so that
    one prediction can vote several times and crowd boxes vote like others (U2Seg's evaluator). By pixels,
    each pair gives the pixels that its two masks share.

    Args:
        votes: (K, C) int64, changed.
        predicted: labels are clusters.
        truth: labels are classes.
        protocol: names the rule and its thresholds.
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
    """Pixels that each pair of run-length coded masks shares: (m, n).

    Without decoding: the intersection i follows from u = i / (area_a + area_b - i).
    """
    ratio = np.asarray(coco_mask.iou(list(a), list(b), [0] * len(b)), dtype=np.float64)
    areas = np.asarray(coco_mask.area(list(a)), dtype=np.float64)[:, None] + np.asarray(
        coco_mask.area(list(b)), dtype=np.float64
    )
    return np.rint(ratio * areas / (1 + ratio)).astype(np.int64)


def fit_mapping(
    thing_votes: NDArray[np.int64], stuff_votes: NDArray[np.int64], protocol: Protocol
) -> ClusterMapping:
    """Turn votes into a mapping, things and stuff apart.

    Args:
        thing_votes: (K, C) votes.
        stuff_votes: (S, D) votes.
        protocol: names the rule.
    """
    rule = majority_vote if protocol.rule == "majority" else one_to_one
    things, stuff = rule(thing_votes), rule(stuff_votes)
    return ClusterMapping(things, stuff, _chosen(thing_votes, things), _chosen(stuff_votes, stuff))


def _chosen(votes: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    if votes.shape[1] == 0:
        return np.zeros(len(votes), dtype=np.int64)
    taken = votes[np.arange(len(votes)), np.maximum(classes, 0)]
    return np.where(classes >= 0, taken, 0)
