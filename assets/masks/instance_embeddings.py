"""Stage instance_embeddings: one vector per instance, by shard."""

import dagster as dg
import pyarrow as pa

from assets.backbones.weights import Weights, dataset_backbone
from assets.data.images import identity_of, read_images, shards_of
from assets.stages.run import result
from assets.stages.settings import config_for, resolve_settings
from assets.stages.shards import ShardRunner, ShardTask, materialise_shards
from assets.stages.store import Store, digest_of
from segmodels.formats.arrow import column_values, read_table, rows_in
from segmodels.u2seg.embedding_shards import EmbeddingShard, embed_shard
from segmodels.u2seg.embeddings import EmbeddingSettings

CODE_VERSION = "1"
EmbeddingConfig = config_for(EmbeddingSettings)


@dg.asset(
    group_name="masks",
    deps=["thing_masks", "images", "dino_features"],
    code_version=CODE_VERSION,
    kinds={"zarr"},
    pool="gpu",
)
def instance_embeddings(
    context: dg.AssetExecutionContext,
    config: EmbeddingConfig,  # type: ignore[valid-type]
    store: Store,
    weights: Weights,
    shards: ShardRunner,
) -> dg.MaterializeResult[None]:
    """One vector per instance, from the backbone that the features were computed with."""
    stage = store.stage("instance_embeddings")
    settings = resolve_settings(config, EmbeddingSettings, stage)
    backbone = dataset_backbone(store, weights)
    masks = read_table(store.stage("thing_masks").require().folder / "masks.arrow")
    tasks = []
    for shard, rows in shards_of(read_images(store.stage("images").require())).items():
        own = rows_in(masks, "image_id", column_values(rows, "image_id"))
        tasks.append(
            ShardTask(
                shard,
                digest_of(
                    CODE_VERSION, settings, backbone.digest, identity_of(rows), masks_digest(own)
                ),
                embed_shard,
                EmbeddingShard(rows, own, settings, backbone),
            )
        )
    version, computed = materialise_shards(
        stage, tasks, shards, settings=settings, log=context.log.info
    )
    return result(version, {**version.summary["totals"], "shards_computed": computed})


def masks_digest(masks: pa.Table) -> str:
    """Digest of masks and their ids."""
    return digest_of(
        [
            [instance_id, counts.hex()]
            for instance_id, counts in zip(
                column_values(masks, "instance_id"),
                column_values(masks, "rle_counts"),
                strict=True,
            )
        ]
    )
