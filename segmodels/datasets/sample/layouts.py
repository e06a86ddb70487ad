"""Layouts of stuff: walls above ground, horizons, shores, paths, ground from above."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segmodels.datasets.sample.catalogue import STUFF
from segmodels.datasets.sample.stuff import facing, paint, receding
from segmodels.datasets.sample.textures import Split, fractal_noise


@dataclass(frozen=True)
class Backdrop:
    """A scene without objects.

    Attributes:
        rgb: (H, W, 3) float32 in [0, 1].
        stuff: (H, W) int32 index into STUFF.
        floor: (H, W) bool, where an object may touch the ground.
        from_above: whether the eye looks straight down.
    """

    rgb: np.ndarray
    stuff: np.ndarray
    floor: np.ndarray
    from_above: bool


@dataclass(frozen=True)
class Setting:
    """A layout and the stuff it is filled with, from top to bottom."""

    layout: str
    stuff: tuple[str, ...]


SETTINGS = (
    Setting("stacked", ("brick", "grass")),
    Setting("stacked", ("brick", "gravel")),
    Setting("stacked", ("brick", "sand")),
    Setting("stacked", ("sky", "grass")),
    Setting("stacked", ("sky", "gravel")),
    Setting("stacked", ("sky", "sand")),
    Setting("stacked", ("sky", "water", "sand")),
    Setting("stacked", ("sky", "water", "gravel")),
    Setting("stacked", ("sky", "water", "grass")),
    Setting("stacked", ("sky", "brick", "grass")),
    Setting("path", ("sky", "grass", "sand")),
    Setting("path", ("brick", "grass", "gravel")),
    Setting("parted", ("grass", "gravel")),
    Setting("parted", ("water", "sand")),
    *(Setting("whole", (name,)) for name in ("brick", "grass", "gravel", "sand") for _ in range(2)),
)
_GROUND = frozenset({"grass", "gravel", "sand"})
_BLUR = (0.8, 2.0)  # standard deviation, px
_HAZE = (0.1, 0.35)  # share of the mean colour
_UNEVENNESS = {"sky": 5.0, "brick": 0.4, "water": 2.0}  # px, of a region's lower edge


def backdrop(
    setting: Setting, shape: tuple[int, int], split: Split, rng: np.random.Generator
) -> Backdrop:
    """Lay out and paint the stuff of one scene of shape (H, W)."""
    regions = _LAYOUTS[setting.layout](setting, shape, rng)
    whole = setting.layout == "whole"
    from_above = setting.layout == "parted" or (whole and bool(rng.integers(2)))
    scale = rng.uniform(0.85, 1.5)
    rgb = np.zeros((*shape, 3), np.float32)
    stuff = np.zeros(shape, np.int32)
    for name, region in zip(setting.stuff, regions, strict=True):
        if from_above or (name in {"brick", "sky"} and not whole):
            plane = facing(shape, scale, rng)
        else:
            top = -0.5 * shape[0] if whole else float(np.flatnonzero(region.any(axis=1))[0]) - 4
            plane = receding(shape, top, scale, rng)
        painted = paint(name, plane, split, rng)
        soft = ndimage.gaussian_filter(region.astype(np.float32), 0.7)[..., None]
        rgb = (1 - soft) * rgb + soft * painted if rgb.any() else painted
        stuff[region] = STUFF.index(name)
    walkable = [STUFF.index(name) for name in setting.stuff if whole or name in _GROUND]
    return Backdrop(_out_of_focus(rgb, rng), stuff, np.isin(stuff, walkable), from_above)


def _out_of_focus(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur and haze, as behind objects in focus."""
    blur = rng.uniform(*_BLUR)
    haze = rng.uniform(*_HAZE)
    soft = ndimage.gaussian_filter(rgb, (blur, blur, 0))
    return np.asarray(soft + haze * (rgb.mean(axis=(0, 1)) - soft))


Regions = list[np.ndarray]


def _stacked(setting: Setting, shape: tuple[int, int], rng: np.random.Generator) -> Regions:
    """Two or three regions above each other."""
    height = shape[0]
    if len(setting.stuff) == 2:
        levels = [rng.uniform(0.32, 0.55) * height]
    else:
        first = rng.uniform(0.18, 0.3) * height
        levels = [first, first + rng.uniform(0.17, 0.27) * height]
    edges = [
        _edge(level, _UNEVENNESS[name], shape[1], rng)
        for level, name in zip(levels, setting.stuff[:-1], strict=True)
    ]
    return _between_edges(edges, shape)


def _path(setting: Setting, shape: tuple[int, int], rng: np.random.Generator) -> Regions:
    """A path that runs through the ground towards the horizon."""
    height, width = shape
    level = rng.uniform(0.3, 0.45) * height
    upper, ground = _between_edges([_edge(level, _UNEVENNESS[setting.stuff[0]], width, rng)], shape)
    y, x = np.mgrid[0:height, 0:width]
    near = np.clip((y - level) / (height - level), 0, 1)
    vanishing, foot = rng.uniform(0.25, 0.75, 2) * width
    middle = vanishing + (foot - vanishing) * near + 14 * np.sin(near * rng.uniform(2, 5)) * near
    wobble = fractal_noise(rng, shape, (25.0, 40.0), octaves=3)
    half_width = width * (0.03 + rng.uniform(0.2, 0.3) * near) + 2 * wobble
    path = ground & (np.abs(x - middle) < half_width)
    return [upper, ground & ~path, path]


def _parted(setting: Setting, shape: tuple[int, int], rng: np.random.Generator) -> Regions:
    """Two grounds seen from above, parted by a winding line."""
    del setting
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float64)
    angle = rng.uniform(0, 2 * np.pi)
    across = (x - shape[1] / 2) * np.cos(angle) + (y - shape[0] / 2) * np.sin(angle)
    winding = fractal_noise(rng, shape, (110.0, 110.0), octaves=4) * 14
    first = across + winding < -rng.uniform(0.02, 0.16) * min(shape)
    return [first, ~first]


def _whole(setting: Setting, shape: tuple[int, int], rng: np.random.Generator) -> Regions:
    """One ground."""
    del setting, rng
    return [np.ones(shape, bool)]


_LAYOUTS: dict[str, Callable[[Setting, tuple[int, int], np.random.Generator], Regions]] = {
    "stacked": _stacked,
    "path": _path,
    "parted": _parted,
    "whole": _whole,
}


def _edge(level: float, unevenness: float, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return the row of a nearly level edge in each column (W,)."""
    bumps = fractal_noise(rng, (1, width), (1.0, 80.0), octaves=4)[0]
    tilt = np.linspace(-1, 1, width) * rng.uniform(-0.02, 0.02) * width
    return np.asarray(level + tilt + unevenness * bumps)


def _between_edges(edges: list[np.ndarray], shape: tuple[int, int]) -> list[np.ndarray]:
    rows = np.arange(shape[0])[:, None]
    index = np.sum([rows >= edge[None] for edge in edges], axis=0)
    return [index == k for k in range(len(edges) + 1)]
