"""The mask table: one row an instance mask, the same schema in every stage.

Area, box and run-length code are computed here and nowhere else.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kernels import rle
from segmodels.formats.arrow import column_values

# rle_counts: COCO compressed; bbox: x, y, w, h in px; area in px; round: 0 for MaskCut, r for the
# r-th self-training round.
_MASK_COLUMNS: dict[str, pa.DataType] = {
    "image_id": pa.int64(),
    "instance_id": pa.int64(),
    "height": pa.int32(),
    "width": pa.int32(),
    # 64-bit offsets: the masks of a million images exceed 2 GiB.
    "rle_counts": pa.large_binary(),
    "bbox": pa.list_(pa.float32(), 4),
    "area": pa.int32(),
    "score": pa.float32(),
    "source": pa.string(),
    "round": pa.int8(),
}
MASK_SCHEMA = pa.schema(_MASK_COLUMNS)


def mask_row(
    image_id: int,
    instance_id: int,
    mask: NDArray[np.bool_],
    *,
    score: float,
    source: str,
    round: int,
) -> dict[str, Any]:
    """Give the row of MASK_SCHEMA of one instance.

    Args:
        image_id: Image of the instance.
        instance_id: Unique within the table.
        mask: (H, W) bool.
        score: Confidence; 1 where the method gives none.
        source: Method that made the mask, for example "maskcut".
        round: Self-training round, 0 before the first.
    """
    return code_row(
        image_id,
        instance_id,
        rle.encode(mask[None])[0],
        mask.shape,
        score=score,
        source=source,
        round=round,
    )


def code_row(
    image_id: int,
    instance_id: int,
    counts: bytes,
    size: tuple[int, ...],
    *,
    score: float,
    source: str,
    round: int,
) -> dict[str, Any]:
    """`mask_row` of an encoded mask of a size (height, width)."""
    height, width = size
    return {
        "image_id": image_id,
        "instance_id": instance_id,
        "height": height,
        "width": width,
        "rle_counts": counts,
        "bbox": rle.bbox_xywh([counts], height, width)[0].tolist(),
        "area": int(rle.area([counts], height, width)[0]),
        "score": float(score),
        "source": source,
        "round": round,
    }


def mask_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Collect rows of `mask_row` in their order."""
    return pa.Table.from_pylist(list(map(dict, rows)), schema=MASK_SCHEMA)


def decode_masks(table: pa.Table) -> NDArray[np.bool_]:
    """Decode masks of one size, such as those of one image.

    Returns:
        (n, H, W) bool; (0, 0, 0) for an empty table.

    Raises:
        ValueError: The rows have several sizes.
    """
    if table.num_rows == 0:
        return np.zeros((0, 0, 0), dtype=bool)
    return rle.decode(column_values(table, "rle_counts"), *one_size(table))


def one_size(table: pa.Table) -> tuple[int, int]:
    """Height and width, px, of the masks of one image.

    Raises:
        ValueError: The rows have several sizes, or there is none.
    """
    columns = (column_values(table, name) for name in ("height", "width"))
    sizes = set(zip(*columns, strict=True))
    if len(sizes) != 1:
        raise ValueError(f"masks of one array must share one size, got {sorted(sizes)}")
    height, width = sizes.pop()
    return height, width


def group_by_image(table: pa.Table) -> dict[int, pa.Table]:
    """Split a table by image_id, ascending; the rows of an image keep their order."""
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
