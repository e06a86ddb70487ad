"""Merge thing masks and stuff segments into panoptic pseudo labels (U2Seg eq. 5)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from segmodels.detector.pseudo_labels import SEMANTIC_VOID
from segmodels.formats.panoptic import Segment

PaintingOrder = Literal["box_area_descending", "mask_area_descending", "score_ascending"]

VOID_STUFF = -1
"""Value of a stuff map where there is no stuff."""


@dataclass(frozen=True)
class LabelSettings:
    """How things and stuff are merged.

    Attributes:
        painting_order: order of painting; later things cover earlier ones. The released code paints
            by falling BOX area, so that small things stay on top. Ties keep the order of the rows.
        stuff_cover_limit: a stuff class of an image becomes void when things cover more than this
            share of its pixels (0.7 in the released code). None keeps every class with a visible
            pixel.
        keep_instance_free: keep images without things. The released code drops them: no mask does
            not mean no object, and such an image would teach the detector that its objects are
            background.
        long_side_limit: larger images are merged at this longest side, px, and the result is
            enlarged to the image's size (nearest pixel). 1333 is the longest side that detectors of
            this family are trained at.
    """

    painting_order: PaintingOrder = "box_area_descending"
    stuff_cover_limit: float | None = 0.7
    keep_instance_free: bool = False
    long_side_limit: int = 1333

    def __post_init__(self) -> None:
        if self.stuff_cover_limit is not None and not 0 <= self.stuff_cover_limit <= 1:
            raise ValueError(
                f"stuff_cover_limit must be in [0, 1] or None, got {self.stuff_cover_limit}"
            )
        if self.long_side_limit < 1:
            raise ValueError(f"long_side_limit must be at least 1, got {self.long_side_limit}")


@dataclass(frozen=True)
class Things:
    """The thing masks of one image.

    Attributes:
        masks: (n, H, W) bool, may overlap.
        cluster_ids: (n,) int, 0-based.
        scores: (n,) float.
    """

    masks: np.ndarray
    cluster_ids: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.masks) == len(self.cluster_ids) == len(self.scores):
            raise ValueError(
                "masks, cluster_ids and scores must have one entry per thing, got "
                f"{len(self.masks)}, {len(self.cluster_ids)} and {len(self.scores)}"
            )


@dataclass(frozen=True)
class MergedImage:
    """Panoptic pseudo label of one image.

    Attributes:
        segment_map: (H, W) int32; segment ids, 0 = void.
        segments: things in the order of their rows, then stuff by rising class.
        thing_rows: row in `Things` of each thing segment; things without a visible pixel have no
            segment.
    """

    segment_map: np.ndarray
    segments: list[Segment]
    thing_rows: list[int]


def merge_image(
    things: Things, stuff_map: np.ndarray, num_things: int, settings: LabelSettings
) -> MergedImage:
    """Label each pixel by its topmost thing, else its stuff class, else void.

    Args:
        things: of the image; n may be 0.
        stuff_map: (H, W) int, stuff cluster 0..S-1, or `VOID_STUFF`.
        num_things: K; thing cluster c gets category c + 1, stuff class s gets K + s + 1.
        settings: of the merge.

    Raises:
        ValueError: masks and stuff map differ in size, or a cluster id is not in [0, K).
    """
    if things.masks.shape[1:] != stuff_map.shape:
        raise ValueError(
            f"thing masks {things.masks.shape[1:]} and stuff map {stuff_map.shape} differ in size"
        )
    if np.any(things.cluster_ids < 0) or np.any(things.cluster_ids >= num_things):
        raise ValueError(
            f"cluster ids must be in [0, {num_things}), got {things.cluster_ids.min()} to "
            f"{things.cluster_ids.max()}"
        )
    painted = paint(things, settings.painting_order)
    segment_map = np.zeros(stuff_map.shape, dtype=np.int32)
    segments: list[Segment] = []
    seen = np.bincount(painted.ravel() + 1, minlength=1)
    thing_rows = [int(row) for row in np.flatnonzero(seen[1:])]
    for row in thing_rows:
        segments.append(Segment(len(segments) + 1, int(things.cluster_ids[row]) + 1))
        segment_map[painted == row] = segments[-1].id
    for stuff in visible_stuff(stuff_map, painted >= 0, settings.stuff_cover_limit):
        segments.append(Segment(len(segments) + 1, num_things + stuff + 1))
        segment_map[(stuff_map == stuff) & (painted < 0)] = segments[-1].id
    return MergedImage(segment_map, segments, thing_rows)


def paint(things: Things, order: PaintingOrder) -> np.ndarray:
    """Row of the topmost thing at each pixel: (H, W) int32, -1 where there is none."""
    painted = np.full(things.masks.shape[1:], -1, dtype=np.int32)
    for row in _painting_rows(things, order):
        painted[things.masks[row]] = row
    return painted


def visible_stuff(stuff_map: np.ndarray, covered: np.ndarray, limit: float | None) -> list[int]:
    """Stuff classes of the image that get a segment, rising.

    Args:
        stuff_map: (H, W) int, `VOID_STUFF` where there is none.
        covered: (H, W) bool, pixels of things.
        limit: `LabelSettings.stuff_cover_limit`.
    """
    labelled = stuff_map >= 0
    total = np.bincount(stuff_map[labelled])
    hidden = np.bincount(stuff_map[labelled & covered], minlength=len(total))
    kept = hidden < total
    if limit is not None:
        kept &= hidden / np.maximum(total, 1) <= limit
    return [int(stuff) for stuff in np.flatnonzero(kept)]


def semantic_map(merged: MergedImage, num_things: int) -> np.ndarray:
    """Semantic target of the stuff head.

    Returns:
        (H, W) uint8: 0 for things, s + 1 for stuff class s, `SEMANTIC_VOID` for void.
    """
    values = np.full(len(merged.segments) + 1, SEMANTIC_VOID, dtype=np.uint8)
    for segment in merged.segments:
        values[segment.id] = max(0, segment.category_id - num_things)
    semantic: np.ndarray = values[merged.segment_map]
    return semantic


def _painting_rows(things: Things, order: PaintingOrder) -> np.ndarray:
    """Rows (n,) in painting order."""
    if order == "score_ascending":
        return np.argsort(things.scores, kind="stable")
    if order == "mask_area_descending":
        areas = np.count_nonzero(things.masks, axis=(1, 2))
    elif order == "box_area_descending":
        areas = np.array([_box_area(mask) for mask in things.masks], dtype=np.int64)
    else:
        raise ValueError(
            "painting_order must be box_area_descending, mask_area_descending or "
            f"score_ascending, got {order!r}"
        )
    return np.argsort(-areas, kind="stable")


def _box_area(mask: np.ndarray) -> int:
    """Area of the tight box of a mask (H, W) bool, px."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return 0
    return int((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1))
