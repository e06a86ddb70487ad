"""Stage dino_features: keys and CLS of every image, by shard."""

from dataclasses import asdict, replace

import dagster as dg

from assets.backbones.weights import Weights
from assets.data.images import identity_of, read_images, shards_of
from assets.stages.run import result
from assets.stages.settings import config_for, resolve_settings
from assets.stages.shards import ShardRunner, ShardTask, finished_shards, materialise_shards
from assets.stages.store import Store, digest_of
from segmodels.backbones.feature_shards import (
    FeatureSettings,
    FeatureShard,
    extract_shard,
    open_features,
)

CODE_VERSION = "1"
FeatureConfig = config_for(
    FeatureSettings,
    backbone="embedded, dino_vits16, dino_vits8, dino_vitb16, dino_vitb8, dinov2_vitb14 and others "
    "(docs/backbone.md), or a path; with @sha256:<digest> after it, only that file is accepted.",
    image_size="Side of the square that images are resized to, px; 0: the weights' own.",
)


@dg.asset(
    group_name="features", deps=["images"], code_version=CODE_VERSION, kinds={"zarr"}, pool="gpu"
)
def dino_features(
    context: dg.AssetExecutionContext,
    config: FeatureConfig,  # type: ignore[valid-type]
    store: Store,
    weights: Weights,
    shards: ShardRunner,
) -> dg.MaterializeResult[None]:
    """Last-block keys (float16) and CLS (float32) of every image."""
    stage = store.stage("dino_features")
    settings = resolve_settings(config, FeatureSettings, stage)
    backbone = weights.load(weights.ref(settings.backbone), context.log.info)
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
    table = read_images(store.stage("images").require())
    tasks = [
        ShardTask(
            shard,
            digest_of(CODE_VERSION, settings, described, identity_of(rows)),
            extract_shard,
            FeatureShard(rows, settings, ref),
        )
        for shard, rows in shards_of(table).items()
    ]
    version, computed = materialise_shards(
        stage,
        tasks,
        shards,
        settings=settings,
        log=context.log.info,
        facts={"backbone": described},
    )
    first = open_features(finished_shards(version).in_order[0])
    return result(
        version,
        {
            "images": version.summary["totals"]["images"],
            "shards": len(tasks),
            "shards_computed": computed,
            "keys_shape": str(first.keys.shape[1:]),
            "backbone_sha256": described["digest"],
        },
    )
