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


def _coco(counts: Sequence[bytes], height: int, width: int) -> list[dict[str, object]]:
    return [{"size": [height, width], "counts": code} for code in counts]
