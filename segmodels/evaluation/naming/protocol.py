"""How clusters receive the names of classes before a label-free model can be scored.

A model trained without labels predicts cluster numbers. Scores with classes need a table "cluster ->
class", which is fitted on ground truth; how it is fitted moves the numbers (method facts: CUPS' re-run of
U2Seg on Cityscapes differs by 0.8 PQ from U2Seg's own). A protocol fixes that by name.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

Fit = Literal["same", "disjoint"]
"""On which images a mapping is fitted: on the scored ones, or on others."""

FITS: tuple[Fit, ...] = ("same", "disjoint")


@dataclass(frozen=True)
class Protocol:
    """One way to fit and apply a cluster-to-class table.

    Attributes:
        name: what reports and tables call it.
        rule: "majority" = each cluster takes its most voted class; "one-to-one" = Hungarian assignment
            first, left-over clusters by their most voted class.
        instance_votes: "boxes" = one vote for each pair of a prediction and a ground-truth box that
            overlap enough; "pixels" = the pixels that predicted and true masks share.
        min_score: predictions below this score do not vote.
        min_box_iou: box pairs must exceed this IoU to vote; used with instance_votes "boxes" only.
        semantic_votes: "masks" = one vote an image where the cluster's and the class's region exceed
            min_mask_iou; "pixels" = shared pixels.
        min_mask_iou: see semantic_votes.
        score_unmapped_pixels: whether pixels of clusters without a class count as wrong (True), or are
            left out of the semantic score (False).
        merge_stuff: whether predicted stuff segments of one image that map to one class become one
            segment before the panoptic score.
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
"""U2Seg's operating point (paper Table 8); its semantic and panoptic parts are known from code only."""

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
"""The reading of CUPS (CVPR 2025): pixel overlap, things and stuff matched separately."""

PROTOCOLS: tuple[Protocol, ...] = (U2SEG_PAPER, U2SEG_CODE, ONE_TO_ONE)


def protocol_by_name(name: str) -> Protocol:
    """Return the published protocol of that name.

    Raises:
        ValueError: if no protocol has the name.
    """
    for protocol in PROTOCOLS:
        if protocol.name == name:
            return protocol
    known = ", ".join(protocol.name for protocol in PROTOCOLS)
    raise ValueError(f"protocol must be one of {known}, got {name!r}")


def in_mapping_half(image_id: int) -> bool:
    """Whether an image serves to fit disjoint mappings (True) or to be scored with them (False).

    The choice hashes the id alone, so it stays when images are added or removed.
    """
    digest = hashlib.blake2b(str(int(image_id)).encode(), digest_size=1).digest()
    return digest[0] % 2 == 0
