"""Stage stuff_segments: the stuff cluster of every pixel, by shard."""

from dataclasses import asdict, dataclass

import dagster as dg

from assets.backbones.weights import Weights, stuff_backbone
from assets.data.images import identity_of, shards_of, train_images
from assets.stages.metadata import stuff_sheet, table_metadata
from assets.stages.run import result
from assets.stages.settings import config_for, resolve_settings
from assets.stages.shards import ShardRunner, ShardTask, finished_shards, materialise_shards
from assets.stages.store import Store, digest_of

CODE_VERSION = "1"


@dataclass(frozen=True)
class StuffSegmentSettings:
    """How images are segmented; see `segmodels.stego.segmentation.SegmentationSettings`.

    Attributes:
        size: short side that images are segmented at, px.
        crf: refine with the dense CRF.
    """

    size: int = 320
    crf: bool = True


StuffSegmentConfig = config_for(StuffSegmentSettings)


@dg.asset(
    group_name="stuff",
    deps=["images", "dino_features", "stuff_model"],
    code_version=CODE_VERSION,
    kinds={"arrow"},
    pool="gpu",
)
def stuff_segments(
    context: dg.AssetExecutionContext,
    config: StuffSegmentConfig,  # type: ignore[valid-type]
    store: Store,
    weights: Weights,
    shards: ShardRunner,
) -> dg.MaterializeResult[None]:
    """The stuff cluster of every pixel of the training images, as mask rows."""
    from segmodels.stego.segmentation import SegmentationSettings
    from segmodels.stego.shards import StuffSegmentShard, stuff_segment_shard

    stage = store.stage("stuff_segments")
    settings = resolve_settings(config, StuffSegmentSettings, stage)
    backbone = stuff_backbone(store, weights, context.log.info)
    model = store.stage("stuff_model").require()
    table = train_images(store)
    tasks = [
        ShardTask(
            shard,
            digest_of(CODE_VERSION, settings, backbone.digest, model.digest, identity_of(rows)),
            stuff_segment_shard,
            StuffSegmentShard(
                rows,
                model.folder / "stego.safetensors",
                SegmentationSettings(**asdict(settings)),
                backbone,
            ),
        )
        for shard, rows in shards_of(table).items()
    ]
    version, computed = materialise_shards(
        stage, tasks, shards, settings=settings, log=context.log.info
    )
    segments = finished_shards(version).table("segments.arrow")
    return result(
        version,
        {
            **table_metadata(segments),
            "shards_computed": computed,
            "clusters_in_use": len(set(segments["cluster_id"].to_pylist())),
            "preview": stuff_sheet(table, segments),
        },
    )
