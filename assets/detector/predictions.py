"""Stage predictions: the trained model run on images."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from assets.data.images import identity_of, read_images
from assets.detector.segmenter import TrainerLauncher
from assets.stages.partitions import CLUSTERINGS
from assets.stages.run import materialise, result
from assets.stages.settings import config_for, resolve_settings
from assets.stages.store import Store, digest_of
from segmodels.detector.settings import PredictionChoices
from segmodels.formats.arrow import rows_in

CODE_VERSION = "1"
PredictionConfig = config_for(PredictionChoices)
# A dataset without a val split is shown, not scored: so many images tell enough.
SHOWN_WITHOUT_VAL = 100


@dg.asset(
    group_name="evaluation",
    deps=["images", "segmenter"],
    partitions_def=CLUSTERINGS.definition,
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
    key = CLUSTERINGS.key_of(context)
    stage = store.stage("predictions", str(key))
    choices = resolve_settings(config, PredictionChoices, stage)
    model = store.stage("segmenter", str(key)).require()
    table = predicted_images(store)

    def compute(folder: Path) -> dict[str, Any]:
        from segmodels.detector.prediction import configured_settings, predict_panoptic
        from segmodels.engine.device import resolve_device

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
