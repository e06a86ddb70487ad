"""Stage evaluation: scores under every protocol, and the report."""

from pathlib import Path
from typing import Any

import dagster as dg

from assets.backbones.dino_features import dino_features
from assets.clusters.instance_clusters import instance_clusters
from assets.data.images import images
from assets.detector.predictions import predicted_images, predictions
from assets.detector.segmenter import segmenter
from assets.evaluation.artifacts import run_artifacts
from assets.labels.pseudo_labels import pseudo_labels
from assets.masks.instance_embeddings import instance_embeddings
from assets.masks.maskcut_masks import maskcut_masks
from assets.masks.thing_masks import thing_masks
from assets.stages.metadata import picture
from assets.stages.partitions import CLUSTERINGS
from assets.stages.stage import NoSettings, Result, StageRun, result, stage
from assets.stuff.stuff_model import stuff_model


@stage(
    group="evaluation",
    inputs=(
        images,
        dino_features,
        maskcut_masks,
        thing_masks,
        instance_embeddings,
        instance_clusters,
        stuff_model,
        pseudo_labels,
        segmenter,
        predictions,
    ),
    version="1",
    partitions=CLUSTERINGS,
    kinds={"arrow"},
)
def evaluation(run: StageRun[NoSettings]) -> Result:
    """Scores under every protocol, and the report; without ground truth, statistics and pictures."""
    upstream = run.inputs()
    run.joined(instance_clusters, thing_masks)
    run.joined(predictions, pseudo_labels)

    def compute(folder: Path) -> dict[str, Any]:
        from segmodels.report.comparisons import comparison_sheet
        from segmodels.report.run_report import evaluate_run, headline_scores

        artifacts = run_artifacts(upstream, predicted_images(upstream["images"]))
        num_things = artifacts.predictions.num_things
        title = f"{run.store.dataset.name}, {num_things} clusters ({run.key})"
        settings = {name: version.settings for name, version in upstream.items()}
        scored = evaluate_run(folder, artifacts, title=title, settings=settings, log=run.log)
        return {
            "headline": headline_scores(scored.metrics),
            "preview": picture(comparison_sheet(artifacts, scored.mapping)).value,
        }

    version = run.materialise(compute, {name: found.digest for name, found in upstream.items()})
    report = version.folder / "report.html"
    run.log(f"report: {report}")
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
