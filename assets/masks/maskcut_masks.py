"""Stage maskcut_masks: MaskCut and dense CRF, by shard."""

from assets.backbones.dino_features import dino_features
from assets.backbones.weights import maskcut_advice
from assets.data.images import images, read_images, shards_of
from assets.stages.metadata import area_histogram, mask_sheet, table_metadata
from assets.stages.shards import ShardRunner, finished_shards
from assets.stages.stage import Result, StageRun, Work, result, stage
from kernels.backend import resolve_backend
from segmodels.cutler.maskcut_shards import MaskCutShard, MaskCutStageSettings, maskcut_shard


@stage(
    group="masks",
    inputs=(images, dino_features),
    settings=MaskCutStageSettings,
    version="2",
    kinds={"arrow"},
)
def maskcut_masks(run: StageRun[MaskCutStageSettings], shards: ShardRunner) -> Result:
    """Masks by MaskCut, refined by the dense CRF, at each image's own size."""
    stored = run.input(dino_features)
    settings = run.settings.with_advice(maskcut_advice(stored))
    table = read_images(run.input(images))
    features = finished_shards(stored)
    rows_of = shards_of(table)
    features.require(rows_of, "dino_features")
    work = {
        shard: Work(
            MaskCutShard(rows, features.folders[shard], settings),
            (settings, features.digests[shard]),
        )
        for shard, rows in rows_of.items()
    }
    version, computed = run.materialise_shards(
        maskcut_shard, work, shards, on_gpu=lambda: resolve_backend(settings.backend) == "gpu"
    )
    masks = finished_shards(version).table("masks.arrow")
    return result(
        version,
        {
            **table_metadata(masks),
            **version.summary["totals"],
            "shards_computed": computed,
            "areas": area_histogram(masks),
            "preview": mask_sheet(table, masks),
        },
    )
