"""Stage maskcut_masks: MaskCut and its CRF over one shard of images with known keys."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from segmodels.dino.feature_shards import open_features
from segmodels.formats.decode import read_image
from segmodels.formats.masks import MASK_SCHEMA, mask_row, write_table
from segmodels.u2seg.maskcut import MaskCutSettings, discover_masks

MASKS_PER_IMAGE_LIMIT = 1000


@dataclass(frozen=True)
class MaskCutChoices:
    """MaskCut's settings as a user gives them; None takes what the backbone recommends.

    Attributes:
        tau: affinity threshold on the cosine of two keys.
        center_keys: subtract the image's mean key before the cosine.
        max_masks: masks an image.
        use_crf: refine with the dense CRF.
        crf_min_iou: a mask that the CRF changes more than this is dropped.
    """

    tau: float | None = None
    center_keys: bool | None = None
    max_masks: int = 3
    use_crf: bool = True
    crf_min_iou: float = 0.5

    def for_backbone(self, *, image_size: int, tau: float, center_keys: bool) -> MaskCutSettings:
        """Fill in the backbone's recommendation; `image_size` is that of the keys, px."""
        return MaskCutSettings(
            image_size=image_size,
            tau=tau if self.tau is None else self.tau,
            center_keys=center_keys if self.center_keys is None else self.center_keys,
            max_masks=self.max_masks,
            use_crf=self.use_crf,
            crf_min_iou=self.crf_min_iou,
        )


@dataclass(frozen=True)
class MaskCutShard:
    """One shard's work: images (IMAGES_SCHEMA rows), the folder of their features, settings."""

    images: pa.Table
    features_folder: Path
    settings: MaskCutSettings


def maskcut_shard(work: MaskCutShard, folder: Path) -> dict[str, float]:
    """Write `masks.arrow` (MASK_SCHEMA) of one shard; returns counts."""
    features = open_features(work.features_folder)
    rows = []
    empty = 0
    for image_row in work.images.select(["image_id", "source", "path"]).to_pylist():
        image_id = image_row["image_id"]
        keys = np.asarray(features.keys[features.row_of(image_id)], dtype=np.float32)
        image = read_image(image_row["source"], image_row["path"])
        found = discover_masks(image, keys, work.settings)
        empty += not found
        rows += [
            mask_row(
                image_id,
                instance_id_of(image_id, position),
                mask.mask,
                score=mask.score,
                source="maskcut",
                round=0,
            )
            for position, mask in enumerate(found)
        ]
    write_table(pa.Table.from_pylist(rows, schema=MASK_SCHEMA), folder / "masks.arrow")
    return {"images": work.images.num_rows, "masks": len(rows), "images_without_mask": empty}


def instance_id_of(image_id: int, position: int) -> int:
    """An instance id that depends on the image alone, not on the shard or on the order."""
    if not 0 <= position < MASKS_PER_IMAGE_LIMIT:
        raise ValueError(f"an image holds at most {MASKS_PER_IMAGE_LIMIT} masks, got {position}")
    return image_id * MASKS_PER_IMAGE_LIMIT + position
