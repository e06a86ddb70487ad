"""Stages predictions and evaluation: run the model on images, score it, write the report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
from segmodels.u2seg.prediction_settings import PredictionSettings

from assets.config import config_for, resolve_settings
from assets.images import identity_of, read_images
from assets.metadata import prediction_sheet
from assets.partitions import CLUSTERINGS, clustering_of
from assets.stage_run import materialise, result
from assets.store import Store, digest_of
from assets.training import TrainerLauncher

CODE_VERSION = "1"
PredictionConfig = config_for(PredictionSettings)


@dataclass(frozen=True)
class EvaluationSettings:
    """What is scored.

    Attributes:
        unscored_images: without ground truth, at most so many images are predicted and shown.
    """

    unscored_images: int = 100


EvaluationConfig = config_for(EvaluationSettings)


@dg.asset(
    group_name="evaluation",
    deps=["images", "segmenter", "pseudo_labels"],
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
    """Panoptic and instance predictions on the val images, or on all where there are none."""
    key = clustering_of(context)
    stage = store.stage("predictions", str(key))
    settings = resolve_settings(config, PredictionSettings, stage)
    model = store.stage("segmenter", str(key)).require()
    table = scored_images(store)

    def compute(folder: Path) -> dict[str, Any]:
        from segmodels.u2seg.prediction import predict_panoptic

        return dict(
            predict_panoptic(
                table,
                model.folder,
                folder,
                settings,
                device=trainer.device,
                on_progress=context.log.info,
            )
        )

    digest = digest_of(CODE_VERSION, settings, model.digest, identity_of(table))
    version = materialise(stage, digest, settings, compute, context.log.info)
    return result(version, {**version.summary, "preview": prediction_sheet(table, version.folder)})


def scored_images(store: Store) -> pa.Table:
    """The val images; a dataset without a val split shows its first hundred images."""
    table = read_images(store.stage("images").require())
    val = table.filter(pa.compute.equal(table["split"], "val"))
    return val if val.num_rows else table.slice(0, 100)
