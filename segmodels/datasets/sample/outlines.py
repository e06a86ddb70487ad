"""Outlines drawn for this project around the objects in scikit-image's photographs.

`outlines.json` holds, for each object, the photograph and polygons in its pixel coordinates (x
right, y down, the centre of the first pixel is (0, 0)): the union of `add` without that of `cut`.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from PIL import Image, ImageDraw

from segmodels.datasets.sample.photographs import photograph

_SUPERSAMPLING = 4
_MARGIN = 3

Polygon = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Outline:
    """One object's outline: polygons which add area and polygons which cut holes, in px."""

    photograph: str
    add: tuple[Polygon, ...]
    cut: tuple[Polygon, ...]


@cache
def load_outlines() -> dict[str, Outline]:
    """Return all outlines by object name."""
    content = json.loads(
        files("segmodels.datasets.sample").joinpath("outlines.json").read_text("utf-8")
    )
    return {
        name: Outline(
            entry["photograph"],
            tuple(tuple((x, y) for x, y in polygon) for polygon in entry["add"]),
            tuple(tuple((x, y) for x, y in polygon) for polygon in entry["cut"]),
        )
        for name, entry in content.items()
    }


@cache
def cut_out(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Cut one object out of its photograph along its outline.

    Returns:
        rgb (h, w, 3) float32 in [0, 1] and coverage (h, w) float32 in [0, 1], cropped to the object
        with a small margin; both read-only.
    """
    outline = load_outlines()[name]
    pixels = photograph(outline.photograph)
    height, width = pixels.shape[:2]
    points = np.array([point for polygon in outline.add for point in polygon])
    left, top = np.maximum(np.floor(points.min(axis=0)).astype(int) - _MARGIN, 0)
    right = min(int(np.ceil(points[:, 0].max())) + _MARGIN + 1, width)
    bottom = min(int(np.ceil(points[:, 1].max())) + _MARGIN + 1, height)
    coverage = _coverage(outline, left, top, right - left, bottom - top)
    rgb = pixels[top:bottom, left:right].copy()
    rgb.setflags(write=False)
    coverage.setflags(write=False)
    return rgb, coverage


def _coverage(outline: Outline, left: int, top: int, width: int, height: int) -> np.ndarray:
    factor = _SUPERSAMPLING
    canvas = Image.new("L", (width * factor, height * factor), 0)
    draw = ImageDraw.Draw(canvas)
    for polygons, value in ((outline.add, 255), (outline.cut, 0)):
        for polygon in polygons:
            draw.polygon(
                [((x - left + 0.5) * factor, (y - top + 0.5) * factor) for x, y in polygon],
                fill=value,
            )
    fine = np.asarray(canvas, dtype=np.float32) / 255.0
    coverage = fine.reshape(height, factor, width, factor).mean(axis=(1, 3))
    return np.asarray(coverage, dtype=np.float32)
