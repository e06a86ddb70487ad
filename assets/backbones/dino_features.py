"""Stage dino_features: keys and CLS of every image, by shard."""

from dataclasses import asdict, replace
from functools import partial

import dagster as dg

from assets.backbones.weights import Weights
from assets.data.images import identity_of, images, read_images, shards_of
from assets.stages.shards import ShardRunner, finished_shards
from assets.stages.stage import Result, StageRun, Work, result, stage
from segmodels.backbones.feature_shards import (
    FeatureSettings,
    FeatureShard,
    extract_shard,
    open_features,
)
from segmodels.engine.device import uses_gpu


@stage(
    group="features",
    inputs=(images,),
    settings=FeatureSettings,
    described={
        "backbone": "embedded, dino_vits16, dino_vits8, dino_vitb16, dino_vitb8, dinov2_vitb14 and "
        "others (docs/backbone.md), or a path; with @sha256:<digest> after it, only that file is "
        "accepted.",
        "image_size": "Side of the square that images are resized to, px; 0: the weights' own.",
    },
    version="1",
    kinds={"zarr"},
)
def dino_features(run: StageRun[FeatureSettings], weights: Weights, shards: ShardRunner) -> Result:
    """Last-block keys (float16) and CLS (float32) of every image."""
    settings = run.settings
    backbone = weights.load(weights.ref(settings.backbone), run.log)
    image_size = settings.image_size or backbone.image_size
    if image_size % backbone.patch_size:
        raise dg.Failure(
            f"image_size must be a multiple of the patch size {backbone.patch_size}, got {image_size}"
        )
    described = {
        "digest": backbone.digest,
        **asdict(replace(backbone.advice, image_size=image_size)),
    }
    ref = weights.ref(settings.backbone, settings.device, backbone.digest)
    work = {
        shard: Work(FeatureShard(rows, settings, ref), (described, identity_of(rows)))
        for shard, rows in shards_of(read_images(run.input(images))).items()
    }
    version, computed = run.materialise_shards(
        extract_shard,
        work,
        shards,
        facts={"backbone": described},
        on_gpu=partial(uses_gpu, settings.device),
    )
    first = open_features(finished_shards(version).in_order[0])
    return result(
        version,
        {
            "images": version.summary["totals"]["images"],
            "shards": len(work),
            "shards_computed": computed,
            "keys_shape": str(first.keys.shape[1:]),
            "backbone_sha256": described["digest"],
        },
    )
