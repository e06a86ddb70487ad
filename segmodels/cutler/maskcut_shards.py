"""Stage maskcut_masks: MaskCut and its CRF over one shard of images with known keys."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kernels.backend import Backend, resolve_backend
from segmodels.backbones.advice import MaskCutAdvice
from segmodels.backbones.feature_shards import StoredFeatures, open_features
from segmodels.cutler.maskcut import DiscoveredMask, MaskCutSettings, discover_masks
from segmodels.engine.parallel import map_images, map_in_order
from segmodels.formats.decode import read_image
from segmodels.formats.masks import MASK_SCHEMA, mask_row, write_table

MASKS_PER_IMAGE_LIMIT = 1000
# Enough to keep a GPU busy: 2 GB of patch graphs at 3,600 patches.
IMAGES_PER_GPU_BATCH = 16
# One is decoded and stored while the other is on the device.
BATCHES_AT_ONCE = 2


@dataclass(frozen=True)
class MaskCutChoices:
    """MaskCut's settings as a user gives them; None takes what the backbone recommends.

    Attributes:
        tau: affinity threshold on the cosine of two keys.
        center_keys: subtract the image's mean key before the cosine.
        max_masks: masks an image.
        use_crf: refine with the dense CRF.
        crf_min_iou: a mask that the CRF changes more than this is dropped.
        backend: where cuts and CRF are computed: "auto" takes a GPU if there is one.
    """

    tau: float | None = None
    center_keys: bool | None = None
    max_masks: int = 3
    use_crf: bool = True
    crf_min_iou: float = 0.5
    backend: Backend = "auto"

    def with_advice(self, advice: MaskCutAdvice) -> MaskCutSettings:
        """Fill in what the backbone's weights recommend; `advice.image_size` is that of the keys."""
        return MaskCutSettings(
            image_size=advice.image_size,
            tau=advice.tau if self.tau is None else self.tau,
            center_keys=advice.center_keys if self.center_keys is None else self.center_keys,
            max_masks=self.max_masks,
            use_crf=self.use_crf,
            crf_min_iou=self.crf_min_iou,
            backend=self.backend,
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
    images = work.images.select(["image_id", "source", "path"]).to_pylist()
    on_gpu = resolve_backend(work.settings.backend) == "gpu"
    size = IMAGES_PER_GPU_BATCH if on_gpu else 1
    batches = [images[start : start + size] for start in range(0, len(images), size)]

    def masks_of(batch: list[dict[str, Any]]) -> list[_ImageMasks]:
        return _masks_of(batch, features, work.settings)

    if on_gpu:
        results = map_in_order(masks_of, batches, workers=BATCHES_AT_ONCE)
    else:
        results = map_images(masks_of, batches)
    found = [image for batch in results for image in batch]
    rows = [row for image in found for row in image.rows]
    write_table(pa.Table.from_pylist(rows, schema=MASK_SCHEMA), folder / "masks.arrow")
    return {
        "images": len(images),
        "masks": len(rows),
        "images_without_mask": sum(not image.rows for image in found),
        "dense_fallbacks": sum(image.dense_fallbacks for image in found),
    }


@dataclass(frozen=True)
class _ImageMasks:
    """Rows of MASK_SCHEMA, and how many cuts needed the slow solver."""

    rows: list[dict[str, Any]]
    dense_fallbacks: int


def _masks_of(
    batch: list[dict[str, Any]], features: StoredFeatures, settings: MaskCutSettings
) -> list[_ImageMasks]:
    keys = np.stack([features.keys[features.row_of(image["image_id"])] for image in batch])
    photographs = [read_image(image["source"], image["path"]) for image in batch]
    found = discover_masks(photographs, keys, settings)
    return [
        _ImageMasks(_mask_rows(image["image_id"], discovery.masks), discovery.dense_fallbacks)
        for image, discovery in zip(batch, found, strict=True)
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
    """An instance id that depends on the image alone, not on the shard or on the order."""
    if not 0 <= position < MASKS_PER_IMAGE_LIMIT:
        raise ValueError(f"an image holds at most {MASKS_PER_IMAGE_LIMIT} masks, got {position}")
    return image_id * MASKS_PER_IMAGE_LIMIT + position
