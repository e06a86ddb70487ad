"""Merge instances and a semantic map into one panoptic map (Panoptic FPN, sec. 3).

Our own, because MMDetection packs category and instance into one number with a factor of 1000,
which limits the number of clusters.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernels import rle
from segmodels.formats.coco import Result
from segmodels.formats.panoptic import Segment


def merge_panoptic(
    instances: Sequence[Result],
    semantic: NDArray[np.uint8],
    *,
    num_things: int,
    score_threshold: float,
    overlap_threshold: float,
    min_stuff_pixels: float,
) -> tuple[NDArray[np.int32], list[Segment]]:
    """Place instances by falling score, then stuff on the pixels that stay free.

    Args:
        instances: in any order; equal scores keep their order.
        semantic: (H, W) uint8, 0 = thing, 1..S = stuff.
        num_things: K; stuff label s becomes category K + s.
        score_threshold: discard instances with a lower score.
        overlap_threshold: discard an instance when more than this share of it is already covered.
        min_stuff_pixels: smaller stuff segments become void, px.

    Returns:
        (H, W) int32 segment ids, 0 = void, and the segments: instances by falling score, then
        stuff by rising category.
    """
    height, width = semantic.shape
    segment_map = np.zeros((height, width), dtype=np.int32)
    segments: list[Segment] = []
    for instance in sorted(instances, key=lambda found: -found.score):
        if instance.score < score_threshold:
            break
        # One mask at a time: decoded together they can be far larger than the image.
        mask = rle.decode([instance.rle_counts], height, width)[0]
        area = np.count_nonzero(mask)
        free = mask & (segment_map == 0)
        visible = np.count_nonzero(free)
        if visible == 0 or area - visible > overlap_threshold * area:
            continue
        segments.append(Segment(len(segments) + 1, instance.category_id))
        segment_map[free] = segments[-1].id
    empty = segment_map == 0
    for label in np.unique(semantic[empty]):
        region = empty & (semantic == label)
        if label == 0 or np.count_nonzero(region) < min_stuff_pixels:
            continue
        segments.append(Segment(len(segments) + 1, num_things + int(label)))
        segment_map[region] = segments[-1].id
    return segment_map, segments
