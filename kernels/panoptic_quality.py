"""Panoptic quality (Kirillov et al., "Panoptic Segmentation", CVPR 2019), on maps of segment ids.

The rules for void and crowd are those of the COCO panoptic evaluation. Counts of images add up; scores
are computed once, at the end.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VOID = 0
"""Id of pixels that belong to no segment, in predicted and in true maps."""


@dataclass(frozen=True)
class PanopticScores:
    """Means over the categories that occur; all 0 if none does.

    Attributes:
        pq, sq, rq: Panoptic, segmentation and recognition quality, in [0, 1].
        num_categories: Number of categories that occur.
    """

    pq: float
    sq: float
    rq: float
    num_categories: int


@dataclass(frozen=True)
class PanopticSummary:
    """Scores over all categories, over things, over stuff, and of each category that occurs."""

    all: PanopticScores
    things: PanopticScores
    stuff: PanopticScores
    per_category: dict[int, PanopticScores]


@dataclass(frozen=True, eq=False)
class PanopticCounts:
    """Matches of one or many images; `a + b` adds them.

    Attributes:
        iou: (categories,) float64, sum of the IoU of matched pairs, indexed by category id.
        true_positives, false_positives, false_negatives: (categories,) int64.
    """

    iou: NDArray[np.float64]
    true_positives: NDArray[np.int64]
    false_positives: NDArray[np.int64]
    false_negatives: NDArray[np.int64]

    @classmethod
    def zeros(cls, num_categories: int) -> "PanopticCounts":
        """Counts of no image, for category ids 0..num_categories - 1."""
        counts = [np.zeros(num_categories, np.int64) for _ in range(3)]
        return cls(np.zeros(num_categories), *counts)

    def __add__(self, other: "PanopticCounts") -> "PanopticCounts":
        if len(self.iou) != len(other.iou):
            raise ValueError(
                f"counts of {len(self.iou)} and of {len(other.iou)} categories do not add up"
            )
        return PanopticCounts(
            self.iou + other.iou,
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )

    def summary(self, thing_ids: Iterable[int], stuff_ids: Iterable[int]) -> PanopticSummary:
        """Compute PQ, SQ and RQ, as means over the categories with any segment."""
        things, stuff = sorted(set(thing_ids)), sorted(set(stuff_ids))
        for category in things + stuff:
            if not 0 <= category < len(self.iou):
                raise ValueError(
                    f"category ids must be in [0, {len(self.iou) - 1}], got {category}"
                )
        if set(things) & set(stuff):
            raise ValueError("a category cannot be both thing and stuff")
        both = sorted(things + stuff)
        return PanopticSummary(
            all=self._mean_scores(both),
            things=self._mean_scores(things),
            stuff=self._mean_scores(stuff),
            per_category={
                category: self._mean_scores([category])
                for category in both
                if self._occurs()[category]
            },
        )

    def _occurs(self) -> NDArray[np.bool_]:
        return (self.true_positives + self.false_positives + self.false_negatives) > 0

    def _mean_scores(self, categories: list[int]) -> PanopticScores:
        chosen = np.array(categories, np.int64)
        chosen = chosen[self._occurs()[chosen]]
        if len(chosen) == 0:
            return PanopticScores(0.0, 0.0, 0.0, 0)
        matched = self.true_positives[chosen]
        missed = (self.false_positives[chosen] + self.false_negatives[chosen]) / 2
        sq = self.iou[chosen] / np.maximum(matched, 1)
        rq = matched / (matched + missed)
        pq = self.iou[chosen] / (matched + missed)
        return PanopticScores(float(pq.mean()), float(sq.mean()), float(rq.mean()), len(chosen))


def panoptic_counts(
    predicted_map: NDArray[np.integer],
    predicted: Mapping[int, int],
    true_map: NDArray[np.integer],
    true: Mapping[int, int],
    *,
    num_categories: int,
    crowd: Iterable[int] = (),
) -> PanopticCounts:
    """Match the segments of one image.

    Two segments of one category match if their IoU, without pixels that are void in the truth, is
    above 0.5. Crowd segments neither match nor count as missed. An unmatched prediction of which
    more than half is void or crowd of its own category is no false positive.

    Args:
        predicted_map: (H, W) int segment ids, 0 = void.
        predicted: Category id of each predicted segment id.
        true_map: (H, W) int segment ids, 0 = void.
        true: Category id of each true segment id.
        num_categories: Categories are 0..num_categories - 1.
        crowd: True segment ids that are crowds.

    Raises:
        ValueError: A map has an id without category, or a segment has no pixel.
    """
    return overlap_counts(
        segment_overlaps(predicted_map, sorted(predicted), true_map, sorted(true)),
        [predicted[key] for key in sorted(predicted)],
        [true[key] for key in sorted(true)],
        num_categories=num_categories,
        crowd=np.isin(sorted(true), list(crowd)),
    )


def overlap_counts(
    overlap: NDArray[np.int64],
    predicted_categories: Sequence[int] | NDArray[np.int64],
    true_categories: Sequence[int] | NDArray[np.int64],
    *,
    num_categories: int,
    crowd: NDArray[np.bool_],
) -> PanopticCounts:
    """Match the segments of one image by their overlaps, see `panoptic_counts`.

    Args:
        overlap: (1 + true, 1 + predicted) pixel counts of `segment_overlaps`.
        predicted_categories: (predicted,) category ids.
        true_categories: (true,) category ids.
        num_categories: Categories are 0..num_categories - 1.
        crowd: (true,) whether a true segment is a crowd.

    Raises:
        ValueError: A category is out of range.
    """
    predicted_category = _checked(predicted_categories, num_categories)
    true_category = _checked(true_categories, num_categories)

    # Row 0 is void in the truth, column 0 void in the prediction.
    inside = overlap[1:, 1:]
    true_area = overlap.sum(axis=1)[1:, None]
    predicted_area = overlap.sum(axis=0)[None, 1:]
    union = true_area + predicted_area - inside - overlap[:1, 1:]
    same = true_category[:, None] == predicted_category[None]
    iou = np.where(same & ~crowd[:, None], inside / np.maximum(union, 1), 0)
    matched = iou > 0.5

    ignored = overlap[0, 1:] + (inside * (same & crowd[:, None])).sum(axis=0)
    wrong = ~matched.any(axis=0) & (2 * ignored <= predicted_area[0])
    missed = ~matched.any(axis=1) & ~crowd

    def per_category(categories: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(categories, minlength=num_categories)

    rows, columns = np.nonzero(matched)
    return PanopticCounts(
        np.bincount(true_category[rows], iou[rows, columns], minlength=num_categories).astype(
            np.float64
        ),
        per_category(true_category[rows]),
        per_category(predicted_category[wrong]),
        per_category(true_category[missed]),
    )


def segment_overlaps(
    predicted_map: NDArray[np.integer],
    predicted_ids: list[int],
    true_map: NDArray[np.integer],
    true_ids: list[int],
) -> NDArray[np.int64]:
    """Count the pixels that each true segment shares with each predicted one.

    Args:
        predicted_map: (H, W) int segment ids, 0 = void.
        predicted_ids: Ids of the predicted segments, ascending.
        true_map: (H, W) int segment ids, 0 = void.
        true_ids: Ids of the true segments, ascending.

    Returns:
        (1 + true, 1 + predicted) int64; row 0 and column 0 are void.

    Raises:
        ValueError: A map has an id that is not listed, or a listed segment has no pixel.
    """
    if predicted_map.shape != true_map.shape or true_map.ndim != 2:
        raise ValueError(
            f"maps must be (H, W) and equal in shape, got {predicted_map.shape}, {true_map.shape}"
        )
    if min(predicted_map.min(initial=0), true_map.min(initial=0)) < 0:
        raise ValueError("segment ids must not be negative")
    base = int(predicted_map.max(initial=0)) + 1
    codes = (true_map.astype(np.int64) * base + predicted_map).reshape(-1)
    # Segments come in runs, which sort some thirty times faster than pixels.
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    lengths = np.diff(starts, append=len(codes))
    pairs, run_pair = np.unique(codes[starts], return_inverse=True)
    pixels = np.bincount(run_pair, lengths, minlength=len(pairs)).astype(np.int64)
    rows = _positions(pairs // base, true_ids, "true")
    columns = _positions(pairs % base, predicted_ids, "predicted")
    table = np.zeros((1 + len(true_ids), 1 + len(predicted_ids)), np.int64)
    table[rows, columns] = pixels
    for side, areas, ids in (
        ("true", table.sum(axis=1), true_ids),
        ("predicted", table.sum(axis=0), predicted_ids),
    ):
        if not areas[1:].all():
            raise ValueError(f"{side} segment {ids[int(areas[1:].argmin())]} has no pixel")
    return table


def _positions(ids: NDArray[np.int64], known: list[int], side: str) -> NDArray[np.int64]:
    """Return each id's index in [VOID, *known]."""
    if known and known[0] <= VOID:
        raise ValueError(f"{side} segment ids must be above {VOID}, got {known[0]}")
    sorted_ids = np.array([VOID, *known], np.int64)
    indices = np.minimum(np.searchsorted(sorted_ids, ids), len(known))
    unknown = ids[sorted_ids[indices] != ids]
    if len(unknown):
        raise ValueError(f"the {side} map holds id {unknown[0]}, which has no category")
    return indices


def _checked(
    category_ids: Sequence[int] | NDArray[np.int64], num_categories: int
) -> NDArray[np.int64]:
    categories = np.array(category_ids, np.int64)
    if len(categories) and not 0 <= categories.min() <= categories.max() < num_categories:
        raise ValueError(
            f"categories must be in [0, {num_categories - 1}], got "
            f"{categories.min()}..{categories.max()}"
        )
    return categories
