"""Stage thing_masks: the masks that become things."""

from pathlib import Path
from typing import Any

import dagster as dg

from assets.data.images import identity_of, images, train_images
from assets.masks.cutler_masks import cutler_masks
from assets.masks.maskcut_masks import maskcut_masks
from assets.stages.metadata import area_histogram, mask_sheet, table_metadata
from assets.stages.shards import finished_shards
from assets.stages.stage import Result, StageRun, result, stage
from segmodels.cutler.thing_masks import ThingMaskSettings, select_things
from segmodels.formats.arrow import column_values, read_table, rows_in, write_table


@stage(
    group="masks",
    inputs=(images, maskcut_masks, cutler_masks),
    settings=ThingMaskSettings,
    version="1",
    kinds={"arrow"},
)
def thing_masks(run: StageRun[ThingMaskSettings]) -> Result:
    """Masks of the training images that pass the filters on score, area, border and overlap."""
    found, table = run.input(maskcut_masks), train_images(run.input(images))

    def compute(folder: Path) -> dict[str, Any]:
        masks = finished_shards(found).table("masks.arrow")
        masks = rows_in(masks, "image_id", column_values(table, "image_id"))
        selection = select_things(masks, run.settings)
        write_table(selection.table, folder / "masks.arrow")
        return {"kept": selection.table.num_rows, "removed": selection.removed}

    rounds = run.input(cutler_masks)
    version = run.materialise(compute, found.digest, rounds.digest, identity_of(table))
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
