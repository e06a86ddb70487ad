"""Stage maskcut_masks: MaskCut and dense CRF, by shard."""

import dagster as dg

from assets.backbones.weights import maskcut_advice
from assets.data.images import read_images, shards_of
from assets.stages.metadata import area_histogram, mask_sheet, table_metadata
from assets.stages.run import result
from assets.stages.settings import config_for, resolve_settings
from assets.stages.shards import ShardRunner, ShardTask, finished_shards, materialise_shards
from assets.stages.store import Store, digest_of
from segmodels.cutler.maskcut_shards import MaskCutShard, MaskCutStageSettings, maskcut_shard

CODE_VERSION = "1"
MaskCutConfig = config_for(MaskCutStageSettings)


@dg.asset(
    group_name="masks",
    deps=["images", "dino_features"],
    code_version=CODE_VERSION,
    kinds={"arrow"},
)
def maskcut_masks(
    context: dg.AssetExecutionContext,
    config: MaskCutConfig,  # type: ignore[valid-type]
    store: Store,
    shards: ShardRunner,
) -> dg.MaterializeResult[None]:
    """Masks by MaskCut, refined by the dense CRF, at each image's own size."""
    stage = store.stage("maskcut_masks")
    chosen = resolve_settings(config, MaskCutStageSettings, stage)
    settings = chosen.with_advice(maskcut_advice(store))
    table = read_images(store.stage("images").require())
    work = shards_of(table)
    features = finished_shards(store.stage("dino_features").require())
    features.require(work, "dino_features")
    tasks = [
        ShardTask(
            shard,
            digest_of(CODE_VERSION, settings, features.digests[shard]),
            maskcut_shard,
            MaskCutShard(rows, features.folders[shard], settings),
        )
        for shard, rows in work.items()
    ]
    version, computed = materialise_shards(
        stage, tasks, shards, settings=chosen, log=context.log.info
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
