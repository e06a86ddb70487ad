"""Stages stuff_features, stuff_model and stuff_segments: STEGO without labels."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from assets.config import config_for, resolve_settings
from assets.features import Weights, backbone_choice, stuff_backbone_choice
from assets.images import identity_of, shards_of, train_images
from assets.metadata import curve, stuff_sheet, table_metadata
from assets.sharding import ShardRunner, ShardTask, finished_shards, materialise_shards
from assets.stage_run import materialise, result
from assets.store import Store, Version, digest_of

CODE_VERSION = "1"


@dataclass(frozen=True)
class StuffFeatureSettings:
    """STEGO's training views.

    Attributes:
        size: side of each view, px; a multiple of the patch size.
    """

    size: int = 224


@dataclass(frozen=True)
class StuffModelSettings:
    """Training of the STEGO head.

    Attributes:
        steps: optimiser steps.
        batch_size: views a step.
        num_clusters: stuff clusters S.
        loss: a preset of segmodels.stego.presets, or "auto" by the backbone.
        seed: of weights, batches and points.
    """

    steps: int = 5000
    batch_size: int = 16
    num_clusters: int = 27
    loss: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class StuffSegmentSettings:
    """How images are cut into stuff.

    Attributes:
        size: short side that images are segmented at, px.
        crf: refine with the dense CRF.
    """

    size: int = 320
    crf: bool = True


StuffFeatureConfig = config_for(StuffFeatureSettings, size="Side of each view, px.")
StuffModelConfig = config_for(StuffModelSettings, num_clusters="Stuff clusters S.")
StuffSegmentConfig = config_for(StuffSegmentSettings)


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
    from segmodels.stego.features import FeatureSettings
    from segmodels.stego.shards import StuffFeatureShard, stuff_feature_shard

    stage = store.stage("stuff_features")
    settings = resolve_settings(config, StuffFeatureSettings, stage)
    backbone = stuff_backbone_choice(store, weights, context.log.info)
    tasks = [
        ShardTask(
            shard,
            digest_of(CODE_VERSION, settings, backbone.digest, identity_of(rows)),
            stuff_feature_shard,
            StuffFeatureShard(
                rows,
                FeatureSettings(size=settings.size),
                backbone.name,
                backbone.device,
                weights.folder,
            ),
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


def _neighbours_folder(stage_path: Path, version: Version) -> Path:
    return stage_path / f"neighbours-{version.digest}.zarr"


def _write_neighbours(stage_path: Path, version: Version) -> Path:
    """Write the k-NN table of all views, unless it is there; it needs every shard."""
    from segmodels.stego.shards import StoredViews, write_neighbours

    folder = _neighbours_folder(stage_path, version)
    if not folder.exists():
        temporary = stage_path / f".tmp-{folder.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        write_neighbours(StoredViews(finished_shards(version).in_order), temporary)
        temporary.rename(folder)
    for other in stage_path.glob("neighbours-*.zarr"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


@dg.asset(
    group_name="stuff",
    deps=["stuff_features"],
    code_version=CODE_VERSION,
    kinds={"pytorch"},
    pool="gpu",
)
def stuff_model(
    context: dg.AssetExecutionContext,
    config: StuffModelConfig,  # type: ignore[valid-type]
    store: Store,
) -> dg.MaterializeResult[None]:
    """STEGO's head and cluster centres, trained by feature correspondence."""
    stage = store.stage("stuff_model")
    settings = resolve_settings(config, StuffModelSettings, stage)
    upstream_stage = store.stage("stuff_features")
    upstream = upstream_stage.require()
    backbone = backbone_choice(store)

    def compute(folder: Path) -> dict[str, Any]:
        from segmodels.stego.presets import loss_preset
        from segmodels.stego.shards import StoredViews, read_neighbours
        from segmodels.stego.training import StegoSettings, train_stego

        views = StoredViews(finished_shards(upstream).in_order)
        neighbours = read_neighbours(_neighbours_folder(upstream_stage.path, upstream))

        def report(step: int, loss: float) -> None:
            if step % max(1, settings.steps // 10) == 0:
                context.log.info(f"STEGO: step {step} of {settings.steps}, loss {loss:.4f}")

        model = train_stego(
            views,
            neighbours,
            StegoSettings(
                steps=settings.steps,
                batch_size=settings.batch_size,
                num_clusters=settings.num_clusters,
                seed=settings.seed,
                loss=loss_preset(settings.loss, backbone.name),
            ),
            report,
        )
        model.save(folder / "stego.safetensors")
        names = ["step", "loss", "same", "neighbour", "random"]
        history = [dict(zip(names, map(float, row), strict=True)) for row in model.history]
        return {"views": views.shape[0], "history": history}

    digest = digest_of(CODE_VERSION, settings, upstream.digest, backbone.name)
    try:
        version = materialise(stage, digest, settings, compute, context.log.info)
    except ValueError as error:
        raise dg.Failure(f"stuff_model: {error}") from error
    history = version.summary["history"]
    return result(
        version,
        {
            "views": version.summary["views"],
            "final_loss": history[-1]["loss"],
            "loss_curve": curve("Correspondence loss", history, list(history[0])),
        },
    )


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
    backbone = stuff_backbone_choice(store, weights, context.log.info)
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
                SegmentationSettings(size=settings.size, crf=settings.crf),
                backbone.name,
                backbone.device,
                weights.folder,
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
