"""Write the pseudo-label folder: merged labels as Arrow, COCO json and PNG."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segmodels.detector.pseudo_labels import MAX_STUFF, SEMANTIC_VOID, cluster_categories
from segmodels.formats.atomic import replacing
from segmodels.formats.coco import write_instances
from segmodels.formats.masks import MASK_SCHEMA, decode_masks, group_by_image, mask_row
from segmodels.formats.panoptic import PanopticWriter
from segmodels.formats.segment_png import png_name, write_png
from segmodels.formats.stuff import stuff_instance_id, stuff_map
from segmodels.u2seg.labels import LabelSettings, MergedImage, Things, merge_image, semantic_map

SEGMENT_SCHEMA = MASK_SCHEMA.append(pa.field("category_id", pa.int32())).append(
    pa.field("is_thing", pa.bool_())
)
"""The mask schema plus the category (things 1..K, stuff K+1..K+S) and whether it is a thing."""

IMAGES_PER_REPORT = 1000
_ROWS_AT_ONCE = 4096


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
        self, things: Things, stuff: np.ndarray, merged: MergedImage, semantic: np.ndarray
    ) -> None:
        """Count one image by its input, its panoptic label and its semantic map."""
        visible, classes = len(merged.thing_rows), np.unique(stuff[stuff >= 0])
        self.images += 1
        self.things += visible
        self.things_hidden += len(things.masks) - visible
        self.stuff_segments += len(merged.segments) - visible
        self.stuff_left_out += len(classes) - (len(merged.segments) - visible)
        thing = int(np.count_nonzero(semantic == 0))
        void = int(np.count_nonzero(semantic == SEMANTIC_VOID))
        self.thing_pixels += thing
        self.void_pixels += void
        self.stuff_pixels += semantic.size - thing - void


def write_pseudo_labels(
    folder: str | Path,
    images: pa.Table,
    things: pa.Table,
    instance_clusters: pa.Table,
    stuff: pa.Table,
    *,
    num_things: int,
    num_stuff: int,
    settings: LabelSettings,
    log: Callable[[str], object] | None = None,
) -> dict[str, int]:
    """Merge things and stuff of each image and write the labels.

    Writes `segments.arrow` (SEGMENT_SCHEMA, masks as far as visible) and the files of
    `detector.pseudo_labels`; `instances.json` has the whole masks.

    Args:
        folder: an empty or new folder.
        images: IMAGES_SCHEMA rows; the other tables may have rows of more images.
        things: MASK_SCHEMA rows.
        instance_clusters: instance_id int64 and cluster_id int in [0, K) of every thing.
        stuff: STUFF_SCHEMA rows.
        num_things: K.
        num_stuff: S, at most 254.
        settings: of the merge.
        log: takes a sentence every 1,000 images.

    Returns:
        The fields of `LabelCounts`.

    Raises:
        ValueError: no image is left, a thing has no cluster, a cluster is out of range, a mask
            and its image differ in size, or S is out of range.
    """
    if not 1 <= num_stuff <= MAX_STUFF:
        raise ValueError(f"num_stuff must be in [1, {MAX_STUFF}], got {num_stuff}")
    folder = Path(folder)
    things = with_clusters(
        things.filter(pc.is_in(things["image_id"], images["image_id"])), instance_clusters
    )
    counts = LabelCounts()
    if not settings.keep_instance_free:
        with_things = images.filter(pc.is_in(images["image_id"], things["image_id"]))
        counts.images_without_things = len(images) - len(with_things)
        images = with_things
    if len(images) == 0:
        raise ValueError(
            "no image has a thing mask, so there is nothing to label: loosen the filters of "
            "thing_masks, or keep images without things (keep_instance_free)"
        )
    categories = cluster_categories(num_things, num_stuff)
    things_of, stuff_of = group_by_image(things), group_by_image(stuff)
    no_things, no_stuff = things.slice(0, 0), stuff.slice(0, 0)
    panoptic = PanopticWriter(folder / "panoptic.json", folder / "panoptic", categories)
    with _segment_file(folder / "segments.arrow") as write_segments:
        rows = images.select(["image_id", "path", "height", "width"]).to_pylist()
        for position, image in enumerate(rows, start=1):
            image_id = image["image_id"]
            thing_rows = things_of.get(image_id, no_things)
            scene = _things(thing_rows, image["height"], image["width"])
            stuff_pixels = _stuff(stuff_of.get(image_id, no_stuff), image, num_stuff)
            merged = merge_image(scene, stuff_pixels, num_things, settings)
            panoptic.add(image_id, image["path"], merged.segment_map, merged.segments)
            semantic = semantic_map(merged, num_things)
            write_png(folder / "semantic" / png_name(image_id), semantic)
            write_segments(_segment_rows(image_id, merged, thing_rows, num_things))
            counts.add(scene, stuff_pixels, merged, semantic)
            if log is not None and position % IMAGES_PER_REPORT == 0:
                log(f"pseudo labels: {position} of {len(rows)} images")
    panoptic.close()
    write_instances(
        folder / "instances.json",
        images,
        things,
        categories[:num_things],
        category_ids=things["cluster_id"].to_numpy() + 1,
    )
    return asdict(counts)


def with_clusters(things: pa.Table, instance_clusters: pa.Table) -> pa.Table:
    """Append the column `cluster_id` int32 to thing rows, by instance_id.

    Raises:
        ValueError: a thing has no cluster.
    """
    known = instance_clusters["instance_id"].to_numpy()
    order = np.argsort(known, kind="stable")
    wanted = things["instance_id"].to_numpy()
    positions = np.searchsorted(known, wanted, sorter=order)
    found = positions < len(known)
    found[found] = known[order[positions[found]]] == wanted[found]
    if not found.all():
        raise ValueError(
            f"{np.count_nonzero(~found)} of {len(wanted)} things have no cluster (the first is "
            f"instance {wanted[~found][0]}): recompute instance_clusters from these thing masks"
        )
    clusters = instance_clusters["cluster_id"].to_numpy()[order[positions]].astype(np.int32)
    return things.append_column("cluster_id", pa.array(clusters))


def _things(rows: pa.Table, height: int, width: int) -> Things:
    """Decode the things of one image."""
    masks = decode_masks(rows) if len(rows) else np.zeros((0, height, width), dtype=bool)
    return Things(masks, rows["cluster_id"].to_numpy(), rows["score"].to_numpy())


def _stuff(rows: pa.Table, image: dict[str, Any], num_stuff: int) -> np.ndarray:
    """Decode the stuff map of one image and check its clusters."""
    clusters = stuff_map(rows, image["height"], image["width"])
    if clusters.max() >= num_stuff:
        raise ValueError(
            f"stuff clusters must be in [0, {num_stuff}), got {clusters.max()} in "
            f"image {image['image_id']}"
        )
    return clusters


def _segment_rows(
    image_id: int, merged: MergedImage, things: pa.Table, num_things: int
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
        row = mask_row(image_id, mask=merged.segment_map == segment.id, **origin)
        yield {**row, "category_id": segment.category_id, "is_thing": is_thing}


@contextmanager
def _segment_file(path: Path) -> Iterator[Callable[[Iterable[dict[str, Any]]], None]]:
    """Yield a function that appends rows to an Arrow file, written atomically."""
    buffer: list[dict[str, Any]] = []

    with replacing(path) as temporary, pa.ipc.new_file(str(temporary), SEGMENT_SCHEMA) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(buffer, schema=SEGMENT_SCHEMA))
            buffer.clear()

        def write(rows: Iterable[dict[str, Any]]) -> None:
            buffer.extend(rows)
            if len(buffer) >= _ROWS_AT_ONCE:
                flush()

        yield write
        flush()
