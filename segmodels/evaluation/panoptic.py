"""Panoptic quality of label-free segments once their clusters have classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.panoptic_quality import PanopticCounts, PanopticScores, PanopticSummary
from segmodels.evaluation.instance_mapping import ClusterMapping


def name_segments(
    segment_map: NDArray[np.integer],
    clusters: Mapping[int, int],
    mapping: ClusterMapping,
    *,
    num_thing_classes: int,
    merge_stuff: bool,
) -> tuple[NDArray[np.int64], dict[int, int]]:
    """Give the segments of one predicted panoptic map classes instead of clusters.

    Args:
        segment_map: (H, W) segment ids, 0 = void.
        clusters: segment id -> cluster, 1..K for things, K+1..K+S for stuff.
        mapping: classes of the clusters.
        num_thing_classes: C; thing classes become 0..C-1, stuff classes C onward.
        merge_stuff: whether stuff segments of one class become one segment.

    Returns:
        The map, segments of clusters without a class being void, and segment id -> class.
    """
    num_things = len(mapping.things)
    classes: dict[int, int] = {}
    target: dict[int, int] = {}
    first_of_stuff: dict[int, int] = {}
    for segment_id, cluster in sorted(clusters.items()):
        if cluster <= num_things:
            named, offset = int(mapping.things[cluster - 1]), 0
        else:
            named, offset = int(mapping.stuff[cluster - num_things - 1]), num_thing_classes
        if named < 0:
            continue
        is_stuff = cluster > num_things
        merged = merge_stuff and is_stuff
        target[segment_id] = first_of_stuff.setdefault(named, segment_id) if merged else segment_id
        classes[target[segment_id]] = named + offset
    ids, dense = np.unique(segment_map, return_inverse=True)
    lookup = np.array([target.get(segment_id, 0) for segment_id in ids.tolist()], dtype=np.int64)
    return lookup[dense].reshape(segment_map.shape), classes


def panoptic_scores(
    counts: PanopticCounts, num_thing_classes: int, num_stuff_classes: int
) -> tuple[dict[str, dict[str, Any]], PanopticSummary]:
    """Percentages for all classes, for things and for stuff; a part without any segment is left out.

    Returns:
        {"all": {"PQ", "SQ", "RQ", "classes"}, "things": ..., "stuff": ...}, and the kernel's summary.
    """
    things = range(num_thing_classes)
    stuff = range(num_thing_classes, num_thing_classes + num_stuff_classes)
    summary = counts.summary(things, stuff)
    parts = {"all": summary.all, "things": summary.things, "stuff": summary.stuff}
    return {name: _percent(part) for name, part in parts.items() if part.num_categories}, summary


def _percent(scores: PanopticScores) -> dict[str, Any]:
    return {
        "PQ": 100.0 * scores.pq,
        "SQ": 100.0 * scores.sq,
        "RQ": 100.0 * scores.rq,
        "classes": scores.num_categories,
    }
