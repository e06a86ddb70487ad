"""Write the pseudo labels of one shard: merged labels as Arrow tables and PNGs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kernels import rle
from segmodels.detector.pseudo_labels import MAX_STUFF
from segmodels.formats.arrow import column_values, read_table, write_table
from segmodels.formats.masks import MASK_SCHEMA, code_row, group_by_image, one_size
from segmodels.formats.segment_png import id_to_rgb, png_name, write_png
from segmodels.formats.stuff import stuff_instance_id
from segmodels.u2seg.labels import (
    VOID_STUFF,
    LabelSettings,
    MergedImage,
    Things,
    merge_image,
    semantic_map,
)
from segmodels.u2seg.working_size import WorkingSize

SEGMENT_SCHEMA = (
    MASK_SCHEMA.append(pa.field("segment_id", pa.int32()))
    .append(pa.field("category_id", pa.int32()))
    .append(pa.field("is_thing", pa.bool_()))
)
"""MASK_SCHEMA, the id in the panoptic PNG, the category (things 1..K, stuff K+1..K+S), its kind."""

INSTANCE_SCHEMA = MASK_SCHEMA.append(pa.field("cluster_id", pa.int32()))
"""MASK_SCHEMA plus the thing cluster, from 0."""


@dataclass
class LabelCounts:
    """Counts of what was written and what was left out.

    Attributes:
        images: images in the folder.
        images_without_things: images dropped because they have no thing.
        things: visible thing segments.
        things_hidden: things without a visible pixel.
        stuff_segments: stuff segments.
        stuff_left_out: stuff classes of an image that got no segment.
        thing_pixels: pixels of thing segments.
        stuff_pixels: pixels of stuff segments.
        void_pixels: pixels without a label.
    """

    images: int = 0
    images_without_things: int = 0
    things: int = 0
    things_hidden: int = 0
    stuff_segments: int = 0
    stuff_left_out: int = 0
    thing_pixels: int = 0
    stuff_pixels: int = 0
    void_pixels: int = 0

    def add(
        self,
        things: Things,
        stuff: np.ndarray,
        segments: Sequence[Mapping[str, Any]],
        size: WorkingSize,
    ) -> None:
        """Count one image by its input and its rows of SEGMENT_SCHEMA."""
        areas = {True: 0, False: 0}
        for segment in segments:
            areas[segment["is_thing"]] += segment["area"]
        visible = sum(segment["is_thing"] for segment in segments)
        classes = np.count_nonzero(np.bincount(stuff.ravel() - VOID_STUFF, minlength=1)[1:])
        self.images += 1
        self.things += visible
        self.things_hidden += len(things.masks) - visible
        self.stuff_segments += len(segments) - visible
        self.stuff_left_out += int(classes) - (len(segments) - visible)
        self.thing_pixels += areas[True]
        self.stuff_pixels += areas[False]
        self.void_pixels += size.height * size.width - areas[True] - areas[False]


@dataclass(frozen=True)
class LabelShard:
    """Arguments of a pseudo_labels shard: its images (IMAGES_SCHEMA), and the files that it joins."""

    images: pa.Table
    things_file: Path
    clusters_file: Path
    stuff_file: Path
    num_things: int
    num_stuff: int
    settings: LabelSettings


def label_shard(work: LabelShard, folder: Path) -> dict[str, float]:
    """Write the labels of one shard, see `write_pseudo_labels`; returns `LabelCounts`."""
    counts = write_pseudo_labels(
        folder,
        work.images,
        read_table(work.things_file),
        _cached_clusters(work.clusters_file),
        read_table(work.stuff_file),
        num_things=work.num_things,
        num_stuff=work.num_stuff,
        settings=work.settings,
    )
    return dict(counts)


@lru_cache(maxsize=1)
def _cached_clusters(path: Path) -> pa.Table:
    return read_table(path).combine_chunks()


def write_pseudo_labels(
    folder: Path,
    images: pa.Table,
    things: pa.Table,
    instance_clusters: pa.Table,
    stuff: pa.Table,
    *,
    num_things: int,
    num_stuff: int,
    settings: LabelSettings,
) -> dict[str, int]:
    """Merge things and stuff of each image and write the labels of one shard.

    Writes `images.arrow` (the labelled ones), `instances.arrow` (INSTANCE_SCHEMA, whole masks),
    `segments.arrow` (SEGMENT_SCHEMA, masks as far as visible), and `panoptic/` and `semantic/`
    with a PNG an image. All have the images' own sizes.

    Args:
        folder: an existing folder.
        images: IMAGES_SCHEMA rows; the other tables may have rows of more images.
        things: MASK_SCHEMA rows.
        instance_clusters: instance_id int64, rising, and cluster_id int in [0, K) of every thing.
        stuff: STUFF_SCHEMA rows.
        num_things: K.
        num_stuff: S, at most 254.
        settings: of the merge.

    Returns:
        The fields of `LabelCounts`.

    Raises:
        ValueError: a thing has no cluster, a cluster is out of range, a mask and its image differ
            in size, or S is out of range.
    """
    if not 1 <= num_stuff <= MAX_STUFF:
        raise ValueError(f"num_stuff must be in [1, {MAX_STUFF}], got {num_stuff}")
    things = with_clusters(
        things.filter(pc.is_in(things["image_id"], images["image_id"])), instance_clusters
    )
    counts = LabelCounts()
    if not settings.keep_instance_free:
        with_things = images.filter(pc.is_in(images["image_id"], things["image_id"]))
        counts.images_without_things = len(images) - len(with_things)
        images = with_things
    things_of, stuff_of = group_by_image(things), group_by_image(stuff)
    no_things, no_stuff = things.slice(0, 0), stuff.slice(0, 0)
    segments: list[dict[str, Any]] = []
    for image in images.select(["image_id", "height", "width"]).to_pylist():
        image_id = image["image_id"]
        size = WorkingSize(image["height"], image["width"], settings.long_side_limit)
        rows = things_of.get(image_id, no_things)
        scene = _things(rows, size)
        stuff_pixels = _stuff(stuff_of.get(image_id, no_stuff), image_id, size, num_stuff)
        merged = merge_image(scene, stuff_pixels, num_things, settings)
        semantic = semantic_map(merged, num_things)
        colours = id_to_rgb(merged.segment_map)
        write_png(folder / "panoptic" / png_name(image_id), size.enlarge(colours))
        write_png(folder / "semantic" / png_name(image_id), size.enlarge(semantic))
        own = list(_segment_rows(image_id, merged, rows, num_things, size))
        counts.add(scene, stuff_pixels, own, size)
        segments += own
    write_table(images, folder / "images.arrow")
    write_table(things, folder / "instances.arrow")
    write_table(pa.Table.from_pylist(segments, schema=SEGMENT_SCHEMA), folder / "segments.arrow")
    return asdict(counts)


def with_clusters(things: pa.Table, instance_clusters: pa.Table) -> pa.Table:
    """Append the column `cluster_id` int32 to thing rows, by instance_id.

    The clusters are by rising instance_id: a search a thing, so that shards do not sort them all.

    Raises:
        ValueError: a thing has no cluster.
    """
    known = instance_clusters["instance_id"].to_numpy()
    wanted = things["instance_id"].to_numpy()
    positions = np.searchsorted(known, wanted)
    found = positions < len(known)
    found[found] = known[positions[found]] == wanted[found]
    if not found.all():
        raise ValueError(
            f"{np.count_nonzero(~found)} of {len(wanted)} things have no cluster (the first is "
            f"instance {wanted[~found][0]}): recompute instance_clusters from these thing masks"
        )
    clusters = instance_clusters["cluster_id"].to_numpy()[positions].astype(np.int32)
    return things.append_column("cluster_id", pa.array(clusters))


def _sampled(rows: pa.Table, size: WorkingSize) -> np.ndarray:
    """Decode the masks of one image at its working size: (n, h, w) bool."""
    if len(rows) == 0:
        return np.zeros((0, *size.shape), dtype=bool)
    height, width = one_size(rows)
    if (height, width) != (size.height, size.width):
        raise ValueError(
            f"masks must have their image's size {(size.height, size.width)}, got {(height, width)}"
        )
    return rle.sample(column_values(rows, "rle_counts"), height, width, *size.sampled)


def _things(rows: pa.Table, size: WorkingSize) -> Things:
    """Decode the things of one image."""
    return Things(_sampled(rows, size), rows["cluster_id"].to_numpy(), rows["score"].to_numpy())


def _stuff(rows: pa.Table, image_id: int, size: WorkingSize, num_stuff: int) -> np.ndarray:
    """Decode the stuff map of one image, (h, w) int32, and check its clusters."""
    clusters = np.full(size.shape, VOID_STUFF, dtype=np.int32)
    for cluster, mask in zip(rows["cluster_id"].to_numpy(), _sampled(rows, size), strict=True):
        if cluster >= num_stuff:
            raise ValueError(
                f"stuff clusters must be in [0, {num_stuff}), got {cluster} in image {image_id}"
            )
        clusters[mask] = cluster
    return clusters


def _segment_rows(
    image_id: int, merged: MergedImage, things: pa.Table, num_things: int, size: WorkingSize
) -> Iterator[dict[str, Any]]:
    """Rows of SEGMENT_SCHEMA; things keep instance_id, score, source and round."""
    origins = things.select(["instance_id", "score", "source", "round"]).to_pylist()
    for position, segment in enumerate(merged.segments):
        is_thing = segment.category_id <= num_things
        if is_thing:
            origin = origins[merged.thing_rows[position]]
        else:
            stuff_id = stuff_instance_id(image_id, segment.category_id - num_things - 1)
            origin = {"instance_id": stuff_id, "score": 1.0, "source": "stego", "round": 0}
        counts = rle.encode_enlarged(merged.segment_map == segment.id, *size.repeated)
        row = code_row(image_id, counts=counts, size=(size.height, size.width), **origin)
        own = {"segment_id": segment.id, "category_id": segment.category_id, "is_thing": is_thing}
        yield row | own
