"""Stage instance_embeddings: one vector per instance, by shard."""

from functools import partial

from assets.backbones.dino_features import dino_features
from assets.backbones.weights import Weights, dataset_backbone
from assets.data.images import identity_of, images, shards_of, train_images
from assets.masks.thing_masks import thing_masks
from assets.stages.shards import ShardRunner, finished_shards
from assets.stages.stage import Result, StageRun, Work, result, stage
from segmodels.backbones.file_digests import file_sha256
from segmodels.engine.device import uses_gpu
from segmodels.u2seg.embedding_shards import EmbeddingShard, embed_shard
from segmodels.u2seg.embeddings import EmbeddingSettings


@stage(
    group="masks",
    inputs=(images, dino_features, thing_masks),
    settings=EmbeddingSettings,
    version="2",
    kinds={"zarr"},
)
def instance_embeddings(
    run: StageRun[EmbeddingSettings], weights: Weights, shards: ShardRunner
) -> Result:
    """One vector per instance, from the backbone that the features were computed with."""
    backbone = dataset_backbone(run.input(dino_features), weights)
    things = finished_shards(run.input(thing_masks))
    rows_of = shards_of(train_images(run.input(images)))
    things.require(rows_of, "thing_masks")
    work = {}
    for shard, rows in rows_of.items():
        masks = things.folders[shard] / "masks.arrow"
        work[shard] = Work(
            EmbeddingShard(rows, masks, run.settings, backbone),
            # By content: filters that keep the same masks leave the embeddings valid.
            (backbone.digest, identity_of(rows), file_sha256(masks)),
        )
    version, computed = run.materialise_shards(
        embed_shard, work, shards, on_gpu=partial(uses_gpu, backbone.device)
    )
    return result(version, {**version.summary["totals"], "shards_computed": computed})
