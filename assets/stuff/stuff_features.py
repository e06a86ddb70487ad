"""Stage stuff_features: STEGO's training views as backbone tokens, by shard."""

from functools import partial
from pathlib import Path

import dagster as dg

from assets.backbones.dino_features import dino_features
from assets.backbones.weights import Weights, stuff_backbone
from assets.data.images import identity_of, images, shards_of, train_images
from assets.stages.shards import ShardRunner, ShardSet, reduced_folder
from assets.stages.stage import Result, StageRun, Work, result, stage
from segmodels.engine.device import uses_gpu
from segmodels.stego.settings import ViewSettings

NEIGHBOURS = "neighbours.zarr"


@stage(
    group="stuff",
    inputs=(images, dino_features),
    settings=ViewSettings,
    described={"size": "Side of each view, px."},
    version="1",
    kinds={"zarr"},
)
def stuff_features(run: StageRun[ViewSettings], weights: Weights, shards: ShardRunner) -> Result:
    """Final-norm tokens of each training image and its five crops, and the k-NN table of all views."""
    from segmodels.stego.shards import StuffFeatureShard, stuff_feature_shard

    backbone = stuff_backbone(run.input(dino_features), weights, run.log)
    work = {
        shard: Work(
            StuffFeatureShard(rows, run.settings, backbone), (backbone.digest, identity_of(rows))
        )
        for shard, rows in shards_of(train_images(run.input(images))).items()
    }
    version, computed = run.materialise_shards(
        stuff_feature_shard,
        work,
        shards,
        reduce=_write_neighbours,
        on_gpu=partial(uses_gpu, backbone.device),
    )
    return result(
        version,
        {
            **version.summary["totals"],
            "shards_computed": computed,
            "neighbours": dg.MetadataValue.path(str(reduced_folder(version) / NEIGHBOURS)),
        },
    )


def _write_neighbours(shards: ShardSet, folder: Path) -> None:
    from segmodels.stego.shards import StoredViews, write_neighbours

    write_neighbours(StoredViews(shards.in_order), folder / NEIGHBOURS)
