"""COCO's compressed run-length encoding of binary masks.

Runs go down the columns and start with background; counts are COCO's variable-length ASCII code.
pycocotools does the coding, so every COCO tool reads these bytes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask


def encode(masks: NDArray[np.bool_]) -> list[bytes]:
    """Encode binary masks.

    Args:
        masks: (m, H, W) bool.

    Returns:
        m compressed counts, as ASCII bytes.
    """
    if masks.ndim != 3 or masks.dtype != np.bool_:
        raise ValueError(f"masks must be (m, H, W) bool, got {masks.shape} {masks.dtype}")
    # Mask by mask: one column-major copy at a time, however many masks there are.
    return [
        coco_mask.encode(np.asfortranarray(mask.view(np.uint8)))["counts"]
        for mask in np.ascontiguousarray(masks)
    ]


def encode_enlarged(
    mask: NDArray[np.bool_], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> bytes:
    """Encode `mask[rows][:, columns]` without building it.

    Args:
        mask: (h, w) bool.
        rows: (H,) row of the mask that each row of the code repeats, rising.
        columns: (W,) likewise.
    """
    height, width = len(rows), len(columns)
    padded = np.zeros((mask.shape[1], mask.shape[0] + 2), dtype=bool)
    padded[:, 1:-1] = mask.T
    # Background pads each column, so that starts and stops of its runs alternate.
    changes = np.flatnonzero(padded[:, 1:] != padded[:, :-1])
    column, start = np.divmod(changes[::2], mask.shape[0] + 1)
    stop = changes[1::2] % (mask.shape[0] + 1)
    # Runs of each column of the mask, then of each column of the code.
    first = np.searchsorted(column, np.arange(mask.shape[1] + 1))
    count = np.diff(first)[columns]
    skipped = np.cumsum(count) - count - first[columns]
    run = np.arange(count.sum()) - np.repeat(skipped, count)
    offset = np.repeat(np.arange(width) * height, count)
    edges = np.searchsorted(rows, np.arange(mask.shape[0] + 1))
    starts, stops = offset + edges[start[run]], offset + edges[stop[run]]
    # Rows of the mask that the code leaves out are empty runs.
    starts, stops = starts[starts < stops], stops[starts < stops]
    apart = starts[1:] != stops[:-1]
    if len(starts):
        starts, stops = starts[np.append(True, apart)], stops[np.append(apart, True)]
    bounds = np.stack([starts, stops], axis=1)
    runs = np.diff(bounds.ravel(), prepend=0, append=height * width).tolist()
    if runs[-1] == 0:
        runs.pop()
    return bytes(
        coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"]
    )


def sample(
    counts: Sequence[bytes],
    height: int,
    width: int,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Decode the pixels at some rows and columns: (m, len(rows), len(columns)) bool."""
    masks = np.zeros((len(counts), len(rows), len(columns)), dtype=bool)
    for mask, code in zip(masks, counts, strict=True):
        decoded = coco_mask.decode({"size": [height, width], "counts": code})
        # Decoded masks lie column by column in memory.
        mask[:] = decoded.T[columns].take(rows, axis=1).T
    return masks


def decode(counts: Sequence[bytes], height: int, width: int) -> NDArray[np.bool_]:
    """Decode compressed counts.

    Args:
        counts: m compressed counts.
        height: Rows of every mask, px.
        width: Columns of every mask, px.

    Returns:
        (m, height, width) bool.
    """
    masks = np.zeros((len(counts), height, width), dtype=bool)
    for mask, code in zip(masks, counts, strict=True):
        mask[:] = coco_mask.decode({"size": [height, width], "counts": code}).view(np.bool_)
    return masks


def area(counts: Sequence[bytes], height: int, width: int) -> NDArray[np.int64]:
    """Return the area of each mask: (m,) int64 px."""
    return np.asarray(coco_mask.area(_coco(counts, height, width)), dtype=np.int64).reshape(-1)


def bbox_xywh(counts: Sequence[bytes], height: int, width: int) -> NDArray[np.float32]:
    """Return each mask's tight box: (m, 4) float32 x, y, w, h in px; zeros for an empty mask."""
    boxes = coco_mask.toBbox(_coco(counts, height, width))
    return np.asarray(boxes, dtype=np.float32).reshape(-1, 4)


def iou(counts: Sequence[bytes], height: int, width: int) -> NDArray[np.float64]:
    """Return the IoU of every pair of masks, (m, m) in [0, 1], without decoding them."""
    masks = _coco(counts, height, width)
    return np.asarray(coco_mask.iou(masks, masks, [False] * len(masks)), dtype=np.float64)


def _coco(counts: Sequence[bytes], height: int, width: int) -> list[dict[str, object]]:
    return [{"size": [height, width], "counts": code} for code in counts]
