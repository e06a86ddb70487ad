"""Panoptic maps in the form that evaluation works on: segments numbered from 1, classes by look-up."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmodels.evaluation.naming.instance_mapping import ClusterMapping
from segmodels.formats.panoptic import Segment


@dataclass(frozen=True)
class NumberedSegments:
    """A panoptic map whose n segments are numbered 1..n.

    Attributes:
        numbers: (H, W) int64, 0 = void.
        categories: (n,) int64 category or cluster of each segment.
        crowd: (n,) bool.
    """

    numbers: NDArray[np.int64]
    categories: NDArray[np.int64]
    crowd: NDArray[np.bool_]


def number_segments(
    segment_map: NDArray[np.integer], segments: Sequence[Segment]
) -> NumberedSegments:
    """Number the segments of a map by ascending id.

    Args:
        segment_map: (H, W) segment ids, 0 = void.
        segments: one for every id of the map.
    """
    ordered = sorted(segments, key=lambda segment: segment.id)
    ids = np.array([0, *(segment.id for segment in ordered)], dtype=segment_map.dtype)
    return NumberedSegments(
        # One type on both sides: mixed ones make searchsorted copy the map.
        np.searchsorted(ids, segment_map),
        np.array([segment.category_id for segment in ordered], dtype=np.int64),
        np.array([segment.iscrowd for segment in ordered], dtype=bool),
    )


def name_segments(
    predicted: NumberedSegments,
    mapping: ClusterMapping,
    *,
    num_thing_classes: int,
    merge_stuff: bool,
) -> tuple[NDArray[np.int64], dict[int, int]]:
    """Give predicted segments classes instead of clusters.

    Args:
        predicted: categories are clusters, 1..K for things, K+1..K+S for stuff.
        mapping: classes of the clusters.
        num_thing_classes: C; thing classes become 0..C-1, stuff classes C onward.
        merge_stuff: whether stuff segments of one class become one segment.

    Returns:
        The map, (H, W), segments of clusters without a class being void; and the class of each segment.
    """
    num_things = len(mapping.things)
    classes: dict[int, int] = {}
    first_of_stuff: dict[int, int] = {}
    target = np.zeros(len(predicted.categories) + 1, dtype=np.int64)
    for number, cluster in enumerate(predicted.categories.tolist(), start=1):
        is_thing = cluster <= num_things
        named = mapping.things[cluster - 1] if is_thing else mapping.stuff[cluster - num_things - 1]
        if named < 0:
            continue
        target[number] = number
        if merge_stuff and not is_thing:
            target[number] = first_of_stuff.setdefault(int(named), number)
        classes[int(target[number])] = int(named) + (0 if is_thing else num_thing_classes)
    return target[predicted.numbers], classes


def semantic_classes(
    truth: NumberedSegments, thing_ids: Sequence[int], stuff_ids: Sequence[int]
) -> NDArray[np.int64]:
    """Semantic ground truth of a panoptic map.

    Args:
        truth: categories are category ids.
        thing_ids: category ids of things.
        stuff_ids: (D,) category ids of stuff.

    Returns:
        (H, W): 0 = thing, 1..D = stuff class in the order of `stuff_ids`, -1 = void.
    """
    number_of = dict.fromkeys(thing_ids, 0) | {c: n for n, c in enumerate(stuff_ids, start=1)}
    lookup = [-1, *(number_of[category_id] for category_id in truth.categories.tolist())]
    return np.array(lookup, dtype=np.int64)[truth.numbers]
