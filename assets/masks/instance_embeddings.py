"""Stage instance_embeddings: one vector per instance, by shard."""

from functools import partial

import pyarrow as pa

from assets.backbones.dino_features import dino_features
from assets.backbones.weights import Weights, dataset_backbone
from assets.data.images import identity_of, images, read_images, shards_of
from assets.masks.thing_masks import thing_masks
from assets.stages.shards import ShardRunner
from assets.stages.stage import Result, StageRun, Work, result, stage
from assets.stages.store import digest_of
from segmodels.engine.device import uses_gpu
from segmodels.formats.arrow import column_values, read_table, rows_in
from segmodels.u2seg.embedding_shards import EmbeddingShard, embed_shard
from segmodels.u2seg.embeddings import EmbeddingSettings


@stage(
    group="masks",
    inputs=(images, dino_features, thing_masks),
    settings=EmbeddingSettings,
    version="1",
    kinds={"zarr"},
)
def instance_embeddings(
    run: StageRun[EmbeddingSettings], weights: Weights, shards: ShardRunner
) -> Result:
    """One vector per instance, from the backbone that the features were computed with."""
    backbone = dataset_backbone(run.input(dino_features), weights)
    masks = read_table(run.input(thing_masks).folder / "masks.arrow")
    work = {}
    for shard, rows in shards_of(read_images(run.input(images))).items():
        own = rows_in(masks, "image_id", column_values(rows, "image_id"))
        work[shard] = Work(
            EmbeddingShard(rows, own, run.settings, backbone),
            (backbone.digest, identity_of(rows), masks_digest(own)),
        )
    version, computed = run.materialise_shards(
        embed_shard, work, shards, on_gpu=partial(uses_gpu, backbone.device)
    )
    return result(version, {**version.summary["totals"], "shards_computed": computed})


def masks_digest(masks: pa.Table) -> str:
    """Digest of masks and their ids."""
    ids, counts = (column_values(masks, name) for name in ("instance_id", "rle_counts"))
    return digest_of([[one, own.hex()] for one, own in zip(ids, counts, strict=True)])
