"""Work of the stage instance_embeddings: one vector per instance, one Zarr group per shard."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr

from segmodels.backbones.ref import BackboneRef
from segmodels.engine.parallel import available_threads, map_in_order
from segmodels.formats.arrow import read_table
from segmodels.formats.decode import read_image
from segmodels.formats.masks import decode_masks, group_by_image
from segmodels.u2seg.embeddings import (
    EmbeddingSettings,
    embed_crops,
    embed_instances,
    input_size,
    instance_crops,
)


@dataclass(frozen=True)
class EmbeddingShard:
    """Images of one shard (IMAGES_SCHEMA), the file of their masks, settings and backbone."""

    images: pa.Table
    masks_file: Path
    settings: EmbeddingSettings
    backbone: BackboneRef


def embed_shard(work: EmbeddingShard, folder: Path) -> dict[str, float]:
    """Write `embeddings.zarr` (embeddings, instance_id) of one shard; returns counts."""
    backbone, settings = work.backbone.load(), work.settings
    masks_of = group_by_image(read_table(work.masks_file))
    rows = work.images.select(["image_id", "source", "path"]).to_pylist()
    rows = [row for row in rows if row["image_id"] in masks_of]
    size = input_size(backbone, settings)

    def decode(row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        return read_image(row["source"], row["path"]), decode_masks(masks_of[row["image_id"]])

    def crops(row: dict[str, Any]) -> list[np.ndarray]:
        return instance_crops(*decode(row), size, settings)

    group = zarr.open_group(folder / "embeddings.zarr", mode="w", zarr_format=3)
    ids = [masks_of[row["image_id"]]["instance_id"].to_numpy() for row in rows]
    if not rows:
        return {"instances": 0}
    if settings.feature == "cls":
        # Threads decode and crop the next images while this one runs the network.
        ahead = map_in_order(crops, rows, workers=available_threads())
        vectors = embed_crops(chain.from_iterable(ahead), backbone, settings.batch_size)
    else:
        images = (decode(row) for row in rows)
        vectors = np.concatenate([embed_instances(*one, backbone, settings) for one in images])
    group.create_array("embeddings", data=vectors, compressors=None)
    group.create_array("instance_id", data=np.concatenate(ids), compressors=None)
    return {"instances": len(vectors)}


def read_embeddings(folders: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Read embeddings (n, d) float32 and instance ids (n,) int64, in the order of the folders."""
    vectors, ids = [], []
    for folder in folders:
        group = zarr.open_group(folder / "embeddings.zarr", mode="r")
        if "embeddings" in group:
            vectors.append(np.asarray(group["embeddings"]))
            ids.append(np.asarray(group["instance_id"]))
    if not vectors:
        return np.zeros((0, 0), dtype=np.float32), np.zeros(0, dtype=np.int64)
    return np.concatenate(vectors), np.concatenate(ids)
