"""Stage predictions: the segmenter's predictions for images."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa

from assets.data.images import identity_of, images, read_images
from assets.detector.segmenter import TrainerLauncher, segmenter
from assets.stages.partitions import CLUSTERINGS
from assets.stages.stage import Result, StageRun, result, stage
from assets.stages.store import Version
from segmodels.detector.settings import PredictionSettings
from segmodels.engine.device import resolve_device, uses_gpu
from segmodels.formats.arrow import rows_in

# Without a val split nothing is scored; these are enough images for a preview.
PREVIEW_IMAGES = 100


@stage(
    group="evaluation",
    inputs=(images, segmenter),
    settings=PredictionSettings,
    version="1",
    partitions=CLUSTERINGS,
    kinds={"pytorch"},
)
def predictions(run: StageRun[PredictionSettings], trainer: TrainerLauncher) -> Result:
    """Panoptic and instance predictions for the val images, or for a preview without a val split."""
    model, table = run.input(segmenter), predicted_images(run.input(images))

    def report(progress: Mapping[str, float]) -> None:
        if progress["image"] % 25 == 0 or progress["image"] == progress["total"]:
            run.log(f"predictions: {progress['image']} of {progress['total']} images")

    def compute(folder: Path) -> dict[str, int]:
        from segmodels.detector.prediction import predict_panoptic

        return predict_panoptic(
            table,
            model.folder,
            folder,
            settings=run.settings,
            device=resolve_device(trainer.device),
            on_progress=report,
        )

    version = run.materialise(
        compute, model.digest, identity_of(table), on_gpu=partial(uses_gpu, trainer.device)
    )
    return result(version, version.summary)


def predicted_images(version: Version) -> pa.Table:
    """Return the val images, or the first hundred images of a dataset without a val split."""
    table = read_images(version)
    val = rows_in(table, "split", ["val"])
    return val if val.num_rows else table.slice(0, PREVIEW_IMAGES)
