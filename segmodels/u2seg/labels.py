"""Merge of thing masks and stuff segments into one panoptic pseudo-label (U2Seg eq. 5)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from segmodels.formats.panoptic import Segment

PaintingOrder = Literal["box_area_descending", "mask_area_descending", "score_ascending"]

VOID_STUFF = -1
"""Value of a stuff map where there is no stuff label."""

SEMANTIC_VOID = 255
"""Value of a semantic map where there is no label."""


@dataclass(frozen=True)
class LabelSettings:
    """How things and stuff are merged.

    Attributes:
        painting_order: which thing is painted first; a later one covers an earlier one. The
            released code paints by falling BOX area, so that small things stay on top. Ties are
            painted in the order of the rows.
        stuff_cover_limit: a stuff class is left out of an image when more than this share of its
            pixels is covered by things; what remains of it becomes void (0.7 in the released
            code). None keeps every class that has a visible pixel.
        keep_instance_free: keep images without any thing. The default drops them, as the
            released code does: a stage that found no mask has not shown that there is no object,
            and such an image would teach the detector that its objects are background.
    """

    painting_order: PaintingOrder = "box_area_descending"
    stuff_cover_limit: float | None = 0.7
    keep_instance_free: bool = False

    def __post_init__(self) -> None:
        if self.stuff_cover_limit is not None and not 0 <= self.stuff_cover_limit <= 1:
            raise ValueError(
                f"stuff_cover_limit must be in [0, 1] or None, got {self.stuff_cover_limit}"
            )


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
                "masks, cluster_ids and scores must have one entry a thing, got "
                f"{len(self.masks)}, {len(self.cluster_ids)} and {len(self.scores)}"
            )


@dataclass(frozen=True)
class MergedImage:
    """Panoptic pseudo-label of one image.

    Attributes:
        segment_map: (H, W) int32; 0 is void, every other value is the id of one segment.
        segments: the things in the order of their rows, then the stuff classes by number.
        thing_rows: for each thing segment, the row of its mask in `Things`; things without a
            visible pixel have no segment.
    """

    segment_map: np.ndarray
    segments: list[Segment]
    thing_rows: list[int]


def merge_image(
    things: Things, stuff_map: np.ndarray, num_clusters: int, settings: LabelSettings
) -> MergedImage:
    """Give each pixel its thing, else its stuff class, else void.

    Args:
        things: masks of the image; n may be 0.
        stuff_map: (H, W) int, stuff cluster 0..S-1, or `VOID_STUFF`.
        num_clusters: K; a thing of cluster c gets category c + 1, stuff class s gets K + s + 1.
        settings: painting order and rules.

    Raises:
        ValueError: masks and stuff map differ in size, or a cluster is not in [0, K).
    """
    if things.masks.shape[1:] != stuff_map.shape:
        raise ValueError(
            f"thing masks {things.masks.shape[1:]} and stuff map {stuff_map.shape} differ in size"
        )
    if np.any(things.cluster_ids < 0) or np.any(things.cluster_ids >= num_clusters):
        raise ValueError(
            f"cluster ids must be in [0, {num_clusters}), got {things.cluster_ids.min()} to "
            f"{things.cluster_ids.max()}"
        )
    painted = paint(things, settings.painting_order)
    segment_map = np.zeros(stuff_map.shape, dtype=np.int32)
    segments: list[Segment] = []
    thing_rows = [int(row) for row in np.unique(painted) if row >= 0]
    for row in thing_rows:
        segments.append(Segment(len(segments) + 1, int(things.cluster_ids[row]) + 1))
        segment_map[painted == row] = segments[-1].id
    for stuff in visible_stuff(stuff_map, painted >= 0, settings.stuff_cover_limit):
        segments.append(Segment(len(segments) + 1, num_clusters + stuff + 1))
        segment_map[(stuff_map == stuff) & (painted < 0)] = segments[-1].id
    return MergedImage(segment_map, segments, thing_rows)


def paint(things: Things, order: PaintingOrder) -> np.ndarray:
    """Row of the topmost thing at each pixel: (H, W) int32, -1 where there is none."""
    painted = np.full(things.masks.shape[1:], -1, dtype=np.int32)
    for row in _painting_rows(things, order):
        painted[things.masks[row]] = row
    return painted


def visible_stuff(stuff_map: np.ndarray, covered: np.ndarray, limit: float | None) -> list[int]:
    """Stuff classes that stay in the image, rising.

    Args:
        stuff_map: (H, W) int, `VOID_STUFF` where there is none.
        covered: (H, W) bool, pixels of things.
        limit: `LabelSettings.stuff_cover_limit`.
    """
    labelled = stuff_map >= 0
    total = np.bincount(stuff_map[labelled])
    hidden = np.bincount(stuff_map[labelled & covered], minlength=len(total))
    stays = hidden < total
    if limit is not None:
        stays &= hidden / np.maximum(total, 1) <= limit
    return [int(stuff) for stuff in np.flatnonzero(stays)]


def semantic_map(merged: MergedImage, num_clusters: int) -> np.ndarray:
    """Semantic target of the stuff head.

    Returns:
        (H, W) uint8: 0 for every thing, s + 1 for stuff class s, `SEMANTIC_VOID` for void.
    """
    values = np.full(len(merged.segments) + 1, SEMANTIC_VOID, dtype=np.uint8)
    for segment in merged.segments:
        values[segment.id] = max(0, segment.category_id - num_clusters)
    return values[merged.segment_map]


def _painting_rows(things: Things, order: PaintingOrder) -> np.ndarray:
    """Rows (n,) from the bottom to the top."""
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
