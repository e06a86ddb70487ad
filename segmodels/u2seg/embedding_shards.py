"""Work of the stage instance_embeddings: one vector per instance, one Zarr group per shard."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import zarr

from segmodels.backbones.ref import BackboneRef
from segmodels.formats.arrow import read_table
from segmodels.formats.decode import read_image
from segmodels.formats.masks import decode_masks, group_by_image
from segmodels.u2seg.embeddings import EmbeddingSettings, embed_instances


@dataclass(frozen=True)
class EmbeddingShard:
    """Images of one shard (IMAGES_SCHEMA), the file of their masks, settings and backbone."""

    images: pa.Table
    masks_file: Path
    settings: EmbeddingSettings
    backbone: BackboneRef


def embed_shard(work: EmbeddingShard, folder: Path) -> dict[str, float]:
    """Write `embeddings.zarr` (embeddings, instance_id) of one shard; returns counts."""
    backbone = work.backbone.load()
    by_image = group_by_image(read_table(work.masks_file))
    vectors, ids = [], []
    for row in work.images.select(["image_id", "source", "path"]).to_pylist():
        instances = by_image.get(row["image_id"])
        if instances is None:
            continue
        image = read_image(row["source"], row["path"])
        vectors.append(embed_instances(image, decode_masks(instances), backbone, work.settings))
        ids.append(instances["instance_id"].to_numpy())
    group = zarr.open_group(folder / "embeddings.zarr", mode="w", zarr_format=3)
    if vectors:
        group.create_array("embeddings", data=np.concatenate(vectors), compressors=None)
        group.create_array("instance_id", data=np.concatenate(ids), compressors=None)
    return {"instances": sum(map(len, ids))}


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
