"""Fits each protocol's mapping and scores predictions with it; needs no file but the statistics."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.panoptic_quality import PanopticCounts, PanopticSummary, overlap_counts
from segmodels.evaluation.metrics.average_precision import AveragePrecision, average_precision
from segmodels.evaluation.metrics.panoptic import panoptic_scores
from segmodels.evaluation.metrics.semantic import SemanticScores, semantic_scores
from segmodels.evaluation.naming.cluster_mapping import ClusterMapping, fit_mapping
from segmodels.evaluation.naming.named_overlaps import name_overlaps
from segmodels.evaluation.naming.protocol import FITS, Fit, Protocol, in_mapping_half
from segmodels.evaluation.naming.votes import stuff_votes
from segmodels.evaluation.protocols.class_tables import ClassScores
from segmodels.evaluation.protocols.match_statistics import MatchStatistics


@dataclass(frozen=True)
class FittedMapping:
    """A mapping, how it was fitted, and the images it is scored on."""

    protocol: Protocol
    fitted_on: Fit
    mapping: ClusterMapping
    scored_ids: frozenset[int]


def fit_mappings(
    matches: MatchStatistics, protocols: Sequence[Protocol], missing: dict[str, str]
) -> Iterator[FittedMapping]:
    """Fit each protocol on all scored images, and on the mapping half for the other half.

    Args:
        matches: of the images.
        protocols: how clusters get classes.
        missing: receives the reason if there are too few images to split.
    """
    ids = matches.image_ids()
    if not ids:
        return
    halves = {
        half: frozenset(image_id for image_id in ids if in_mapping_half(image_id) == half)
        for half in (False, True)
    }
    fits: tuple[Fit, ...] = FITS
    if not all(halves.values()):
        missing["mappings fitted on other images"] = f"{len(ids)} images are too few to split"
        fits = ("same",)
    for protocol in protocols:
        for fitted_on in fits:
            thing_votes = matches.thing_votes[protocol.name]
            disjoint = fitted_on == "disjoint"
            confusions = matches.confusions_of(halves[True] if disjoint else ids)
            mapping = fit_mapping(
                thing_votes[1] if disjoint else thing_votes.sum(axis=0),
                stuff_votes(confusions, protocol),
                protocol,
            )
            yield FittedMapping(
                protocol, fitted_on, mapping, halves[False] if disjoint else frozenset(ids)
            )


def score_mapping(
    matches: MatchStatistics, fitted: FittedMapping
) -> tuple[dict[str, Any], ClassScores]:
    """Compute all class-aware scores under one mapping.

    Returns:
        JSON-able scores: "clusters" and, where computed, "box", "mask", "semantic" and "panoptic";
        and the scores of each class.
    """
    scores: dict[str, Any] = {"clusters": fitted.mapping.counts()}
    boxes, masks = _instance_scores(matches, fitted)
    if boxes is not None and masks is not None:
        scores |= {"box": boxes.as_dict(), "mask": masks.as_dict()}
    semantic = _semantic_scores(matches, fitted)
    if semantic is not None:
        scores["semantic"] = semantic.as_dict()
    summary: PanopticSummary | None = None
    if matches.overlaps:
        num_things, num_stuff = len(matches.classes.thing_ids), len(matches.classes.stuff_ids)
        counts = _panoptic_counts(matches, fitted)
        scores["panoptic"], summary = panoptic_scores(counts, num_things, num_stuff)
    by_class = ClassScores(
        truths=_count_truths(matches, fitted.scored_ids),
        box_ap=boxes.per_class if boxes else {},
        mask_ap=masks.per_class if masks else {},
        stuff_iou=semantic.per_class[1:] if semantic else None,
        panoptic=summary.per_category if summary else {},
    )
    return scores, by_class


def _instance_scores(
    matches: MatchStatistics, fitted: FittedMapping
) -> tuple[AveragePrecision | None, AveragePrecision | None]:
    """Class-aware AP of boxes and masks; predictions of clusters without a class are discarded."""
    sizes = {i: size for i, size in matches.sizes.items() if i in fitted.scored_ids}
    class_ids, class_of = matches.classes.thing_ids, fitted.mapping.things.tolist()
    named = [
        {**row, "category_id": class_ids[class_of[row["category_id"] - 1]]}
        for row in matches.results
        if row["image_id"] in sizes and class_of[row["category_id"] - 1] >= 0
    ]
    truths = [row for row in matches.truths if row["image_id"] in sizes]
    return (
        average_precision(named, truths, sizes, kind="box"),
        average_precision(named, truths, sizes, kind="mask"),
    )


def _semantic_scores(matches: MatchStatistics, fitted: FittedMapping) -> SemanticScores | None:
    return semantic_scores(
        matches.confusions_of(fitted.scored_ids).sum(axis=0),
        fitted.mapping.stuff,
        score_unmapped=fitted.protocol.score_unmapped_pixels,
    )


def _panoptic_counts(matches: MatchStatistics, fitted: FittedMapping) -> PanopticCounts:
    num_things = len(matches.classes.thing_ids)
    num_classes = num_things + len(matches.classes.stuff_ids)
    counts = PanopticCounts.zeros(num_classes)
    for image_id, overlaps in matches.overlaps.items():
        if image_id in fitted.scored_ids:
            pixels, classes = name_overlaps(
                overlaps.pixels,
                overlaps.clusters,
                fitted.mapping,
                num_thing_classes=num_things,
                merge_stuff=fitted.protocol.merge_stuff,
            )
            counts += overlap_counts(
                pixels,
                classes,
                overlaps.classes,
                num_categories=num_classes,
                crowd=overlaps.crowd,
            )
    return counts


def _count_truths(matches: MatchStatistics, image_ids: frozenset[int]) -> dict[int, int]:
    """True instances of each thing class, and images with each stuff class, by class id."""
    counts = Counter(
        row["category_id"]
        for row in matches.truths
        if row["image_id"] in image_ids and not row["iscrowd"]
    )
    stuff_pixels = matches.confusions_of(image_ids).sum(axis=1)[:, 1:]
    images = np.count_nonzero(stuff_pixels, axis=0).tolist()
    counts.update(dict(zip(matches.classes.stuff_ids, images, strict=True)))
    return counts
