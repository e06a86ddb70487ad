"""Stage thing_masks: the masks that become things."""

from pathlib import Path
from typing import Any

import dagster as dg

from assets.data.images import identity_of, train_images
from assets.stages.metadata import area_histogram, mask_sheet, table_metadata
from assets.stages.run import materialise, result
from assets.stages.settings import config_for, resolve_settings
from assets.stages.shards import finished_shards
from assets.stages.store import Store, digest_of
from segmodels.cutler.thing_masks import ThingMaskSettings, select_things
from segmodels.formats.arrow import column_values, read_table, rows_in, write_table

CODE_VERSION = "1"
ThingMaskConfig = config_for(ThingMaskSettings)


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
    """Masks of the training images that pass the filters on score, area, border and overlap."""
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
