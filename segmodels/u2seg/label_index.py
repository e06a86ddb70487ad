"""One folder over the pseudo labels of all shards: COCO json, and links to the shards' files."""

import os
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa

from kernels.errors import ExNihiloError
from segmodels.detector.pseudo_labels import cluster_categories, write_cluster_counts
from segmodels.formats.arrow import column_values, read_table
from segmodels.formats.coco import annotation_json, write_instances_json
from segmodels.formats.coco_json import CocoImage
from segmodels.formats.panoptic import write_panoptic_json
from segmodels.formats.segment_png import png_name, shard_folder

_PNG_FOLDERS = ("panoptic", "semantic")
_TABLES = ("segments", "instances")


class NothingLabelledError(ExNihiloError, ValueError):
    """No image has a label."""


def write_label_index(
    shards: Mapping[int, Path], folder: Path, num_things: int, num_stuff: int
) -> None:
    """Write `instances.json`, `panoptic.json` and the counts of clusters, shard by shard.

    Links the PNGs as `panoptic/shard-00000/` and `semantic/shard-00000/`, the tables as
    `segments/shard-00000.arrow` and `instances/shard-00000.arrow`: relative links, which copies
    of the folder replace by the files.

    Args:
        shards: folders of `write_pseudo_labels` by shard number, beside one another.
        folder: an existing folder.
        num_things: K.
        num_stuff: S.

    Raises:
        NothingLabelledError: no shard has an image.
    """
    if not any(len(read_table(shard / "images.arrow")) for shard in shards.values()):
        raise NothingLabelledError(
            "no image has a thing mask, so there is nothing to label: loosen the filters of "
            "thing_masks, or keep images without things (keep_instance_free)"
        )
    categories = cluster_categories(num_things, num_stuff)
    write_cluster_counts(folder, num_things, num_stuff)
    write_panoptic_json(folder / "panoptic.json", _images(shards), _panoptic(shards), categories)
    write_instances_json(
        folder / "instances.json", _images(shards), _instances(shards), categories[:num_things]
    )
    for number, shard in shards.items():
        for name in _PNG_FOLDERS:
            if (shard / name).exists():
                _link(shard / name, folder / name / shard_folder(number))
        for name in _TABLES:
            _link(shard / f"{name}.arrow", folder / name / f"{shard_folder(number)}.arrow")


def _link(target: Path, link: Path) -> None:
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=1024):
        yield from batch.to_pylist()


def _images(shards: Mapping[int, Path]) -> Iterator[CocoImage]:
    for shard in shards.values():
        for row in _rows(read_table(shard / "images.arrow")):
            yield CocoImage(row["image_id"], row["path"], row["height"], row["width"])


def _panoptic(shards: Mapping[int, Path]) -> Iterator[dict[str, Any]]:
    columns = ["image_id", "segment_id", "category_id", "area", "bbox"]
    for number, shard in shards.items():
        infos: dict[int, list[dict[str, Any]]] = {}
        for row in _rows(read_table(shard / "segments.arrow").select(columns)):
            info = {
                "id": row["segment_id"],
                "category_id": row["category_id"],
                "area": row["area"],
                "bbox": [int(side) for side in row["bbox"]],
                "iscrowd": 0,
            }
            infos.setdefault(row["image_id"], []).append(info)
        for image_id in column_values(read_table(shard / "images.arrow"), "image_id"):
            name = f"{shard_folder(number)}/{png_name(image_id)}"
            yield {
                "image_id": image_id,
                "file_name": name,
                "segments_info": infos.get(image_id, []),
            }


def _instances(shards: Mapping[int, Path]) -> Iterator[dict[str, Any]]:
    numbers = count(1)
    for shard in shards.values():
        for row in _rows(read_table(shard / "instances.arrow")):
            yield annotation_json(next(numbers), row, row["cluster_id"] + 1)
