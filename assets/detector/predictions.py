"""Stage predictions: the segmenter's predictions for images."""

from collections.abc import Callable, Mapping
from pathlib import Path

import dagster as dg
import pyarrow as pa

from assets.data.images import identity_of, read_images
from assets.detector.segmenter import TrainerLauncher
from assets.stages.partitions import CLUSTERINGS
from assets.stages.run import materialise, result
from assets.stages.settings import config_for, resolve_settings
from assets.stages.store import Store, digest_of
from segmodels.detector.settings import PredictionSettings
from segmodels.formats.arrow import rows_in

CODE_VERSION = "1"
PredictionConfig = config_for(PredictionSettings)
# Without a val split nothing is scored; these are enough images for a preview.
PREVIEW_IMAGES = 100


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
    """Panoptic and instance predictions for the val images, or for a preview without a val split."""
    key = CLUSTERINGS.key_of(context)
    stage = store.stage("predictions", str(key))
    settings = resolve_settings(config, PredictionSettings, stage)
    model = store.stage("segmenter", str(key)).require()
    table = predicted_images(store)

    def compute(folder: Path) -> dict[str, int]:
        from segmodels.detector.prediction import predict_panoptic
        from segmodels.engine.device import resolve_device

        return predict_panoptic(
            table,
            model.folder,
            folder,
            settings=settings,
            device=resolve_device(trainer.device),
            on_progress=lambda progress: _report(progress, context.log.info),
        )

    digest = digest_of(CODE_VERSION, settings, model.digest, identity_of(table))
    version = materialise(stage, digest, settings, compute, context.log.info)
    return result(version, version.summary)


def _report(progress: Mapping[str, int], log: Callable[[str], None]) -> None:
    if progress["image"] % 25 == 0 or progress["image"] == progress["total"]:
        log(f"predictions: {progress['image']} of {progress['total']} images")


def predicted_images(store: Store) -> pa.Table:
    """Return the val images, or the first hundred images of a dataset without a val split."""
    table = read_images(store.stage("images").require())
    val = rows_in(table, "split", ["val"])
    return val if val.num_rows else table.slice(0, PREVIEW_IMAGES)
