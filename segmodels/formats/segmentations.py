"""Segmentations of COCO instance files: polygons and both run-length forms to compressed RLE.

Everything is checked before it reaches pycocotools, whose C code trusts its input.
"""

import math
from typing import Any

from pycocotools import mask as coco_mask

MIN_POLYGON_COORDINATES = 6


def segmentation_fault(segmentation: Any, height: int, width: int) -> str:
    """Describe the fault of a segmentation of an image of this size; empty if it has none."""
    if isinstance(segmentation, list):
        return _polygon_fault(segmentation, height, width)
    if isinstance(segmentation, dict):
        return _rle_fault(segmentation, height, width)
    return "has no segmentation; export polygons or run-length masks, boxes are not enough"


def segmentation_counts(segmentation: Any, height: int, width: int) -> bytes:
    """COCO compressed counts of a segmentation without fault.

    Polygons are united; one with fewer than three points covers nothing.
    """
    if isinstance(segmentation, list):
        polygons = [part for part in segmentation if len(part) >= MIN_POLYGON_COORDINATES]
        if not polygons:
            return _from_runs([height * width], height, width)
        parts = coco_mask.frPyObjects(polygons, height, width)
        return bytes(coco_mask.merge(parts)["counts"])
    counts = segmentation["counts"]
    if isinstance(counts, str):
        return counts.encode()
    return _from_runs(counts, height, width)


def _from_runs(runs: list[int], height: int, width: int) -> bytes:
    coded = coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return bytes(coded["counts"])


def _polygon_fault(polygons: list[Any], height: int, width: int) -> str:
    if not polygons:
        return "has an empty list of polygons; give every annotation a mask"
    for polygon in polygons:
        if not isinstance(polygon, list) or not polygon or len(polygon) % 2:
            return "has a polygon that is not a flat list x1, y1, x2, y2, ..."
        if not all(type(value) in {int, float} for value in polygon):
            return "has a polygon with a coordinate that is not a number"
        # Annotated polygons exceed the border a little; more means that they are another image's.
        low, high = min(polygon), max(polygon)
        reach = 2 * max(height, width)
        if not math.isfinite(sum(polygon)) or low < -reach or high > reach:
            return f"has a polygon far outside its image of {width} x {height} px"
    return ""


def _rle_fault(segmentation: dict[str, Any], height: int, width: int) -> str:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        return f"has a mask of size {size}, but its image is [{height}, {width}] (height, width)"
    if isinstance(counts, list):
        whole = all(type(run) is int and run >= 0 for run in counts)
        covered = sum(counts) if whole else -1
    elif isinstance(counts, str):
        covered = _pixels_of_code(counts)
    else:
        covered = -1
    if covered != height * width:
        return f"has run-length counts that do not cover its {height * width} pixels"
    return ""


def _pixels_of_code(code: str) -> int:
    """Sum the runs of compressed counts; -1 if they are malformed.

    Six bits a character from "0" on: five of value, one for "more follows"; the sign is the
    fifth bit of the last; from the fourth run on, a value is the difference to two runs before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in code:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return -1
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            return -1
        runs.append(value)
        value = shift = 0
    return -1 if shift else sum(runs)
