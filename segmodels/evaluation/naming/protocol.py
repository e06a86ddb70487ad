"""Evaluation protocols: how a cluster-to-class table is fitted and applied.

A model trained without labels predicts clusters. Class-aware scores need the class of each cluster, which
is fitted on ground truth, and the way of fitting changes the scores (CUPS' re-run of U2Seg on Cityscapes
differs by 0.8 PQ from U2Seg's own). A protocol fixes it under a name.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

Fit = Literal["same", "disjoint"]
"""Images that a mapping is fitted on: the scored ones, or others."""

FITS: tuple[Fit, ...] = ("same", "disjoint")


@dataclass(frozen=True)
class Protocol:
    """How a cluster-to-class table is fitted and applied.

    Attributes:
        name: used in metrics, tables and reports.
        rule: "majority" = each cluster takes its most voted class; "one-to-one" = Hungarian assignment
            first, each left-over cluster takes its most voted class.
        instance_votes: "boxes" = one vote per pair of a predicted and a true box with enough IoU;
            "pixels" = the pixels that predicted and true masks share.
        min_score: predictions below this score do not vote.
        min_box_iou: IoU that box pairs must exceed to vote; for instance_votes "boxes" only.
        semantic_votes: "masks" = one vote per image in which the regions of cluster and class exceed
            min_mask_iou; "pixels" = shared pixels.
        min_mask_iou: see semantic_votes.
        score_unmapped_pixels: whether pixels of clusters without a class count as wrong (True) or are
            left out of the semantic score (False).
        merge_stuff: whether predicted stuff segments of one class in an image become one segment
            before panoptic quality is computed.
    """

    name: str
    rule: Literal["majority", "one-to-one"]
    instance_votes: Literal["boxes", "pixels"]
    semantic_votes: Literal["masks", "pixels"]
    min_score: float
    min_box_iou: float = 0.0
    min_mask_iou: float = 0.0
    score_unmapped_pixels: bool = True
    merge_stuff: bool = True


U2SEG_PAPER = Protocol(
    name="u2seg-paper",
    rule="majority",
    instance_votes="boxes",
    semantic_votes="masks",
    min_score=0.4,
    min_box_iou=0.6,
    min_mask_iou=0.15,
    score_unmapped_pixels=False,
    merge_stuff=False,
)
"""U2Seg's operating point (paper Table 8); its semantic and panoptic parts are only in the code."""

U2SEG_CODE = Protocol(
    name="u2seg-code",
    rule="majority",
    instance_votes="boxes",
    semantic_votes="masks",
    min_score=0.6,
    min_box_iou=0.7,
    min_mask_iou=0.15,
    score_unmapped_pixels=False,
    merge_stuff=False,
)
"""The thresholds of U2Seg's released evaluators."""

ONE_TO_ONE = Protocol(
    name="one-to-one",
    rule="one-to-one",
    instance_votes="pixels",
    semantic_votes="pixels",
    min_score=0.0,
)
"""Hungarian matching by pixel overlap, things and stuff separately (CUPS, CVPR 2025)."""

PROTOCOLS: tuple[Protocol, ...] = (U2SEG_PAPER, U2SEG_CODE, ONE_TO_ONE)


def in_mapping_half(image_id: int) -> bool:
    """Whether disjoint mappings are fitted on an image (True) or scored on it (False).

    The half is a hash of the id, so it does not change when images are added or removed.
    """
    digest = hashlib.blake2b(str(int(image_id)).encode(), digest_size=1).digest()
    return digest[0] % 2 == 0
