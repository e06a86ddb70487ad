"""Stage cutler_masks: masks of CutLER's self-training rounds."""

from pathlib import Path

import dagster as dg

from assets.stages.run import materialise, result
from assets.stages.settings import config_for, resolve_settings
from assets.stages.store import Store, digest_of
from segmodels.cutler.rounds import CutlerSettings
from segmodels.formats.arrow import write_table
from segmodels.formats.masks import MASK_SCHEMA

CODE_VERSION = "1"
CutlerConfig = config_for(CutlerSettings)


@dg.asset(
    group_name="masks", deps=["images", "maskcut_masks"], code_version=CODE_VERSION, kinds={"arrow"}
)
def cutler_masks(
    context: dg.AssetExecutionContext,
    config: CutlerConfig,  # type: ignore[valid-type]
    store: Store,
) -> dg.MaterializeResult[None]:
    """Masks of the self-training rounds; none without rounds."""
    stage = store.stage("cutler_masks")
    settings = resolve_settings(config, CutlerSettings, stage)
    upstream = store.stage("maskcut_masks").require()

    def compute(folder: Path) -> dict[str, int]:
        write_table(MASK_SCHEMA.empty_table(), folder / "masks.arrow")
        return {"masks": 0}

    digest = digest_of(CODE_VERSION, settings, upstream.digest)
    version = materialise(stage, digest, settings, compute, context.log.info)
    return result(version, {"dagster/row_count": 0})
