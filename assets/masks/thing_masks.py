"""Stage thing_masks: the masks that become things, by shard."""

import dagster as dg

from assets.data.images import identity_of, images, shards_of, train_images
from assets.masks.cutler_masks import cutler_masks
from assets.masks.maskcut_masks import maskcut_masks
from assets.stages.metadata import area_histogram, mask_sheet, table_metadata
from assets.stages.shards import ShardRunner, finished_shards
from assets.stages.stage import Result, StageRun, Work, result, stage
from segmodels.cutler.thing_masks import ThingMaskSettings, ThingMaskShard, thing_mask_shard
from segmodels.formats.arrow import column_values


@stage(
    group="masks",
    inputs=(images, maskcut_masks, cutler_masks),
    settings=ThingMaskSettings,
    version="2",
    kinds={"arrow"},
)
def thing_masks(run: StageRun[ThingMaskSettings], shards: ShardRunner) -> Result:
    """Masks of the training images that pass the filters on score, area, border and overlap."""
    table, rounds = train_images(run.input(images)), run.input(cutler_masks)
    found = finished_shards(run.input(maskcut_masks))
    rows_of = shards_of(table)
    found.require(rows_of, "maskcut_masks")
    work = {
        shard: Work(
            ThingMaskShard(
                column_values(rows, "image_id"), found.folders[shard] / "masks.arrow", run.settings
            ),
            (found.digests[shard], rounds.digest, identity_of(rows)),
        )
        for shard, rows in rows_of.items()
    }
    version, computed = run.materialise_shards(thing_mask_shard, work, shards)
    masks = finished_shards(version).table("masks.arrow")
    removed = {name: value for name, value in version.summary["totals"].items() if name != "masks"}
    return result(
        version,
        {
            **table_metadata(masks),
            "removed": dg.MetadataValue.json(removed),
            "shards_computed": computed,
            "areas": area_histogram(masks),
            "preview": mask_sheet(table, masks),
        },
    )
