"""The stuff classes: how brick, grass, gravel, sand, sky and water fill a region."""

from dataclasses import dataclass

import numpy as np

from segmodels.datasets.sample.textures import (
    Split,
    fractal_noise,
    ramp,
    relief,
    smoothed_levels,
)


@dataclass(frozen=True)
class Plane:
    """Where each pixel (H, W) looks on a surface: u, v in texels, footprint in texels a pixel."""

    u: np.ndarray
    v: np.ndarray
    footprint: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.u.shape[0], self.u.shape[1]


def facing(shape: tuple[int, int], scale: float, rng: np.random.Generator) -> Plane:
    """Return a surface seen squarely: a wall, or the ground from above."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float64)
    start = rng.uniform(0, 60, 2)
    return Plane(x * scale + start[0], y * scale + start[1], np.full(shape, scale))


def receding(
    shape: tuple[int, int], horizon: float, scale: float, rng: np.random.Generator
) -> Plane:
    """Return a ground from the lower edge to the row `horizon`; scale in texels a pixel below."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float64)
    span = shape[0] - horizon
    nearness = np.maximum((y - horizon) / span, 0) + 0.45
    distance = 1.45 / nearness
    start = rng.uniform(0, 200, 2)
    return Plane(
        (x - shape[1] / 2) * distance * scale + start[0] + 200,
        -1.45 * span * distance * scale + start[1] + 2000,
        distance**1.5 * scale,
    )


def paint(category: str, plane: Plane, split: Split, rng: np.random.Generator) -> np.ndarray:
    """Fill a whole image with one stuff class.

    Args:
        category: name of the class.
        plane: where its surface lies (the sky is painted by image rows).
        split: which part of the photographs.
        rng: source of colours and of rendered patterns.

    Returns:
        (H, W, 3) float32 in [0, 1].
    """
    return {
        "brick": _brick,
        "grass": _grass,
        "gravel": _gravel,
        "sand": _sand,
        "sky": _sky,
        "water": _water,
    }[category](plane, split, rng)


def _between(
    rng: np.random.Generator, one: tuple[float, ...], other: tuple[float, ...]
) -> np.ndarray:
    t = rng.uniform()
    return (1 - t) * np.array(one) + t * np.array(other)


def _scattered(name: str, plane: Plane, split: Split, rng: np.random.Generator) -> np.ndarray:
    """Read an unordered texture from two places at once, so that its mirroring does not show."""
    source = relief(name, split)
    first = source.sample(plane.u, plane.v, plane.footprint)[..., 0]
    angle = rng.uniform(0.4, 1.2)
    u = plane.u * np.cos(angle) - plane.v * np.sin(angle) + 71
    v = plane.u * np.sin(angle) + plane.v * np.cos(angle) + 113
    second = source.sample(u, v, plane.footprint)[..., 0]
    share = np.clip(0.5 + 4 * fractal_noise(rng, plane.shape, (45.0, 60.0), octaves=3), 0, 1)
    return np.asarray((1 - share) * first + share * second)


def _mottled(rgb: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    patches = fractal_noise(rng, (rgb.shape[0], rgb.shape[1]), (70.0, 90.0), octaves=3)
    return np.asarray(rgb * (1 + strength * np.clip(patches, -2, 2))[..., None])


def _brick(plane: Plane, split: Split, rng: np.random.Generator) -> np.ndarray:
    tone = _between(rng, (0.66, 0.27, 0.18), (0.62, 0.38, 0.26))
    mortar = _between(rng, (0.82, 0.76, 0.7), (0.66, 0.6, 0.55))
    courses = relief("brick", split).sample(plane.u, plane.v, plane.footprint)[..., 0]
    return _mottled(ramp(courses, tone * 0.7, tone, mortar), 0.05, rng)


def _grass(plane: Plane, split: Split, rng: np.random.Generator) -> np.ndarray:
    tone = _between(rng, (0.24, 0.4, 0.12), (0.4, 0.46, 0.17))
    blades = _scattered("grass", plane, split, rng)
    return _mottled(ramp(blades, tone * 0.4, tone, tone * 1.05 + 0.14), 0.08, rng)


def _gravel(plane: Plane, split: Split, rng: np.random.Generator) -> np.ndarray:
    tone = _between(rng, (0.5, 0.5, 0.53), (0.55, 0.5, 0.45))
    stones = _scattered("gravel", plane, split, rng)
    return _mottled(ramp(stones, tone * 0.5, tone, tone * 1.5), 0.05, rng)


def _sand(plane: Plane, split: Split, rng: np.random.Generator) -> np.ndarray:
    tone = _between(rng, (0.82, 0.69, 0.46), (0.78, 0.62, 0.42))
    dunes = _scattered("moon", plane, split, rng)
    grains = rng.standard_normal(plane.shape)
    ripples = np.sin(plane.v / 9 + 1.5 * fractal_noise(rng, plane.shape, (60.0, 90.0), octaves=2))
    light = np.clip(0.5 + 0.5 * (dunes - 0.5) + 0.07 * grains + 0.07 * ripples, 0, 1)
    return ramp(light, tone * 0.72, tone, np.minimum(tone * 1.2, 1))


def _sky(plane: Plane, split: Split, rng: np.random.Generator) -> np.ndarray:
    del split  # rendered: every sky differs
    height, width = plane.shape
    top = _between(rng, (0.2, 0.43, 0.8), (0.36, 0.6, 0.92))
    low = _between(rng, (0.74, 0.86, 0.96), (0.9, 0.82, 0.76))
    fall = np.clip(np.linspace(0, 2.0, height), 0, 1)[:, None, None]
    blue = (1 - fall) * top + fall * low
    clouds = fractal_noise(rng, (height, width), (45.0, 110.0), octaves=5)
    cover = np.clip((clouds - rng.uniform(0.0, 0.9)) / 1.4, 0, 0.9)[..., None]
    return np.asarray((1 - cover) * blue + cover * 0.97, dtype=np.float32)


def _water(plane: Plane, split: Split, rng: np.random.Generator) -> np.ndarray:
    del split  # rendered: every water differs
    deep = _between(rng, (0.03, 0.22, 0.36), (0.06, 0.3, 0.32))
    waves = fractal_noise(rng, (384, 512), (22.0, 60.0), octaves=4)
    surface = smoothed_levels(np.clip(0.5 + 0.3 * waves, 0, 1)[..., None])
    level = surface.sample(plane.u, plane.v, plane.footprint)[..., 0]
    return ramp(level, deep * 0.7, deep * 1.5, np.minimum(deep * 2 + 0.3, 1))
