"""Work of the stage maskcut_masks: MaskCut and CRF on one shard of images and their keys."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kernels.backend import Backend, resolve_backend
from segmodels.backbones.feature_shards import StoredFeatures, open_features
from segmodels.cutler.maskcut import DiscoveredMask, MaskCutSettings, discover_masks
from segmodels.engine.parallel import map_images, map_in_order
from segmodels.formats.arrow import write_table
from segmodels.formats.decode import read_image
from segmodels.formats.masks import MASK_SCHEMA, mask_row

if TYPE_CHECKING:
    from segmodels.backbones.advice import MaskCutAdvice  # loads torch

MASKS_PER_IMAGE_LIMIT = 1000
# Keeps a GPU busy: 2 GB of affinities at 3,600 patches.
IMAGES_PER_GPU_BATCH = 16
# One batch is decoded and encoded while the other is on the GPU.
BATCHES_AT_ONCE = 2


@dataclass(frozen=True)
class MaskCutStageSettings:
    """See `MaskCutSettings`; None takes the advice stored beside the backbone's weights."""

    tau: float | None = None
    center_keys: bool | None = None
    max_masks: int = 3
    use_crf: bool = True
    crf_min_iou: float = 0.5
    backend: Backend = "auto"

    def with_advice(self, advice: "MaskCutAdvice") -> MaskCutSettings:
        """Fill in what the weights recommend; `advice.image_size` is that of the keys."""
        chosen = {name: value for name, value in asdict(self).items() if value is not None}
        return MaskCutSettings(**asdict(advice) | chosen)


@dataclass(frozen=True)
class MaskCutShard:
    """Images (IMAGES_SCHEMA rows) of one shard, the folder of their features, settings."""

    images: pa.Table
    features_folder: Path
    settings: MaskCutSettings


def maskcut_shard(work: MaskCutShard, folder: Path) -> dict[str, float]:
    """Write `masks.arrow` (MASK_SCHEMA) of one shard; returns counts."""
    features = open_features(work.features_folder)
    images = work.images.select(["image_id", "source", "path"]).to_pylist()
    on_gpu = resolve_backend(work.settings.backend) == "gpu"
    size = IMAGES_PER_GPU_BATCH if on_gpu else 1
    batches = [images[start : start + size] for start in range(0, len(images), size)]

    def masks_of(batch: list[dict[str, Any]]) -> list[_ImageRows]:
        return _masks_of(batch, features, work.settings)

    if on_gpu:
        results = map_in_order(masks_of, batches, workers=BATCHES_AT_ONCE)
    else:
        results = map_images(masks_of, batches)
    per_image = [image for batch in results for image in batch]
    rows = [row for image in per_image for row in image.rows]
    write_table(pa.Table.from_pylist(rows, schema=MASK_SCHEMA), folder / "masks.arrow")
    return {
        "images": len(images),
        "masks": len(rows),
        "images_without_mask": sum(not image.rows for image in per_image),
        "dense_fallbacks": sum(image.dense_fallbacks for image in per_image),
    }


@dataclass(frozen=True)
class _ImageRows:
    """Rows of MASK_SCHEMA of one image, and its cuts that needed the dense eigensolver."""

    rows: list[dict[str, Any]]
    dense_fallbacks: int


def _masks_of(
    batch: list[dict[str, Any]], features: StoredFeatures, settings: MaskCutSettings
) -> list[_ImageRows]:
    keys = np.stack([features.keys[features.row_of(image["image_id"])] for image in batch])
    pixels = [read_image(image["source"], image["path"]) for image in batch]
    found = discover_masks(pixels, keys, settings)
    return [
        _ImageRows(_mask_rows(image["image_id"], masks.masks), masks.dense_fallbacks)
        for image, masks in zip(batch, found, strict=True)
    ]


def _mask_rows(image_id: int, masks: list[DiscoveredMask]) -> list[dict[str, Any]]:
    return [
        mask_row(
            image_id,
            instance_id_of(image_id, position),
            found.mask,
            score=found.score,
            source="maskcut",
            round=0,
        )
        for position, found in enumerate(masks)
    ]


def instance_id_of(image_id: int, position: int) -> int:
    """Return the instance_id of an image's mask; it does not depend on the shard.

    Raises:
        ValueError: the image has more than `MASKS_PER_IMAGE_LIMIT` masks.
    """
    if not 0 <= position < MASKS_PER_IMAGE_LIMIT:
        raise ValueError(f"an image holds at most {MASKS_PER_IMAGE_LIMIT} masks, got {position}")
    return image_id * MASKS_PER_IMAGE_LIMIT + position
