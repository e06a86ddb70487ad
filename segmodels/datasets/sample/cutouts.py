"""Objects taken from photographs: cut out along outlines and recoloured; a horse clad in fur."""

import colorsys
from functools import cache

import numpy as np
from scipy import ndimage

from segmodels.datasets.sample.outlines import cut_out
from segmodels.datasets.sample.photographs import photograph
from segmodels.datasets.sample.sprite import Exemplar, Pose, Sprite, place_cut_out
from segmodels.datasets.sample.textures import Split, ramp, relief

Coat = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
_METALS: tuple[Coat, ...] = (
    ((0.12, 0.12, 0.14), (0.6, 0.61, 0.64), (0.97, 0.97, 1.0)),  # silver
    ((0.25, 0.15, 0.02), (0.8, 0.6, 0.18), (1.0, 0.93, 0.62)),  # gold
    ((0.2, 0.07, 0.03), (0.7, 0.38, 0.22), (0.98, 0.76, 0.6)),  # copper
)


def coin(name: str, outline: str, metal: int) -> Exemplar:
    """Return one of the photographed coins, struck in silver, gold or copper (metal 0, 1, 2)."""

    def draw(pose: Pose) -> Sprite:
        rgb, alpha = cut_out(outline)
        inside = alpha > 0.5
        low, high = np.percentile(rgb[inside], [2, 98])
        relief = np.clip((rgb[..., 0] - low) / (high - low), 0, 1)
        struck = ramp(relief, *(np.array(colour) for colour in _METALS[metal]))
        squeeze = float(np.cos(np.deg2rad(0.5 * abs(pose.turn))))
        return place_cut_out(struck, alpha, pose, squeeze=squeeze)

    return Exemplar(name, "coin", draw)


def photographed(name: str, category: str, outline: str) -> Exemplar:
    """Return an object with the colours of its photograph."""

    def draw(pose: Pose) -> Sprite:
        rgb, alpha = cut_out(outline)
        return place_cut_out(rgb, alpha, pose)

    return Exemplar(name, category, draw)


def motorcycle(name: str, outline: str, hue: float) -> Exemplar:
    """Return one view of the motorcycle, its red paint in another hue (turns)."""

    def draw(pose: Pose) -> Sprite:
        rgb, alpha = cut_out(outline)
        squeeze = 0.82 + 0.18 * float(np.cos(np.deg2rad(pose.turn)))
        return place_cut_out(_repaint(rgb, hue), alpha, pose, squeeze=squeeze)

    return Exemplar(name, "motorcycle", draw)


def _repaint(rgb: np.ndarray, hue: float) -> np.ndarray:
    """Exchange the hue of paint, where red exceeds the other channels, and keep light and shade."""
    red, others = rgb[..., 0], rgb[..., 1:].max(axis=-1)
    paint = np.clip((red - others - 0.12) / 0.2, 0, 1)[..., None]
    pure = np.asarray(colorsys.hsv_to_rgb(hue, 1.0, 1.0), np.float32)
    painted = others[..., None] + (red - others)[..., None] * pure
    return np.asarray((1 - paint) * rgb + paint * painted)


@cache
def _horse_silhouette() -> np.ndarray:
    return 1 - photograph("horse.png")[..., 0]


def horse(
    name: str, split: Split, coat: Coat, mane: tuple[float, float, float], rng: np.random.Generator
) -> Exemplar:
    """Return a horse: the photographed silhouette bent to its own build and clad in the cat's fur.

    Args:
        name: exemplar name.
        split: which part of the fur.
        coat: dark, middle and light colour of the fur.
        mane: colour of mane and tail.
        rng: source of the build.
    """
    build = {
        "neck": rng.uniform(-18, 18),
        "legs": rng.uniform(-0.16, 0.14),
        "stride": rng.uniform(-14, 14),
        "barrel": rng.uniform(-0.1, 0.12),
        "fur": rng.uniform(0.5, 0.9),
    }

    def draw(pose: Pose) -> Sprite:
        rgb, alpha = _groomed_horse(split, coat, mane, tuple(sorted(build.items())))
        return place_cut_out(rgb, alpha, pose)

    return Exemplar(name, "horse", draw)


@cache
def _groomed_horse(
    split: Split,
    coat: Coat,
    mane: tuple[float, float, float],
    build: tuple[tuple[str, float], ...],
) -> tuple[np.ndarray, np.ndarray]:
    own = dict(build)
    silhouette = np.pad(_horse_silhouette(), 30)
    y, x = np.mgrid[0 : silhouette.shape[0], 0 : silhouette.shape[1]].astype(np.float32)
    front = np.clip((x - 290) / 110, 0, 1)  # from the withers to the muzzle
    below = np.clip((y - 190) / 130, 0, 1)  # from the belly to the hooves
    back_leg = np.clip((270 - x) / 200, -1, 1)
    from_y = y + own["neck"] * front**1.5 * (1 - below)
    from_y = np.where(from_y > 190, 190 + (from_y - 190) * (1 - own["legs"]), from_y)
    from_x = x + own["stride"] * below**1.5 * back_leg
    from_y += own["barrel"] * (from_y - 150) * np.exp(-(((from_y - 150) / 70) ** 2))
    alpha = ndimage.map_coordinates(silhouette, [from_y, from_x], order=1, mode="constant")
    u, v = from_x * own["fur"], from_y * own["fur"]
    hairs = relief("fur", split)
    fur = (hairs.sample(u, v) - 0.9 * hairs.sample(u, v, 8.0))[
        ..., 0
    ]  # without the cat's own stripes
    fur = np.clip(0.4 + 1.1 * fur, 0, 1)
    rgb = ramp(0.25 + 0.6 * fur, *(np.array(colour) for colour in coat))
    hair = np.clip(_mane(from_x - 30, from_y - 30), 0, 1)[..., None]
    strands = 0.75 + 0.5 * fur[..., None]
    rgb = (1 - hair) * rgb + hair * np.array(mane) * strands
    rgb *= np.where(from_y - 30 > 297, 0.35, 1.0)[..., None]  # hooves
    return np.clip(rgb * _roundness(alpha)[..., None], 0, 1).astype(np.float32), alpha


def _mane(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where mane and tail are on the silhouette, in its own pixels."""
    tail = (x < 52) & (y > 95)
    crest = 79 - 62 * np.clip((x - 248) / 85, 0, 1) ** 0.75  # the upper edge of the neck
    neck = (x > 248) & (x < 345) & (y < crest + 13)
    return ndimage.gaussian_filter((tail | neck).astype(np.float32), 2.0)


def _roundness(alpha: np.ndarray) -> np.ndarray:
    """Brightness of a body blown up from its silhouette, lit from above."""
    inside = alpha > 0.5
    depth = np.minimum(ndimage.distance_transform_edt(inside), 40.0) / 40.0
    height = ndimage.gaussian_filter(np.sqrt(1 - (1 - depth) ** 2) * 34, 2.5)
    slope_y, slope_x = np.gradient(height)
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    light = (-0.25 * -slope_x + 0.75 * slope_y + 0.62) / length
    return np.asarray(0.5 + 0.62 * np.clip(light, 0, 1))
