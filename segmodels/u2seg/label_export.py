"""The pseudo-label folder: merged labels of many images as Arrow, COCO json and PNG."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segmodels.formats.atomic import replacing
from segmodels.formats.coco import write_instances
from segmodels.formats.coco_json import Category
from segmodels.formats.masks import MASK_SCHEMA, decode_masks, group_by_image, mask_row
from segmodels.formats.panoptic import PanopticWriter, png_name, write_png
from segmodels.formats.stuff import stuff_instance_id, stuff_map
from segmodels.u2seg.labels import (
    SEMANTIC_VOID,
    LabelSettings,
    MergedImage,
    Things,
    merge_image,
    semantic_map,
)

SEGMENT_SCHEMA = MASK_SCHEMA.append(pa.field("category_id", pa.int32())).append(
    pa.field("is_thing", pa.bool_())
)
"""The mask schema plus the category (1..K things, K+1..K+S stuff) and its kind."""

MAX_STUFF = SEMANTIC_VOID - 1
IMAGES_PER_REPORT = 1000
_ROWS_AT_ONCE = 4096

Progress = Callable[[str], Any]


@dataclass
class LabelCounts:
    """What an export wrote and left out.

    Attributes:
        images: images in the folder.
        images_without_things: images dropped for want of a thing; 0 when the settings keep them.
        things: visible thing segments.
        things_hidden: things without a visible pixel.
        stuff_segments: stuff segments.
        stuff_left_out: stuff classes that an image has below its things, but no segment of.
        thing_pixels: pixels of thing segments.
        stuff_pixels: pixels of stuff segments.
        void_pixels: pixels without label.
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
        """Count one image: its input, its merged label and its semantic map."""
        shown, classes = len(merged.thing_rows), np.unique(stuff[stuff >= 0])
        self.images += 1
        self.things += shown
        self.things_hidden += len(things.masks) - shown
        self.stuff_segments += len(merged.segments) - shown
        self.stuff_left_out += len(classes) - (len(merged.segments) - shown)
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
    num_clusters: int,
    num_stuff: int,
    settings: LabelSettings,
    on_progress: Progress | None = None,
) -> dict[str, int]:
    """Merge the labels of each image and write them, image by image.

    Writes `segments.arrow` (SEGMENT_SCHEMA, visible masks), `instances.json` (COCO, whole
    masks), `panoptic.json` with `panoptic/`, and `semantic/` (0 thing, 1..S stuff, 255 void).

    Args:
        folder: an empty or new folder.
        images: IMAGES_SCHEMA rows; rows of the other tables for other images are not read.
        things: MASK_SCHEMA rows.
        instance_clusters: instance_id int64, cluster_id int (0-based), one row a thing.
        stuff: STUFF_SCHEMA rows.
        num_clusters: K.
        num_stuff: S, at most 254.
        settings: merge rules.
        on_progress: told a sentence each 1,000 images.

    Returns:
        The fields of `LabelCounts`.

    Raises:
        ValueError: no image is left, a thing has no cluster, a cluster is out of range, a mask is not of its
            image's size, or S does not fit a byte.
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
    categories = label_categories(num_clusters, num_stuff)
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
            merged = merge_image(scene, stuff_pixels, num_clusters, settings)
            panoptic.add(image_id, image["path"], merged.segment_map, merged.segments)
            semantic = semantic_map(merged, num_clusters)
            write_png(folder / "semantic" / png_name(image_id), semantic)
            write_segments(_segment_rows(image_id, merged, thing_rows, num_clusters))
            counts.add(scene, stuff_pixels, merged, semantic)
            if on_progress is not None and position % IMAGES_PER_REPORT == 0:
                on_progress(f"pseudo labels: {position} of {len(rows)} images")
    panoptic.close()
    write_instances(
        folder / "instances.json",
        images,
        things,
        categories[:num_clusters],
        category_ids=things["cluster_id"].to_numpy() + 1,
    )
    return asdict(counts)


def label_categories(num_clusters: int, num_stuff: int) -> list[Category]:
    """Categories cluster_0001.. (things, 1..K), then stuff_0001.. (stuff, K+1..K+S)."""
    things = [Category(c, f"cluster_{c:04d}") for c in range(1, num_clusters + 1)]
    stuff = [
        Category(num_clusters + s, f"stuff_{s:04d}", isthing=False) for s in range(1, num_stuff + 1)
    ]
    return things + stuff


def with_clusters(things: pa.Table, instance_clusters: pa.Table) -> pa.Table:
    """Append the column `cluster_id` int32 to thing rows, by instance_id.

    Raises:
        ValueError: a thing has no cluster.
    """
    known = instance_clusters["instance_id"].to_numpy()
    order = np.argsort(known, kind="stable")
    wanted = things["instance_id"].to_numpy()
    places = np.searchsorted(known, wanted, sorter=order)
    found = places < len(known)
    found[found] = known[order[places[found]]] == wanted[found]
    if not found.all():
        raise ValueError(
            f"{np.count_nonzero(~found)} of {len(wanted)} things have no cluster (the first is "
            f"instance {wanted[~found][0]}): cluster the present thing masks anew"
        )
    clusters = instance_clusters["cluster_id"].to_numpy()[order[places]].astype(np.int32)
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
    image_id: int, merged: MergedImage, things: pa.Table, num_clusters: int
) -> Iterator[dict[str, Any]]:
    """Rows of SEGMENT_SCHEMA; a thing keeps id, score, source and round of its mask row."""
    told = things.select(["instance_id", "score", "source", "round"]).to_pylist()
    for position, segment in enumerate(merged.segments):
        is_thing = segment.category_id <= num_clusters
        if is_thing:
            origin = told[merged.thing_rows[position]]
        else:
            stuff_id = stuff_instance_id(image_id, segment.category_id - num_clusters - 1)
            origin = {"instance_id": stuff_id, "score": 1.0, "source": "stego", "round": 0}
        row = mask_row(image_id, mask=merged.segment_map == segment.id, **origin)
        yield {**row, "category_id": segment.category_id, "is_thing": is_thing}


@contextmanager
def _segment_file(path: Path) -> Iterator[Callable[[Iterable[dict[str, Any]]], None]]:
    """Give a function that appends rows to an Arrow file, which appears when the block ends."""
    waiting: list[dict[str, Any]] = []

    with replacing(path) as temporary, pa.ipc.new_file(str(temporary), SEGMENT_SCHEMA) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(waiting, schema=SEGMENT_SCHEMA))
            waiting.clear()

        def write(rows: Iterable[dict[str, Any]]) -> None:
            waiting.extend(rows)
            if len(waiting) >= _ROWS_AT_ONCE:
                flush()

        yield write
        flush()
