"""Stage dino_features: last-block keys and CLS of every image, one Zarr group per shard."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import zarr

from segmodels.backbones.pixels import normalised_pixels, resize_square
from segmodels.backbones.ref import BackboneRef
from segmodels.engine.parallel import available_threads, map_in_order
from segmodels.formats.decode import read_image

if TYPE_CHECKING:
    from segmodels.backbones.backbone import Backbone

Precision = Literal["float32", "bfloat16"]
IMAGES_PER_ZARR_SHARD = 16


@dataclass(frozen=True)
class FeatureSettings:
    """How the features of images are computed.

    Attributes:
        backbone: name or path, as `load_backbone` takes it.
        image_size: side of the square that images are resized to, px; 0 takes the size that the
            weights recommend.
        batch_size: images in a forward pass. Batches are padded to this number, so that results do
            not depend on which images share a batch or a shard.
        device: "auto", "cpu" or "cuda".
        precision: of the forward pass. "bfloat16" is several times faster on a GPU and changes
            some masks slightly.
    """

    backbone: str = "dino_vitb8"
    image_size: int = 0
    batch_size: int = 4
    device: str = "auto"
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.image_size < 0:
            raise ValueError(f"image_size must be at least 0, got {self.image_size}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")


@dataclass(frozen=True)
class FeatureShard:
    """One shard's work: images (IMAGES_SCHEMA rows), settings, and the backbone they name."""

    images: pa.Table
    settings: FeatureSettings
    backbone: BackboneRef


@dataclass(frozen=True)
class StoredFeatures:
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
        """Row of an image in this shard."""
        return int(np.flatnonzero(self.image_ids == image_id)[0])


def extract_shard(work: FeatureShard, folder: Path) -> dict[str, float]:
    """Write `features.zarr` (keys, cls, image_id) of one shard; returns counts."""
    settings = work.settings
    backbone = work.backbone.load()
    size = settings.image_size or backbone.image_size
    rows = work.images.select(["image_id", "source", "path"]).to_pylist()
    group = zarr.open_group(folder / "features.zarr", mode="w", zarr_format=3)
    arrays: dict[str, Any] = {}
    written = 0
    for keys, cls in _blocks(_features(rows, backbone, size, settings), IMAGES_PER_ZARR_SHARD):
        if not arrays:
            arrays["keys"] = _sharded_array(group, "keys", len(rows), keys)
            arrays["cls"] = _sharded_array(group, "cls", len(rows), cls)
        arrays["keys"][written : written + len(keys)] = keys
        arrays["cls"][written : written + len(cls)] = cls
        written += len(keys)
    group.create_array("image_id", data=work.images["image_id"].to_numpy(), compressors=None)
    return {"images": len(rows)}


def open_features(folder: Path) -> StoredFeatures:
    """Open one shard that `extract_shard` wrote."""
    group = zarr.open_group(folder / "features.zarr", mode="r")
    return StoredFeatures(group["keys"], group["cls"], np.asarray(group["image_id"]))


def _sharded_array(group: Any, name: str, count: int, block: np.ndarray) -> Any:
    """One chunk per image, a few files per shard; no compression: features do not compress."""
    return group.create_array(
        name,
        shape=(count, *block.shape[1:]),
        dtype=block.dtype,
        chunks=(1, *block.shape[1:]),
        shards=(IMAGES_PER_ZARR_SHARD, *block.shape[1:]),
        compressors=None,
    )


def _features(
    rows: list[dict[str, Any]], backbone: "Backbone", size: int, settings: FeatureSettings
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield keys (gh, gw, d) and CLS (d,) of every image; the next batches are decoded meanwhile."""
    starts = range(0, len(rows), settings.batch_size)
    chosen = (rows[start : start + settings.batch_size] for start in starts)
    batches = map_in_order(
        lambda batch: (_full_batch(batch, size, settings.batch_size), len(batch)),
        chosen,
        workers=available_threads(),
    )
    for batch, count in batches:
        features = backbone.extract(batch, settings.precision)
        keys = features.keys[:count].cpu().numpy().astype(np.float16)
        yield from zip(keys, features.cls[:count].float().cpu().numpy(), strict=True)


def _blocks(
    features: Iterator[tuple[np.ndarray, np.ndarray]], size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Stack the features of `size` images; the last stack may be shorter."""
    while block := list(islice(features, size)):
        keys, cls = zip(*block, strict=True)
        yield np.stack(keys), np.stack(cls)


def _full_batch(rows: list[dict[str, Any]], size: int, batch_size: int) -> Any:
    """Decode a batch of exactly `batch_size` images, padded with zeros."""
    import torch

    batch = torch.zeros((batch_size, 3, size, size))
    for position, row in enumerate(rows):
        image = resize_square(read_image(row["source"], row["path"]), size)
        batch[position] = torch.as_tensor(normalised_pixels(image))
    return batch
