"""Arrow tables of an evaluation: the scores of each class, and the class of each cluster."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kernels.panoptic_quality import PanopticScores
from segmodels.evaluation.naming.cluster_mapping import ClusterMapping
from segmodels.evaluation.protocols.match_statistics import Classes

# fitted_on: same | disjoint; kind: thing | stuff; class_id: of the ground truth; truths: true instances
# (things) or images with the class (stuff) among the scored images; clusters: number with the class;
# scores in percent, null where not computed.
_PER_CLASS_COLUMNS: dict[str, pa.DataType] = {
    "protocol": pa.string(),
    "fitted_on": pa.string(),
    "kind": pa.string(),
    "class_id": pa.int64(),
    "class_name": pa.string(),
    "truths": pa.int64(),
    "clusters": pa.int64(),
    "box_AP": pa.float64(),
    "mask_AP": pa.float64(),
    "IoU": pa.float64(),
    "PQ": pa.float64(),
    "SQ": pa.float64(),
    "RQ": pa.float64(),
}
PER_CLASS_SCHEMA = pa.schema(_PER_CLASS_COLUMNS)

# cluster_id: 1..K things, K+1..K+S stuff; class_id and class_name are null without a class.
_MAPPING_COLUMNS: dict[str, pa.DataType] = {
    "protocol": pa.string(),
    "fitted_on": pa.string(),
    "cluster_id": pa.int64(),
    "kind": pa.string(),
    "class_id": pa.int64(),
    "class_name": pa.string(),
    "votes": pa.int64(),
}
MAPPING_SCHEMA = pa.schema(_MAPPING_COLUMNS)


@dataclass(frozen=True)
class ClassScores:
    """Scores by class under one mapping; a class without a score is absent.

    Attributes:
        truths: class id -> true instances (things) or images (stuff).
        box_ap: thing class id -> percent.
        mask_ap: thing class id -> percent.
        stuff_iou: (D,) percent with NaN, in the order of the stuff classes; None if not computed.
        panoptic: class number -> scores in [0, 1], things from 0, stuff from C.
    """

    truths: Mapping[int, int]
    box_ap: Mapping[int, float]
    mask_ap: Mapping[int, float]
    stuff_iou: NDArray[np.float64] | None
    panoptic: Mapping[int, PanopticScores]


def per_class_rows(
    protocol: str, fitted_on: str, classes: Classes, mapping: ClusterMapping, scores: ClassScores
) -> list[dict[str, Any]]:
    """Rows of PER_CLASS_SCHEMA for one mapping, classes in the order of the ground truth."""
    rows = []
    for number, class_id in enumerate((*classes.thing_ids, *classes.stuff_ids)):
        stuff_number = number - len(classes.thing_ids)
        is_thing = stuff_number < 0
        iou = (
            None if is_thing or scores.stuff_iou is None else float(scores.stuff_iou[stuff_number])
        )
        quality = scores.panoptic.get(number)
        clusters = mapping.things == number if is_thing else mapping.stuff == stuff_number
        rows.append(
            {
                "protocol": protocol,
                "fitted_on": fitted_on,
                "kind": "thing" if is_thing else "stuff",
                "class_id": class_id,
                "class_name": classes.names[class_id],
                "truths": scores.truths.get(class_id, 0),
                "clusters": int(np.count_nonzero(clusters)),
                "box_AP": scores.box_ap.get(class_id),
                "mask_AP": scores.mask_ap.get(class_id),
                "IoU": None if iou is None or np.isnan(iou) else iou,
                "PQ": 100.0 * quality.pq if quality else None,
                "SQ": 100.0 * quality.sq if quality else None,
                "RQ": 100.0 * quality.rq if quality else None,
            }
        )
    return rows


def mapping_rows(
    protocol: str, fitted_on: str, classes: Classes, mapping: ClusterMapping
) -> list[dict[str, Any]]:
    """Rows of MAPPING_SCHEMA for one mapping, clusters ascending."""
    kinds = (
        ("thing", 0, mapping.things, mapping.thing_votes, classes.thing_ids),
        ("stuff", len(mapping.things), mapping.stuff, mapping.stuff_votes, classes.stuff_ids),
    )
    return [
        {
            "protocol": protocol,
            "fitted_on": fitted_on,
            "cluster_id": offset + number,
            "kind": kind,
            "class_id": class_ids[named] if named >= 0 else None,
            "class_name": classes.names[class_ids[named]] if named >= 0 else None,
            "votes": votes,
        }
        for kind, offset, named_of, votes_of, class_ids in kinds
        for number, (named, votes) in enumerate(
            zip(named_of.tolist(), votes_of.tolist(), strict=True), start=1
        )
    ]
