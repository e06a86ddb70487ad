"""Scores predictions against ground truth under every protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from segmodels.datasets.ground_truth import GroundTruth
from segmodels.evaluation.metrics.average_precision import class_agnostic_scores, mask_results
from segmodels.evaluation.metrics.cluster_statistics import ClusterStatistics
from segmodels.evaluation.naming.protocol import PROTOCOLS, Protocol, in_mapping_half
from segmodels.evaluation.predictions import Predictions
from segmodels.evaluation.protocols.class_tables import (
    MAPPING_SCHEMA,
    PER_CLASS_SCHEMA,
    mapping_rows,
    per_class_rows,
)
from segmodels.evaluation.protocols.fitted_mapping import fit_mappings, score_mapping
from segmodels.evaluation.protocols.match_statistics import (
    Log,
    MatchStatistics,
    collect_statistics,
)
from segmodels.formats.arrow import rows_in


@dataclass(frozen=True)
class EvaluationResult:
    """Scores of one folder of predictions.

    Attributes:
        metrics: nested, JSON-able; percentages. "images" counts; "class_agnostic"; "protocols" ->
            name -> "same" | "disjoint" -> "box", "mask", "semantic", "panoptic", "clusters";
            "statistics"; "not_computed" -> reason; "maskcut_baseline".
        per_class: PER_CLASS_SCHEMA, a row for each protocol, fit and class.
        mapping: MAPPING_SCHEMA, a row for each protocol, fit and cluster.
        statistics: counts behind metrics["statistics"].
    """

    metrics: dict[str, Any]
    per_class: pa.Table
    mapping: pa.Table
    statistics: ClusterStatistics


def evaluate(
    predictions: Predictions,
    ground_truth: GroundTruth | None,
    images_table: pa.Table,
    *,
    maskcut_masks: pa.Table | None = None,
    protocols: Sequence[Protocol] = PROTOCOLS,
    log: Log = lambda _: None,
) -> EvaluationResult:
    """Score predictions under each protocol, with mappings fitted on the same and on other images.

    Args:
        predictions: COCO results, panoptic and semantic maps.
        ground_truth: instances, panoptic maps, or both; None for statistics only.
        images_table: the predicted images (IMAGES_SCHEMA); those without ground truth are not scored.
        maskcut_masks: MaskCut's own masks (MASK_SCHEMA), the baseline that a model has to beat;
            masks of other images are ignored.
        protocols: how clusters get classes.
        log: takes a sentence about the progress.

    Returns:
        The scores. What cannot be computed is absent and listed in metrics["not_computed"].

    Raises:
        InputError: the predictions are missing or belong to another clustering.
    """
    sizes = image_sizes(images_table)
    missing = _missing_parts(predictions, ground_truth, set(sizes))
    statistics, matches = collect_statistics(
        predictions, ground_truth, sizes, protocols=protocols, log=log
    )
    metrics: dict[str, Any] = {"images": {"predicted": len(sizes)}}
    class_rows: list[dict[str, Any]] = []
    cluster_rows: list[dict[str, Any]] = []
    if ground_truth is not None:
        metrics["images"] |= _image_counts(matches)
        agnostic = class_agnostic_scores(matches.results, matches.truths, matches.sizes)
        if agnostic:
            metrics["class_agnostic"] = agnostic
        metrics["protocols"] = {}
        for fitted in fit_mappings(matches, protocols, missing):
            name, fitted_on = fitted.protocol.name, fitted.fitted_on
            log(f"score {name}, mapping fitted on {fitted_on} images")
            scores, by_class = score_mapping(matches, fitted)
            metrics["protocols"].setdefault(name, {})[fitted_on] = scores
            key = (name, fitted_on, matches.classes, fitted.mapping)
            class_rows += per_class_rows(*key, by_class)
            cluster_rows += mapping_rows(*key)
    metrics["statistics"] = statistics.as_dict()
    metrics["not_computed"] = missing
    if maskcut_masks is not None:
        masks = mask_results(rows_in(maskcut_masks, "image_id", matches.sizes))
        baseline = class_agnostic_scores(masks, matches.truths, matches.sizes)
        if baseline:
            metrics["maskcut_baseline"] = baseline
    return EvaluationResult(
        metrics,
        pa.Table.from_pylist(class_rows, schema=PER_CLASS_SCHEMA),
        pa.Table.from_pylist(cluster_rows, schema=MAPPING_SCHEMA),
        statistics,
    )


def image_sizes(images_table: pa.Table) -> dict[int, tuple[int, int]]:
    """(height, width) by image id."""
    columns = (images_table[name].to_pylist() for name in ("image_id", "height", "width"))
    return {image_id: (height, width) for image_id, height, width in zip(*columns, strict=True)}


def _missing_parts(
    predictions: Predictions, ground_truth: GroundTruth | None, image_ids: set[int]
) -> dict[str, str]:
    """Name the scores that cannot be computed, with the reason."""
    if ground_truth is None:
        return {"all scores": "there is no ground truth; statistics and pictures stand in for them"}
    missing = {}
    if image_ids.isdisjoint(ground_truth.instance_image_ids):
        missing["box and mask AP"] = "the ground truth has no instances of these images"
    if image_ids.isdisjoint(ground_truth.panoptic_image_ids):
        reason = "the ground truth has no panoptic maps of these images"
        missing |= {"semantic scores": reason, "panoptic quality": reason}
    if not predictions.has_semantic:
        missing["semantic scores"] = "the predictions hold no semantic maps"
    if predictions.panoptic is None:
        missing["panoptic quality"] = "the predictions hold no panoptic maps"
    return missing


def _image_counts(matches: MatchStatistics) -> dict[str, int]:
    ids = matches.image_ids()
    mapping = sum(map(in_mapping_half, ids))
    return {
        "scored": len(ids),
        "with_instances": len(matches.sizes),
        "with_panoptic": len(matches.panoptic_ids),
        "disjoint_mapping": mapping,
        "disjoint_scored": len(ids) - mapping,
    }
