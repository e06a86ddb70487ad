"""Stage stuff_features: the tokens that STEGO learns from, by shard."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from assets.backbones.weights import Weights, stuff_backbone
from assets.data.images import identity_of, shards_of, train_images
from assets.stages.run import result
from assets.stages.settings import config_for, resolve_settings
from assets.stages.shards import ShardRunner, ShardTask, finished_shards, materialise_shards
from assets.stages.store import Store, Version, digest_of

CODE_VERSION = "1"


@dataclass(frozen=True)
class StuffFeatureSettings:
    """STEGO's training views.

    Attributes:
        size: side of each view, px; a multiple of the patch size.
    """

    size: int = 224


StuffFeatureConfig = config_for(StuffFeatureSettings, size="Side of each view, px.")


@dg.asset(
    group_name="stuff",
    deps=["images", "dino_features"],
    code_version=CODE_VERSION,
    kinds={"zarr"},
    pool="gpu",
)
def stuff_features(
    context: dg.AssetExecutionContext,
    config: StuffFeatureConfig,  # type: ignore[valid-type]
    store: Store,
    weights: Weights,
    shards: ShardRunner,
) -> dg.MaterializeResult[None]:
    """Final-norm tokens of each training image and of its five crops."""
    from segmodels.stego.features import ViewSettings
    from segmodels.stego.shards import StuffFeatureShard, stuff_feature_shard

    stage = store.stage("stuff_features")
    settings = resolve_settings(config, StuffFeatureSettings, stage)
    backbone = stuff_backbone(store, weights, context.log.info)
    tasks = [
        ShardTask(
            shard,
            digest_of(CODE_VERSION, settings, backbone.digest, identity_of(rows)),
            stuff_feature_shard,
            StuffFeatureShard(rows, ViewSettings(size=settings.size), backbone),
        )
        for shard, rows in shards_of(train_images(store)).items()
    ]
    version, computed = materialise_shards(
        stage, tasks, shards, settings=settings, log=context.log.info
    )
    table = _write_neighbours(stage.path, version)
    return result(
        version,
        {
            **version.summary["totals"],
            "shards_computed": computed,
            "neighbours": dg.MetadataValue.path(str(table)),
        },
    )


def neighbours_folder(stage_path: Path, version: Version) -> Path:
    return stage_path / f"neighbours-{version.digest}.zarr"


def _write_neighbours(stage_path: Path, version: Version) -> Path:
    """Write the k-NN table of all views, unless it is there; it needs every shard."""
    from segmodels.stego.shards import StoredViews, write_neighbours

    folder = neighbours_folder(stage_path, version)
    if not folder.exists():
        temporary = stage_path / f".tmp-{folder.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        write_neighbours(StoredViews(finished_shards(version).in_order), temporary)
        temporary.rename(folder)
    for other in stage_path.glob("neighbours-*.zarr"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder
