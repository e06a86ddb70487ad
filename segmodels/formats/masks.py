"""The mask table: one row an instance mask, the same schema in every stage.

Area, box and run-length code are computed here and nowhere else.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kernels import rle
from segmodels.formats.arrow import read_table, write_table

__all__ = [
    "MASK_SCHEMA",
    "MaskRow",
    "decode_masks",
    "group_by_image",
    "mask_row",
    "mask_table",
    "read_table",
    "write_table",
]

# rle_counts: COCO compressed; bbox: x, y, w, h in px; area in px; round: 0 for MaskCut, r for the
# r-th self-training round.
_MASK_COLUMNS: dict[str, pa.DataType] = {
    "image_id": pa.int64(),
    "instance_id": pa.int64(),
    "height": pa.int32(),
    "width": pa.int32(),
    "rle_counts": pa.binary(),
    "bbox": pa.list_(pa.float32(), 4),
    "area": pa.int32(),
    "score": pa.float32(),
    "source": pa.string(),
    "round": pa.int8(),
}
MASK_SCHEMA = pa.schema(_MASK_COLUMNS)


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskRow:
    """One instance, its mask given as pixels or as run-length code.

    Attributes:
        image_id: The image it lies in.
        instance_id: Unique within the table.
        mask: (H, W) bool; or None with the next three given.
        rle_counts: COCO compressed counts.
        height: Rows of the image, px.
        width: Columns of the image, px.
        score: Confidence; 1 where the method gives none.
        source: Method that made it, for example "maskcut".
        round: Self-training round, 0 before the first.
    """

    image_id: int
    instance_id: int
    mask: NDArray[np.bool_] | None = None
    rle_counts: bytes | None = None
    height: int | None = None
    width: int | None = None
    score: float
    source: str
    round: int

    def __post_init__(self) -> None:
        """Accept exactly one of the two forms."""
        coded = [part is not None for part in (self.rle_counts, self.height, self.width)]
        if any(coded) != all(coded) or all(coded) == (self.mask is not None):
            raise ValueError("a MaskRow takes either mask, or rle_counts with height and width")


def mask_row(
    image_id: int,
    instance_id: int,
    mask: NDArray[np.bool_],
    *,
    score: float,
    source: str,
    round: int,
) -> dict[str, Any]:
    """Describe one mask, (H, W) bool, as a row of MASK_SCHEMA."""
    row = MaskRow(
        image_id=image_id,
        instance_id=instance_id,
        mask=mask,
        score=score,
        source=source,
        round=round,
    )
    return _row(row)


def mask_table(rows: Iterable[MaskRow | Mapping[str, Any]]) -> pa.Table:
    """Collect rows, given as MaskRow or as made by `mask_row`, in their order."""
    dicts = [_row(row) if isinstance(row, MaskRow) else dict(row) for row in rows]
    return pa.Table.from_pylist(dicts, schema=MASK_SCHEMA)


def decode_masks(table: pa.Table) -> NDArray[np.bool_]:
    """Decode the masks of rows that share one size, as the rows of one image do.

    Returns:
        (n, H, W) bool; (0, 0, 0) for an empty table.

    Raises:
        ValueError: The rows have several sizes.
    """
    if table.num_rows == 0:
        return np.zeros((0, 0, 0), dtype=bool)
    rows = table.select(["height", "width", "rle_counts"]).to_pylist()
    sizes = {(row["height"], row["width"]) for row in rows}
    if len(sizes) > 1:
        raise ValueError(f"masks of one array must share one size, got {sorted(sizes)}")
    height, width = sizes.pop()
    return rle.decode([row["rle_counts"] for row in rows], height, width)


def group_by_image(table: pa.Table) -> dict[int, pa.Table]:
    """Split a table by image_id, ids ascending and the rows of an image in their order."""
    if table.num_rows == 0:
        return {}
    ids = table["image_id"].to_numpy()
    if np.any(ids[1:] < ids[:-1]):
        order = np.argsort(ids, kind="stable")
        table, ids = table.take(order), ids[order]
    unique, starts = np.unique(ids, return_index=True)
    stops = np.append(starts[1:], len(ids))
    return {
        int(image_id): table.slice(start, stop - start)
        for image_id, start, stop in zip(
            unique.tolist(), starts.tolist(), stops.tolist(), strict=True
        )
    }


def _row(row: MaskRow) -> dict[str, Any]:
    counts, height, width = _coded(row)
    return {
        "image_id": row.image_id,
        "instance_id": row.instance_id,
        "height": height,
        "width": width,
        "rle_counts": counts,
        "bbox": rle.bbox_xywh([counts], height, width)[0].tolist(),
        "area": int(rle.area([counts], height, width)[0]),
        "score": float(row.score),
        "source": row.source,
        "round": row.round,
    }


def _coded(row: MaskRow) -> tuple[bytes, int, int]:
    """Give counts, height and width of either form."""
    if row.mask is not None:
        height, width = row.mask.shape
        return rle.encode(row.mask[None])[0], height, width
    # The constructor has seen to it that all three are there.
    return cast("tuple[bytes, int, int]", (row.rle_counts, row.height, row.width))
