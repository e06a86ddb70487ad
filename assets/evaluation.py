"""Stages predictions and evaluation: run the model on images, score it, write the report."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa

from assets.config import config_for, resolve_settings
from assets.images import dataset_sources, identity_of, read_images
from assets.metadata import picture
from assets.partitions import CLUSTERINGS, clustering_of
from assets.sharding import finished_shards
from assets.stage_run import materialise, result
from assets.store import Store, Version, digest_of, write_atomically
from assets.training import TrainerLauncher
from segmodels.formats.arrow import read_table, rows_in, write_table
from segmodels.formats.errors import InputError
from segmodels.u2seg.detector_settings import PredictionChoices

if TYPE_CHECKING:
    from segmodels.evaluation.run_report import RunPlaces

CODE_VERSION = "1"
PredictionConfig = config_for(PredictionChoices)
# A dataset without a val split is shown, not scored: so many images tell enough.
SHOWN_WITHOUT_VAL = 100
STAGES = (
    "images",
    "dino_features",
    "maskcut_masks",
    "thing_masks",
    "instance_embeddings",
    "instance_clusters",
    "stuff_model",
    "pseudo_labels",
    "segmenter",
    "predictions",
)


@dg.asset(
    group_name="evaluation",
    deps=["images", "segmenter"],
    partitions_def=CLUSTERINGS,
    code_version=CODE_VERSION,
    kinds={"pytorch"},
    pool="gpu",
)
def predictions(
    context: dg.AssetExecutionContext,
    config: PredictionConfig,  # type: ignore[valid-type]
    store: Store,
    trainer: TrainerLauncher,
) -> dg.MaterializeResult[None]:
    """Panoptic and instance predictions on the val images, or on some where there is no val."""
    key = clustering_of(context)
    stage = store.stage("predictions", str(key))
    choices = resolve_settings(config, PredictionChoices, stage)
    model = store.stage("segmenter", str(key)).require()
    table = predicted_images(store)

    def compute(folder: Path) -> dict[str, Any]:
        from segmodels.device import resolve_device
        from segmodels.u2seg.prediction import configured_settings, predict_panoptic

        predict_panoptic(
            table,
            model.folder,
            folder,
            settings=choices.over(configured_settings(model.folder)),
            device=resolve_device(trainer.device),
            on_progress=lambda progress: _report(progress, context.log.info),
        )
        return {
            "images": table.num_rows,
            "instances": len(json.loads((folder / "instances.json").read_bytes())),
        }

    digest = digest_of(CODE_VERSION, choices, model.digest, identity_of(table))
    version = materialise(stage, digest, choices, compute, context.log.info)
    return result(version, version.summary)


def _report(progress: Mapping[str, int], log: Callable[[str], None]) -> None:
    if progress["image"] % 25 == 0 or progress["image"] == progress["total"]:
        log(f"predictions: {progress['image']} of {progress['total']} images")


def predicted_images(store: Store) -> pa.Table:
    """The val images; of a dataset without a val split, its first hundred images."""
    table = read_images(store.stage("images").require())
    val = rows_in(table, "split", ["val"])
    return val if val.num_rows else table.slice(0, SHOWN_WITHOUT_VAL)


@dataclass(frozen=True)
class EvaluationSettings:
    """The evaluation has no settings: every protocol is always computed."""


@dg.asset(
    group_name="evaluation",
    deps=[
        "images",
        "maskcut_masks",
        "thing_masks",
        "instance_clusters",
        "pseudo_labels",
        "predictions",
    ],
    partitions_def=CLUSTERINGS,
    code_version=CODE_VERSION,
    kinds={"arrow"},
)
def evaluation(context: dg.AssetExecutionContext, store: Store) -> dg.MaterializeResult[None]:
    """Scores under every protocol, and the report; without ground truth, statistics and pictures."""
    key = str(clustering_of(context))
    stage = store.stage("evaluation", key)
    upstream = upstream_versions(store, key)

    def compute(folder: Path) -> dict[str, Any]:
        return _evaluate(folder, store, key, upstream, context.log.info)

    digest = digest_of(CODE_VERSION, {name: found.digest for name, found in upstream.items()})
    try:
        version = materialise(stage, digest, EvaluationSettings(), compute, context.log.info)
    except InputError as error:
        raise dg.Failure(str(error)) from error
    report = version.folder / "report.html"
    context.log.info(f"report: {report}")
    table = (version.folder / "metrics.txt").read_text()
    return result(
        version,
        {
            "report": dg.MetadataValue.path(str(report)),
            "metrics": dg.MetadataValue.md(f"```\n{table}\n```"),
            **version.summary["headline"],
            "preview": dg.MetadataValue.md(version.summary["preview"]),
        },
    )


def upstream_versions(store: Store, key: str) -> dict[str, Version]:
    """The current version of every stage that a clustering's scores rest on."""
    return {
        name: store.stage(name, key).current() or store.stage(name).require() for name in STAGES
    }


def _evaluate(
    folder: Path,
    store: Store,
    key: str,
    upstream: dict[str, Version],
    log: Callable[[str], None],
) -> dict[str, Any]:
    from segmodels.evaluation.evaluate import evaluate
    from segmodels.evaluation.maskcut_baseline import add_maskcut_baseline
    from segmodels.evaluation.metrics_table import metrics_table
    from segmodels.evaluation.run_report import comparison_sheet, write_run_report

    table = predicted_images(store)
    places = run_places(upstream, table)
    truth = places.ground_truth
    num_things, num_stuff = places.predictions.num_things, places.predictions.num_stuff
    outcome = evaluate(
        upstream["predictions"].folder, truth, table, num_things, num_stuff, on_progress=log
    )
    if truth is not None:
        add_maskcut_baseline(outcome.metrics, places.discovered, truth, table)
    write_atomically(folder / "metrics.json", json.dumps(outcome.metrics, indent=1))
    text = metrics_table(outcome.metrics)
    write_atomically(folder / "metrics.txt", text)
    write_table(outcome.per_class, folder / "per_class.arrow")
    write_table(outcome.mapping, folder / "mapping.arrow")
    write_run_report(
        folder / "report.html",
        places,
        outcome,
        title=f"{store.dataset.name}, {num_things} clusters ({key})",
        summary=_summary(upstream["images"], table, scored=truth is not None),
        settings=_flat_settings(upstream),
    )
    log(f"scores of {store.dataset.name}, {key}:\n{text}")
    return {
        "headline": _headline(outcome.metrics),
        "preview": picture(comparison_sheet(places, outcome.mapping)).value,
    }


def run_places(upstream: Mapping[str, Version], table: pa.Table) -> "RunPlaces":
    """What a run left behind, narrowed to the images of a table."""
    from segmodels.evaluation.predictions import Predictions
    from segmodels.evaluation.run_report import RunPlaces
    from segmodels.u2seg.label_export import with_clusters

    labels = upstream["pseudo_labels"].summary
    return RunPlaces(
        images=table,
        all_images=read_images(upstream["images"]),
        things=with_clusters(
            read_table(upstream["thing_masks"].folder / "masks.arrow"),
            read_table(upstream["instance_clusters"].folder / "clusters.arrow"),
        ),
        discovered=finished_shards(upstream["maskcut_masks"]).table("masks.arrow"),
        predictions=Predictions(
            upstream["predictions"].folder, labels["num_things"], labels["num_stuff"]
        ),
        ground_truth=dataset_sources(upstream["images"]).ground_truth(table),
    )


def _summary(images: Version, table: pa.Table, *, scored: bool) -> str:
    counts = images.summary
    learned = f"Learned from {counts['train']:,} photographs without any label"
    if scored:
        return f"{learned}; scored on {table.num_rows:,} others."
    return f"{learned}. There is no ground truth, so this report shows statistics and pictures."


def _headline(metrics: dict[str, Any]) -> dict[str, float]:
    """The few numbers that the UI plots over time."""
    agnostic = metrics.get("class_agnostic", {})
    numbers = {
        f"class_agnostic_{kind}_{name}": scores[name]
        for kind, scores in agnostic.items()
        for name in ("AP50", "AR100")
    }
    paper = metrics.get("protocols", {}).get("u2seg-paper", {}).get("same", {})
    if "panoptic" in paper:
        numbers["PQ"] = paper["panoptic"]["all"]["PQ"]
    if "semantic" in paper:
        numbers["mIoU"] = paper["semantic"]["mIoU"]
    return numbers or {"predictions": metrics["statistics"]["predictions"]}


def _flat_settings(upstream: dict[str, Version]) -> dict[str, object]:
    return {
        f"{stage}.{name}": value
        for stage, version in upstream.items()
        for name, value in version.settings.items()
        if stage != "images" or name != "sources"
    }
