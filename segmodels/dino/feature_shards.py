"""Stage dino_features: last-block keys and CLS of every image, one Zarr group a shard."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr

from segmodels.device import resolve_device
from segmodels.dino.pixels import normalised_pixels, resize_square
from segmodels.formats.decode import read_image

IMAGES_PER_ZARR_SHARD = 16


@dataclass(frozen=True)
class FeatureSettings:
    """What the features depend on.

    Attributes:
        backbone: a named backbone or the path of a checkpoint.
        image_size: side of the square that images are resized to, in px; 0 takes the size that
            is recommended by the backbone's weights.
        batch_size: images a forward pass; always filled up to this number, so that a result
            does not depend on which images share a batch or a shard.
        device: "auto", "cpu" or "cuda".
    """

    backbone: str = "dino_vitb8"
    image_size: int = 0
    batch_size: int = 4
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.image_size < 0:
            raise ValueError(f"image_size must be at least 0, got {self.image_size}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")


@dataclass(frozen=True)
class FeatureShard:
    """One shard's work: images (IMAGES_SCHEMA rows), settings, where weights are cached."""

    images: pa.Table
    settings: FeatureSettings
    cache_folder: Path


@dataclass(frozen=True)
class Features:
    """Lazy, read-only features of one shard.

    Attributes:
        keys: (n, gh, gw, d) float16 Zarr array.
        cls: (n, d) float32 Zarr array.
        image_ids: (n,) int64.
    """

    keys: Any
    cls: Any
    image_ids: np.ndarray

    def row_of(self, image_id: int) -> int:
        """Position of an image in this shard."""
        return int(np.flatnonzero(self.image_ids == image_id)[0])


@lru_cache(maxsize=2)
def cached_backbone(name: str, device: str, cache_folder: Path) -> Any:
    """A backbone, loaded once a process."""
    from segmodels.dino import load_backbone

    return load_backbone(name, device=resolve_device(device), cache_folder=cache_folder)


def extract_shard(work: FeatureShard, folder: Path) -> dict[str, float]:
    """Write `features.zarr` (keys, cls, image_id) of one shard; returns counts."""
    settings = work.settings
    backbone = cached_backbone(settings.backbone, settings.device, work.cache_folder)
    size = settings.image_size or backbone.image_size
    rows = work.images.select(["image_id", "source", "path"]).to_pylist()
    group = zarr.open_group(folder / "features.zarr", mode="w", zarr_format=3)
    arrays: dict[str, Any] = {}
    for start in range(0, len(rows), IMAGES_PER_ZARR_SHARD):
        block = rows[start : start + IMAGES_PER_ZARR_SHARD]
        keys, cls = _block_features(block, backbone, size, settings.batch_size)
        if not arrays:
            arrays["keys"] = _sharded_array(group, "keys", len(rows), keys)
            arrays["cls"] = _sharded_array(group, "cls", len(rows), cls)
        arrays["keys"][start : start + len(block)] = keys
        arrays["cls"][start : start + len(block)] = cls
    group.create_array("image_id", data=work.images["image_id"].to_numpy(), compressors=None)
    return {"images": len(rows)}


def open_features(folder: Path) -> Features:
    """Open one shard that `extract_shard` wrote."""
    group = zarr.open_group(folder / "features.zarr", mode="r")
    return Features(group["keys"], group["cls"], np.asarray(group["image_id"]))


def _sharded_array(group: Any, name: str, count: int, block: np.ndarray) -> Any:
    """One chunk an image, a few files a shard; no compression: features do not compress."""
    return group.create_array(
        name,
        shape=(count, *block.shape[1:]),
        dtype=block.dtype,
        chunks=(1, *block.shape[1:]),
        shards=(IMAGES_PER_ZARR_SHARD, *block.shape[1:]),
        compressors=None,
    )


def _block_features(
    rows: list[dict[str, Any]], backbone: Any, size: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    keys, cls = [], []
    for batch, count in _full_batches(rows, size, batch_size):
        features = backbone.extract(batch)
        keys.append(features.keys[:count].cpu().numpy().astype(np.float16))
        cls.append(features.cls[:count].float().cpu().numpy())
    return np.concatenate(keys), np.concatenate(cls)


def _full_batches(
    rows: list[dict[str, Any]], size: int, batch_size: int
) -> Iterator[tuple[Any, int]]:
    """Batches of exactly `batch_size` images, the last one filled up with black ones."""
    import torch

    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        batch = torch.zeros((batch_size, 3, size, size))
        for position, row in enumerate(chosen):
            image = resize_square(read_image(row["source"], row["path"]), size)
            batch[position] = torch.as_tensor(normalised_pixels(image))
        yield batch, len(chosen)
