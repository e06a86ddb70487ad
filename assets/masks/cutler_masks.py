"""Stage cutler_masks: masks of the self-training rounds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from assets.stages.run import materialise, result
from assets.stages.settings import config_for, resolve_settings
from assets.stages.store import Store, digest_of
from segmodels.formats.arrow import write_table
from segmodels.formats.masks import MASK_SCHEMA

CODE_VERSION = "1"


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
