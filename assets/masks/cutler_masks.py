"""Stage cutler_masks: masks of CutLER's self-training rounds."""

from pathlib import Path

from assets.masks.maskcut_masks import maskcut_masks
from assets.stages.stage import Result, StageRun, result, stage
from segmodels.cutler.rounds import CutlerSettings
from segmodels.formats.arrow import write_table
from segmodels.formats.masks import MASK_SCHEMA


@stage(
    group="masks", inputs=(maskcut_masks,), settings=CutlerSettings, version="2", kinds={"arrow"}
)
def cutler_masks(run: StageRun[CutlerSettings]) -> Result:
    """Masks of the self-training rounds; none without rounds."""

    def compute(folder: Path) -> dict[str, int]:
        write_table(MASK_SCHEMA.empty_table(), folder / "masks.arrow")
        return {"masks": 0}

    version = run.materialise(compute, run.input(maskcut_masks).digest)
    return result(version, {"dagster/row_count": 0})
