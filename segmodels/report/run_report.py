"""Scores one run and writes its results: metrics, tables and the HTML report."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segmodels.evaluation.protocols.evaluate import EvaluationResult, evaluate
from segmodels.formats.arrow import rows_in, write_table
from segmodels.formats.atomic import write_text
from segmodels.formats.masks import decode_masks
from segmodels.pictures.cluster_crops import ClusterCrops, largest_clusters
from segmodels.report.artifacts import ImageReader, RunArtifacts
from segmodels.report.comparisons import (
    PICTURE_PROTOCOL,
    comparisons,
    maskcut_examples,
    named_clusters,
)
from segmodels.report.inputs import NamedCluster, ReportInputs
from segmodels.report.metrics_table import metrics_table
from segmodels.report.page import write_report


def evaluate_run(
    folder: Path,
    artifacts: RunArtifacts,
    *,
    title: str,
    settings: Mapping[str, Mapping[str, object]],
    log: Callable[[str], None],
) -> EvaluationResult:
    """Score a run; write metrics.json, metrics.txt, per_class.arrow, mapping.arrow and report.html.

    Args:
        folder: receives the files.
        artifacts: of the run.
        title: of the report.
        settings: by stage, in the order of the report.
        log: takes sentences about the progress.
    """
    truth, images = artifacts.ground_truth, artifacts.images
    result = evaluate(
        artifacts.predictions, truth, images, maskcut_masks=artifacts.discovered, log=log
    )
    text = metrics_table(result.metrics)
    write_text(folder / "metrics.json", json.dumps(result.metrics, indent=1))
    write_text(folder / "metrics.txt", text)
    write_table(result.per_class, folder / "per_class.arrow")
    write_table(result.mapping, folder / "mapping.arrow")
    named = named_clusters(result.mapping)
    inputs = ReportInputs(
        title=title,
        summary=_summary(artifacts),
        metrics=result.metrics,
        per_class=result.per_class if result.per_class.num_rows else None,
        settings=_flat_settings(settings),
        thing_counts=result.statistics.thing_counts,
        clusters=[
            NamedCluster(crops, named.get(crops.cluster_id, {}).get("class_name"))
            for crops in _largest_clusters(artifacts)
        ],
        comparisons=list(comparisons(artifacts, result.mapping)),
        examples=list(maskcut_examples(artifacts)),
        naming=f"{PICTURE_PROTOCOL}, fitted on the scored images" if named else "",
    )
    write_report(folder / "report.html", inputs)
    log(f"scores of {title}:\n{text}")
    return result


def headline_scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The few scores that Dagster plots over time."""
    scores = {
        f"class_agnostic_{kind}_{name}": values[name]
        for kind, values in metrics.get("class_agnostic", {}).items()
        for name in ("AP50", "AR100")
    }
    paper = metrics.get("protocols", {}).get("u2seg-paper", {}).get("same", {})
    if "panoptic" in paper:
        scores["PQ"] = paper["panoptic"]["all"]["PQ"]
    if "semantic" in paper:
        scores["mIoU"] = paper["semantic"]["mIoU"]
    return scores or {"predictions": metrics["statistics"]["predictions"]}


def _summary(artifacts: RunArtifacts) -> str:
    train = rows_in(artifacts.all_images, "split", ["train"]).num_rows
    learned = f"Learned from {train:,} images without any label"
    if artifacts.ground_truth is not None:
        return f"{learned}; scored on {artifacts.images.num_rows:,} others."
    return f"{learned}. There is no ground truth, so this report shows statistics and pictures."


def _flat_settings(settings: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    return {
        f"{stage}.{name}": value
        for stage, values in settings.items()
        for name, value in values.items()
        # The list of sources can be long.
        if (stage, name) != ("images", "sources")
    }


def _largest_clusters(artifacts: RunArtifacts) -> list[ClusterCrops]:
    columns = ("cluster_id", "image_id", "bbox", "score")
    members = pa.table({name: artifacts.things[name] for name in columns})
    # Clusters are numbered from 0 in the table and from 1 in predictions.
    members = members.set_column(0, "cluster_id", pc.add(members["cluster_id"], 1))
    return largest_clusters(
        members,
        ImageReader(artifacts.all_images),
        lambda row: decode_masks(artifacts.things.slice(row, 1))[0],
    )
