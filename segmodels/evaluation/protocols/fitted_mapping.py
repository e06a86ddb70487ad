"""Trials: a protocol, the images that name its clusters, and the images that are scored with the names."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.panoptic_quality import PanopticCounts, panoptic_counts
from segmodels.datasets.ground_truth import GroundTruth
from segmodels.evaluation.metrics.average_precision import AveragePrecision, average_precision
from segmodels.evaluation.metrics.panoptic import panoptic_scores
from segmodels.evaluation.metrics.semantic import mask_votes, pixel_votes, semantic_scores
from segmodels.evaluation.naming.instance_mapping import ClusterMapping, fit_mapping
from segmodels.evaluation.naming.protocol import FITS, Fit, Protocol, in_mapping_half
from segmodels.evaluation.naming.segment_maps import name_segments, number_segments
from segmodels.evaluation.predictions import Predictions
from segmodels.evaluation.protocols.class_tables import ClassScores
from segmodels.evaluation.protocols.match_statistics import Evidence, Progress, numbered_truth

_REPORT_EVERY = 500


@dataclass(frozen=True)
class Trial:
    """One mapping and the images it is scored on."""

    protocol: Protocol
    fitted_on: Fit
    mapping: ClusterMapping
    scored_ids: frozenset[int]


def fit_trials(
    evidence: Evidence, protocols: Sequence[Protocol], missing: dict[str, str]
) -> Iterator[Trial]:
    """Fit each protocol's mapping on the scored images, and on the mapping half for the other half."""
    ids = evidence.image_ids()
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
            votes = evidence.thing_votes[protocol.name]
            disjoint = fitted_on == "disjoint"
            mapping = fit_mapping(
                votes[1] if disjoint else votes.sum(axis=0),
                _stuff_votes(evidence, protocol, halves[True] if disjoint else frozenset(ids)),
                protocol,
            )
            yield Trial(protocol, fitted_on, mapping, halves[False] if disjoint else frozenset(ids))


def _confusions(evidence: Evidence, ids: frozenset[int]) -> NDArray[np.int64]:
    """Pixel counts of the images with the ids: (n, S + 1, D + 1)."""
    chosen = [image_id in ids for image_id in evidence.panoptic_ids]
    return np.stack(evidence.confusions)[chosen]


def _stuff_votes(evidence: Evidence, protocol: Protocol, ids: frozenset[int]) -> NDArray[np.int64]:
    if not evidence.confusions:
        return np.zeros((evidence.num_stuff, len(evidence.classes.stuff_ids)), dtype=np.int64)
    confusions = _confusions(evidence, ids)
    if protocol.semantic_votes == "masks":
        return mask_votes(confusions, protocol.min_mask_iou)
    return pixel_votes(confusions)


def count_panoptic(
    predictions: Predictions,
    ground_truth: GroundTruth,
    evidence: Evidence,
    trials: Sequence[Trial],
    on_progress: Progress,
) -> list[PanopticCounts] | None:
    """Match segments under every trial's mapping, reading each map once."""
    if predictions.panoptic is None or not evidence.panoptic_ids:
        return None
    things, stuff = evidence.classes.thing_ids, evidence.classes.stuff_ids
    number_of = {class_id: number for number, class_id in enumerate((*things, *stuff))}
    counts = [PanopticCounts.zeros(len(number_of)) for _ in trials]
    for number, image_id in enumerate(evidence.panoptic_ids, start=1):
        predicted = number_segments(*predictions.segments(image_id))
        truth = numbered_truth(ground_truth, image_id)
        true = {n: number_of[c] for n, c in enumerate(truth.categories.tolist(), start=1)}
        crowd = (np.flatnonzero(truth.crowd) + 1).tolist()
        for place, trial in enumerate(trials):
            if image_id not in trial.scored_ids:
                continue
            named_map, named = name_segments(
                predicted,
                trial.mapping,
                num_thing_classes=len(things),
                merge_stuff=trial.protocol.merge_stuff,
            )
            counts[place] += panoptic_counts(
                named_map,
                named,
                truth.numbers,
                true,
                num_categories=len(number_of),
                crowd=crowd,
            )
        if number % _REPORT_EVERY == 0:
            on_progress(f"matched segments of {number} of {len(evidence.panoptic_ids)} images")
    return counts


def score_trial(
    evidence: Evidence, trial: Trial, panoptic: PanopticCounts | None
) -> tuple[dict[str, Any], ClassScores]:
    """All scores of one mapping."""
    scores: dict[str, Any] = {"clusters": _named_clusters(trial.mapping)}
    boxes, masks = _named_ap(evidence, trial)
    if boxes is not None and masks is not None:
        scores |= {"box": boxes.as_dict(), "mask": masks.as_dict()}
    semantic = None
    if evidence.confusions:
        semantic = semantic_scores(
            _confusions(evidence, trial.scored_ids).sum(axis=0),
            trial.mapping.stuff,
            score_unmapped=trial.protocol.score_unmapped_pixels,
        )
        if semantic is not None:
            scores["semantic"] = semantic.as_dict()
    summary = None
    if panoptic is not None:
        num_things, num_stuff = len(evidence.classes.thing_ids), len(evidence.classes.stuff_ids)
        scores["panoptic"], summary = panoptic_scores(panoptic, num_things, num_stuff)
    by_class = ClassScores(
        truths=_count_truths(evidence, trial.scored_ids),
        box_ap=boxes.per_class if boxes else {},
        mask_ap=masks.per_class if masks else {},
        stuff_iou=semantic.per_class[1:] if semantic else None,
        panoptic=summary.per_category if summary else {},
    )
    return scores, by_class


def _named_ap(
    evidence: Evidence, trial: Trial
) -> tuple[AveragePrecision | None, AveragePrecision | None]:
    """Class-aware AP of boxes and masks; predictions of clusters without a class are dropped."""
    sizes = {i: size for i, size in evidence.sizes.items() if i in trial.scored_ids}
    class_ids = evidence.classes.thing_ids
    named = [
        {**row, "category_id": class_ids[trial.mapping.things[row["category_id"] - 1]]}
        for row in evidence.results
        if row["image_id"] in sizes and trial.mapping.things[row["category_id"] - 1] >= 0
    ]
    truths = [row for row in evidence.truths if row["image_id"] in sizes]
    return (
        average_precision(named, truths, sizes, kind="box"),
        average_precision(named, truths, sizes, kind="mask"),
    )


def _count_truths(evidence: Evidence, ids: frozenset[int]) -> dict[int, int]:
    """True instances of each thing class, and images with each stuff class, by class id."""
    counts = Counter(
        row["category_id"]
        for row in evidence.truths
        if row["image_id"] in ids and not row["iscrowd"]
    )
    if evidence.confusions:
        images = np.count_nonzero(_confusions(evidence, ids).sum(axis=1) > 0, axis=0)[1:]
        counts.update(dict(zip(evidence.classes.stuff_ids, images.tolist(), strict=True)))
    return counts


def _named_clusters(mapping: ClusterMapping) -> dict[str, int]:
    return {
        "things_named": int(np.count_nonzero(mapping.things >= 0)),
        "stuff_named": int(np.count_nonzero(mapping.stuff >= 0)),
        "thing_classes_reached": len(set(mapping.things[mapping.things >= 0].tolist())),
        "stuff_classes_reached": len(set(mapping.stuff[mapping.stuff >= 0].tolist())),
    }
