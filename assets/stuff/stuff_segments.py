"""Stage stuff_segments: the stuff cluster of every pixel, by shard."""

from functools import partial

from assets.backbones.dino_features import dino_features
from assets.backbones.weights import Weights, stuff_backbone
from assets.data.images import identity_of, images, shards_of, train_images
from assets.stages.metadata import stuff_sheet, table_metadata
from assets.stages.shards import ShardRunner, finished_shards
from assets.stages.stage import Result, StageRun, Work, result, stage
from assets.stuff.stuff_model import stuff_model
from segmodels.engine.device import uses_gpu
from segmodels.stego.settings import SegmentationSettings


@stage(
    group="stuff",
    inputs=(images, dino_features, stuff_model),
    settings=SegmentationSettings,
    version="2",
    kinds={"arrow"},
)
def stuff_segments(
    run: StageRun[SegmentationSettings], weights: Weights, shards: ShardRunner
) -> Result:
    """The stuff cluster of every pixel of the training images, as mask rows."""
    from segmodels.stego.shards import StuffSegmentShard, stuff_segment_shard

    backbone = stuff_backbone(run.input(dino_features), weights, run.log)
    model, table = run.input(stuff_model), train_images(run.input(images))
    file = model.folder / "stego.safetensors"
    work = {
        shard: Work(
            StuffSegmentShard(rows, file, run.settings, backbone),
            (backbone.digest, model.digest, identity_of(rows)),
        )
        for shard, rows in shards_of(table).items()
    }
    version, computed = run.materialise_shards(
        stuff_segment_shard, work, shards, on_gpu=partial(uses_gpu, backbone.device)
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
