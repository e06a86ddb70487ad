"""Stages maskcut_masks, cutler_masks and thing_masks: instances from normalized cuts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from assets.config import config_for, resolve_settings
from assets.features import backbone_choice
from assets.images import identity_of, read_images, shards_of, train_images
from assets.metadata import area_histogram, mask_sheet, table_metadata
from assets.sharding import ShardRunner, ShardTask, finished_shards, materialise_shards
from assets.stage_run import materialise, result
from assets.store import Store, digest_of
from segmodels.formats.arrow import column_values, read_table, rows_in, write_table
from segmodels.formats.masks import MASK_SCHEMA
from segmodels.u2seg.maskcut_shards import MaskCutChoices, MaskCutShard, maskcut_shard
from segmodels.u2seg.thing_masks import ThingMaskSettings, select_things

CODE_VERSION = "1"
MaskCutConfig = config_for(MaskCutChoices)
ThingMaskConfig = config_for(ThingMaskSettings)


@dg.asset(
    group_name="masks",
    deps=["images", "dino_features"],
    code_version=CODE_VERSION,
    kinds={"arrow"},
)
def maskcut_masks(
    context: dg.AssetExecutionContext,
    config: MaskCutConfig,  # type: ignore[valid-type]
    store: Store,
    shards: ShardRunner,
) -> dg.MaterializeResult[None]:
    """Masks found by MaskCut and refined by the dense CRF, at each image's own size."""
    stage = store.stage("maskcut_masks")
    chosen = resolve_settings(config, MaskCutChoices, stage)
    backbone = backbone_choice(store)
    settings = chosen.for_backbone(
        image_size=backbone.image_size, tau=backbone.tau, center_keys=backbone.center_keys
    )
    table = read_images(store.stage("images").require())
    work = shards_of(table)
    features = finished_shards(store.stage("dino_features").require())
    features.require(work, "dino_features")
    tasks = [
        ShardTask(
            shard,
            digest_of(CODE_VERSION, settings, features.digests[shard]),
            maskcut_shard,
            MaskCutShard(rows, features.folders[shard], settings),
        )
        for shard, rows in work.items()
    ]
    version, computed = materialise_shards(
        stage, tasks, shards, settings=chosen, log=context.log.info
    )
    masks = finished_shards(version).table("masks.arrow")
    return result(
        version,
        {
            **table_metadata(masks),
            **version.summary["totals"],
            "shards_computed": computed,
            "areas": area_histogram(masks),
            "preview": mask_sheet(table, masks),
        },
    )


@dataclass(frozen=True)
class CutlerSettings:
    """Self-training of a class-agnostic detector on the MaskCut masks.

    Attributes:
        rounds: number of rounds; 0 leaves the stage out and its table empty.
    """

    rounds: int = 0

    def __post_init__(self) -> None:
        if self.rounds != 0:
            raise ValueError(
                f"rounds must be 0 (self-training rounds are not built yet), got {self.rounds}"
            )


CutlerConfig = config_for(CutlerSettings)


@dg.asset(
    group_name="masks", deps=["images", "maskcut_masks"], code_version=CODE_VERSION, kinds={"arrow"}
)
def cutler_masks(
    context: dg.AssetExecutionContext,
    config: CutlerConfig,  # type: ignore[valid-type]
    store: Store,
) -> dg.MaterializeResult[None]:
    """Masks of the self-training rounds: none until a round is asked for."""
    stage = store.stage("cutler_masks")
    settings = resolve_settings(config, CutlerSettings, stage)
    upstream = store.stage("maskcut_masks").require()

    def compute(folder: Path) -> dict[str, Any]:
        write_table(MASK_SCHEMA.empty_table(), folder / "masks.arrow")
        return {"masks": 0}

    digest = digest_of(CODE_VERSION, settings, upstream.digest)
    version = materialise(stage, digest, settings, compute, context.log.info)
    return result(version, {"dagster/row_count": 0})


@dg.asset(
    group_name="masks",
    deps=["images", "maskcut_masks", "cutler_masks"],
    code_version=CODE_VERSION,
    kinds={"arrow"},
)
def thing_masks(
    context: dg.AssetExecutionContext,
    config: ThingMaskConfig,  # type: ignore[valid-type]
    store: Store,
) -> dg.MaterializeResult[None]:
    """The instances of the training images that go on: selected by area, score and overlap."""
    stage = store.stage("thing_masks")
    settings = resolve_settings(config, ThingMaskSettings, stage)
    upstream = store.stage("maskcut_masks").require()
    table = train_images(store)

    def compute(folder: Path) -> dict[str, Any]:
        masks = finished_shards(upstream).table("masks.arrow")
        masks = rows_in(masks, "image_id", column_values(table, "image_id"))
        selection = select_things(masks, settings)
        write_table(selection.table, folder / "masks.arrow")
        return {"kept": selection.table.num_rows, "removed": selection.removed}

    digest = digest_of(CODE_VERSION, settings, upstream.digest, identity_of(table))
    version = materialise(stage, digest, settings, compute, context.log.info)
    masks = read_table(version.folder / "masks.arrow")
    return result(
        version,
        {
            **table_metadata(masks),
            "removed": dg.MetadataValue.json(version.summary["removed"]),
            "areas": area_histogram(masks),
            "preview": mask_sheet(table, masks),
        },
    )
