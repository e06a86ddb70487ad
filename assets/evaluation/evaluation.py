"""Stage evaluation: scores under every protocol, and the report."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa

from assets.data.images import dataset_sources, read_images
from assets.detector.predictions import predicted_images
from assets.stages.metadata import picture
from assets.stages.partitions import CLUSTERINGS
from assets.stages.run import materialise, result
from assets.stages.shards import finished_shards
from assets.stages.store import Store, Version, digest_of, write_atomically
from segmodels.formats.arrow import read_table, write_table
from segmodels.formats.errors import InputError

if TYPE_CHECKING:
    from segmodels.report.run_report import RunPlaces

CODE_VERSION = "1"
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
    partitions_def=CLUSTERINGS.definition,
    code_version=CODE_VERSION,
    kinds={"arrow"},
)
def evaluation(context: dg.AssetExecutionContext, store: Store) -> dg.MaterializeResult[None]:
    """Scores under every protocol, and the report; without ground truth, statistics and pictures."""
    key = str(CLUSTERINGS.key_of(context))
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
    from segmodels.evaluation.maskcut_baseline import add_maskcut_baseline
    from segmodels.evaluation.protocols.evaluate import evaluate
    from segmodels.report.metrics_table import metrics_table
    from segmodels.report.run_report import comparison_sheet, write_run_report

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
    from segmodels.report.run_report import RunPlaces
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
