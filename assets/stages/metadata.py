"""What a user sees beside a materialisation: counts, schemas, histograms, contact sheets."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa

from segmodels.formats.arrow import column_values, evenly_spaced_rows, read_table, rows_in

# The UI ships a run's metadata whole, so a picture must stay small.
PICTURE_BYTES = 90_000
SHEET_IMAGES = 12


def table_metadata(table: pa.Table) -> dict[str, Any]:
    """Row count and column schema of an Arrow table, in the form that the UI shows."""
    columns = [dg.TableColumn(name=field.name, type=str(field.type)) for field in table.schema]
    return {
        "dagster/row_count": table.num_rows,
        "dagster/column_schema": dg.TableSchema(columns=columns),
    }


def picture(image: np.ndarray) -> dg.MarkdownMetadataValue:
    """An (H, W, 3) uint8 RGB picture as Markdown, shrunk to the byte budget."""
    from segmodels.pictures.encode import data_uri, encode_jpeg

    content = encode_jpeg(image, PICTURE_BYTES)
    return dg.MetadataValue.md(f"![preview]({data_uri(content)})")


def image_sheet(images: pa.Table) -> dg.MarkdownMetadataValue:
    """Contact sheet of images spread evenly over the table."""
    from segmodels.pictures.sheets import contact_sheet

    rows = evenly_spaced_rows(images, SHEET_IMAGES).to_pylist()
    return picture(contact_sheet([_read(row) for row in rows], [row["path"] for row in rows]))


def mask_sheet(images: pa.Table, masks: pa.Table) -> dg.MarkdownMetadataValue:
    """Contact sheet of images with their masks drawn over them."""
    from segmodels.formats.masks import decode_masks
    from segmodels.pictures.overlays import overlay_masks
    from segmodels.pictures.sheets import contact_sheet

    shown, tiles, captions = evenly_spaced_rows(images, SHEET_IMAGES), [], []
    masks = rows_in(masks, "image_id", column_values(shown, "image_id"))
    for row in shown.to_pylist():
        own = rows_in(masks, "image_id", [row["image_id"]])
        image = _read(row)
        tiles.append(overlay_masks(image, decode_masks(own)) if own.num_rows else image)
        captions.append(f"{own.num_rows} masks")
    return picture(contact_sheet(tiles, captions))


def stuff_sheet(images: pa.Table, segments: pa.Table) -> dg.MarkdownMetadataValue:
    """Contact sheet of images with their stuff clusters in muted colours."""
    from segmodels.formats.masks import decode_masks
    from segmodels.pictures.overlays import overlay_panoptic
    from segmodels.pictures.sheets import contact_sheet

    shown, tiles, captions = evenly_spaced_rows(images, SHEET_IMAGES), [], []
    segments = rows_in(segments, "image_id", column_values(shown, "image_id"))
    for row in shown.to_pylist():
        own = rows_in(segments, "image_id", [row["image_id"]])
        clusters = column_values(own, "cluster_id")
        segment_map = np.zeros((row["height"], row["width"]), dtype=np.int32)
        for cluster, mask in zip(clusters, decode_masks(own), strict=True):
            segment_map[mask] = cluster + 1
        categories = {cluster + 1: (cluster + 1, False) for cluster in clusters}
        tiles.append(overlay_panoptic(_read(row), segment_map, categories))
        captions.append(f"{len(clusters)} stuff clusters")
    return picture(contact_sheet(tiles, captions))


def label_sheet(shards: Mapping[int, Path]) -> dg.MarkdownMetadataValue:
    """Contact sheet of images with their merged pseudo labels: vivid things, muted stuff.

    Args:
        shards: folders of `write_pseudo_labels` by shard number; those of the shown images are read.
    """
    from segmodels.formats.segment_png import png_name, read_rgb_png, rgb_to_id
    from segmodels.pictures.overlays import overlay_panoptic
    from segmodels.pictures.sheets import contact_sheet

    images = pa.concat_tables([read_table(folder / "images.arrow") for folder in shards.values()])
    tiles, captions = [], []
    for row in evenly_spaced_rows(images, SHEET_IMAGES).to_pylist():
        folder = shards[row["shard"]]
        own = rows_in(read_table(folder / "segments.arrow"), "image_id", [row["image_id"]])
        columns = (column_values(own, name) for name in ("segment_id", "category_id", "is_thing"))
        segments = {
            number: (category, thing) for number, category, thing in zip(*columns, strict=True)
        }
        segment_map = rgb_to_id(read_rgb_png(folder / "panoptic" / png_name(row["image_id"])))
        tiles.append(overlay_panoptic(_read(row), segment_map, segments))
        captions.append(f"{len(segments)} segments")
    return picture(contact_sheet(tiles, captions))


def area_histogram(masks: pa.Table) -> dg.MarkdownMetadataValue:
    """How many masks cover which share of their image."""
    share = masks["area"].to_numpy() / np.maximum(
        masks["height"].to_numpy().astype(np.int64) * masks["width"].to_numpy(), 1
    )
    edges = [0.0, 0.001, 0.01, 0.03, 0.1, 0.3, 0.6, 1.0]
    counts, _ = np.histogram(share, bins=edges)
    names = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    return bar_table("share of the image", names, counts.tolist())


def bar_table(
    title: str, names: Sequence[str], counts: Sequence[float]
) -> dg.MarkdownMetadataValue:
    """A Markdown table with a bar for each count."""
    top = max([*counts, 1])
    lines = [f"| {title} | count | |", "|---|---:|---|"]
    lines += [
        f"| {name} | {count:g} | {'█' * round(24 * count / top)} |"
        for name, count in zip(names, counts, strict=True)
    ]
    return dg.MetadataValue.md("\n".join(lines))


def curve(title: str, points: Sequence[Mapping[str, float]], columns: Sequence[str]) -> Any:
    """A Markdown table of at most 20 points of a curve."""
    step = max(1, len(points) // 20)
    chosen = list(points)[::step]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---:|" * len(columns)]
    lines += [
        "| " + " | ".join(f"{point.get(name, float('nan')):.4g}" for name in columns) + " |"
        for point in chosen
    ]
    return dg.MetadataValue.md(f"{title}\n\n" + "\n".join(lines))


def _read(row: Mapping[str, Any]) -> np.ndarray:
    """An image for a preview, grey where its file cannot be read any more: the result is there."""
    from segmodels.formats.decode import read_image
    from segmodels.formats.errors import UnreadableImageError

    try:
        return read_image(row["source"], row["path"])
    except UnreadableImageError:
        return np.full((row["height"], row["width"], 3), 127, np.uint8)
