"""Scoring a folder of predictions against ground truth, under every protocol at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from segmodels.datasets.ground_truth import GroundTruth
from segmodels.evaluation.cluster_statistics import ClusterStatistics
from segmodels.evaluation.metrics.average_precision import (
    Row,
    average_precision,
    merge_classes,
)
from segmodels.evaluation.naming.protocol import PROTOCOLS, Protocol, in_mapping_half
from segmodels.evaluation.predictions import Predictions
from segmodels.evaluation.protocols.class_tables import (
    MAPPING_SCHEMA,
    PER_CLASS_SCHEMA,
    mapping_rows,
    per_class_rows,
)
from segmodels.evaluation.protocols.fitted_mapping import count_panoptic, fit_trials, score_trial
from segmodels.evaluation.protocols.match_statistics import (
    Evidence,
    Progress,
    gather_evidence,
    gather_statistics,
    truth_rows,
)


@dataclass(frozen=True)
class EvaluationResult:
    """Scores of one folder of predictions.

    Attributes:
        metrics: nested, JSON-able; percentages. "images" counts, "class_agnostic" and
            "protocols" -> name -> "same" | "disjoint" -> "box", "mask", "semantic", "panoptic",
            "clusters"; "statistics"; "not_computed" names what is absent and why.
        per_class: PER_CLASS_SCHEMA, a row for each protocol, fit and class.
        mapping: MAPPING_SCHEMA, a row for each protocol, fit and cluster.
        statistics: counts behind metrics["statistics"].
    """

    metrics: dict[str, Any]
    per_class: pa.Table
    mapping: pa.Table
    statistics: ClusterStatistics


def evaluate(
    predictions_folder: Path,
    ground_truth: GroundTruth | None,
    images_table: pa.Table,
    num_things: int,
    num_stuff: int,
    *,
    protocols: Sequence[Protocol] = PROTOCOLS,
    on_progress: Progress = lambda _: None,
) -> EvaluationResult:
    """Score predictions under each protocol, with mappings fitted on the same and on other images.

    Args:
        predictions_folder: instances.json, panoptic.json, panoptic/ and semantic/.
        ground_truth: thing instances, panoptic maps, or both; None for statistics only.
        images_table: the predicted images (IMAGES_SCHEMA); those without ground truth are not scored.
        num_things: K, the thing clusters.
        num_stuff: S, the stuff clusters.
        protocols: how clusters are named.
        on_progress: receives a line now and then.

    Returns:
        The scores. What cannot be computed is absent and listed in metrics["not_computed"].

    Raises:
        InputError: if the predictions are missing or belong to another clustering.
    """
    predictions = Predictions(Path(predictions_folder), num_things, num_stuff)
    sizes = image_sizes(images_table)
    image_ids = sorted(sizes)
    statistics = gather_statistics(predictions, image_ids)
    metrics: dict[str, Any] = {"images": {"predicted": len(image_ids)}}
    class_rows: list[dict[str, Any]] = []
    cluster_rows: list[dict[str, Any]] = []
    missing = _missing_parts(predictions, ground_truth, image_ids)
    if ground_truth is not None:
        evidence = gather_evidence(
            predictions, ground_truth, sizes, protocols=protocols, on_progress=on_progress
        )
        metrics["images"] |= _image_counts(evidence)
        if agnostic := _class_agnostic(evidence):
            metrics["class_agnostic"] = agnostic
        trials = list(fit_trials(evidence, protocols, missing))
        panoptic = count_panoptic(predictions, ground_truth, evidence, trials, on_progress)
        metrics["protocols"] = {protocol.name: {} for protocol in protocols} if trials else {}
        for number, trial in enumerate(trials):
            on_progress(f"score {trial.protocol.name}, clusters named on {trial.fitted_on} images")
            scores, by_class = score_trial(evidence, trial, panoptic[number] if panoptic else None)
            metrics["protocols"][trial.protocol.name][trial.fitted_on] = scores
            place = trial.protocol.name, trial.fitted_on
            class_rows += per_class_rows(*place, evidence.classes, trial.mapping, by_class)
            cluster_rows += mapping_rows(*place, evidence.classes, trial.mapping)
    metrics["statistics"] = statistics.as_dict()
    metrics["not_computed"] = missing
    return EvaluationResult(
        metrics,
        pa.Table.from_pylist(class_rows, schema=PER_CLASS_SCHEMA),
        pa.Table.from_pylist(cluster_rows, schema=MAPPING_SCHEMA),
        statistics,
    )


def class_agnostic_ap(
    results: Iterable[Row], ground_truth: GroundTruth, images_table: pa.Table
) -> dict[str, dict[str, float]]:
    """Box and mask scores of unlabelled masks, such as MaskCut's own: all classes merged into one.

    Args:
        results: COCO result rows; of a mask table by `mask_results`.
        ground_truth: true instances.
        images_table: images to score (IMAGES_SCHEMA); results of others are passed over.

    Returns:
        {"box": {"AP", "AP50", "AP75", "AR100"}, "mask": {...}} in percent; empty when there is
        nothing to find.
    """
    annotated = set(ground_truth.instance_image_ids)
    sizes = {i: size for i, size in image_sizes(images_table).items() if i in annotated}
    truths = [
        row
        for image_id in sizes
        for row in truth_rows(ground_truth, image_id, sizes[image_id]) or ()
    ]
    return _merged_ap([row for row in results if row["image_id"] in sizes], truths, sizes)


def image_sizes(images_table: pa.Table) -> dict[int, tuple[int, int]]:
    """(height, width) by image id."""
    columns = (images_table[name].to_pylist() for name in ("image_id", "height", "width"))
    return {image_id: (height, width) for image_id, height, width in zip(*columns, strict=True)}


def _merged_ap(
    results: Iterable[Row], truths: Iterable[Row], sizes: Mapping[int, tuple[int, int]]
) -> dict[str, dict[str, float]]:
    merged, true = merge_classes(results), merge_classes(truths)
    scores = {kind: average_precision(merged, true, sizes, kind=kind) for kind in ("box", "mask")}
    return {kind: score.as_dict() for kind, score in scores.items() if score is not None}


def _class_agnostic(evidence: Evidence) -> dict[str, dict[str, float]]:
    return _merged_ap(evidence.results, evidence.truths, evidence.sizes)


def _missing_parts(
    predictions: Predictions, ground_truth: GroundTruth | None, image_ids: Sequence[int]
) -> dict[str, str]:
    """Say what cannot be computed, and why."""
    if ground_truth is None:
        return {"all scores": "there is no ground truth; statistics and pictures stand in for them"}
    missing = {}
    if not set(image_ids) & set(ground_truth.instance_image_ids):
        missing["box and mask AP"] = "the ground truth has no instances of these images"
    if not set(image_ids) & set(ground_truth.panoptic_image_ids):
        reason = "the ground truth has no panoptic maps of these images"
        missing |= {"semantic scores": reason, "panoptic quality": reason}
    if not predictions.has_semantic:
        missing["semantic scores"] = "the predictions hold no semantic maps"
    if predictions.panoptic is None:
        missing["panoptic quality"] = "the predictions hold no panoptic maps"
    return missing


def _image_counts(evidence: Evidence) -> dict[str, int]:
    ids = evidence.image_ids()
    mapping = sum(map(in_mapping_half, ids))
    return {
        "scored": len(ids),
        "with_instances": len(evidence.sizes),
        "with_panoptic": len(evidence.panoptic_ids),
        "disjoint_mapping": mapping,
        "disjoint_scored": len(ids) - mapping,
    }
