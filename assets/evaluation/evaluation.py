"""Stage evaluation: scores under every protocol, and the report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from assets.detector.predictions import predicted_images
from assets.evaluation.artifacts import STAGES, run_artifacts, upstream_versions
from assets.stages.metadata import picture
from assets.stages.partitions import CLUSTERINGS
from assets.stages.run import materialise, result
from assets.stages.store import Store, digest_of
from segmodels.formats.errors import InputError

CODE_VERSION = "1"


@dataclass(frozen=True)
class EvaluationSettings:
    """The evaluation has no settings: every protocol is always computed."""


@dg.asset(
    group_name="evaluation",
    deps=STAGES,
    partitions_def=CLUSTERINGS.definition,
    code_version=CODE_VERSION,
    kinds={"arrow"},
)
def evaluation(context: dg.AssetExecutionContext, store: Store) -> dg.MaterializeResult[None]:
    """Scores under every protocol, and the report; without ground truth, statistics and pictures."""
    key, log = str(CLUSTERINGS.key_of(context)), context.log.info
    upstream = upstream_versions(store, key)

    def compute(folder: Path) -> dict[str, Any]:
        from segmodels.report.comparisons import comparison_sheet
        from segmodels.report.run_report import evaluate_run, headline_scores

        artifacts = run_artifacts(upstream, predicted_images(store))
        title = f"{store.dataset.name}, {artifacts.predictions.num_things} clusters ({key})"
        settings = {name: version.settings for name, version in upstream.items()}
        scored = evaluate_run(folder, artifacts, title=title, settings=settings, log=log)
        return {
            "headline": headline_scores(scored.metrics),
            "preview": picture(comparison_sheet(artifacts, scored.mapping)).value,
        }

    digest = digest_of(CODE_VERSION, {name: found.digest for name, found in upstream.items()})
    stage = store.stage("evaluation", key)
    try:
        version = materialise(stage, digest, EvaluationSettings(), compute, log)
    except InputError as error:
        raise dg.Failure(str(error)) from error
    report = version.folder / "report.html"
    log(f"report: {report}")
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
