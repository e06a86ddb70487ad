"""Natural textures: crops of photographs, another part for train than for val."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from scipy import ndimage

from segmodels.datasets.sample.photographs import photograph

Split = Literal["train", "val"]
Box = tuple[int, int, int, int]

# Photograph and (left, top, right, bottom) for train and for val; the two never overlap.
CROPS: dict[str, tuple[str, Box, Box]] = {
    "brick": ("brick.png", (0, 0, 256, 512), (256, 0, 512, 512)),
    "grass": ("grass.png", (0, 0, 256, 512), (256, 0, 512, 512)),
    "gravel": ("gravel.png", (0, 0, 256, 512), (256, 0, 512, 512)),
    "moon": ("moon.png", (100, 0, 512, 250), (60, 262, 512, 512)),
    "wood": ("coffee.png", (0, 140, 72, 400), (492, 120, 600, 400)),
    "tissue": ("ihc.png", (0, 0, 256, 512), (256, 0, 512, 512)),
    "retina": ("retina.jpg", (250, 330, 700, 1080), (720, 330, 1170, 1080)),
    "fur": ("chelsea.png", (175, 2, 300, 82), (216, 88, 288, 212)),
}
_LEVELS = 5
_LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Texture:
    """A picture at growing blur, so that it can be sampled without aliasing.

    Attributes:
        levels: (H, W, C) float32 each, the k-th smoothed for a footprint of 2**k texels.
    """

    levels: tuple[np.ndarray, ...]

    def sample(
        self, u: np.ndarray, v: np.ndarray, footprint: np.ndarray | float = 1.0
    ) -> np.ndarray:
        """Return the colours at texture positions; the picture is continued by mirroring.

        Args:
            u: horizontal positions in texels, any shape.
            v: vertical positions in texels, same shape.
            footprint: texels a pixel covers, same shape or one number.

        Returns:
            (*u.shape, C) float32 in [0, 1].
        """
        level = np.clip(np.log2(np.maximum(footprint, 1.0)), 0, _LEVELS - 1)
        if np.ndim(footprint) == 0:
            return self._read(round(float(level)), u, v)
        out = np.zeros((*u.shape, self.levels[0].shape[2]), np.float32)
        for k in range(_LEVELS):
            weight = np.clip(1 - np.abs(level - k), 0, 1).astype(np.float32)
            used = weight > 0
            if used.any():
                out[used] += weight[used][:, None] * self._read(k, u[used], v[used])
        return out

    def _read(self, level: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        plane = self.levels[level]
        channels = [
            ndimage.map_coordinates(plane[..., k], [v, u], order=1, mode="mirror", prefilter=False)
            for k in range(plane.shape[2])
        ]
        return np.stack(channels, axis=-1)


@cache
def texture(name: str, split: Split) -> Texture:
    """Return a natural texture in colour, C = 3; train and val read different parts."""
    source, train_box, val_box = CROPS[name]
    left, top, right, bottom = train_box if split == "train" else val_box
    crop = photograph(source)[top:bottom, left:right]
    if name == "brick":  # its courses run upright in the photograph
        crop = np.rot90(crop)
    return smoothed_levels(crop)


@cache
def relief(name: str, split: Split) -> Texture:
    """Return the luminance of a natural texture, C = 1, spread over [0, 1]."""
    colour = texture(name, split).levels[0]
    grey = sum(weight * colour[..., k] for k, weight in enumerate(_LUMINANCE))
    low, high = np.percentile(grey, [3, 97])
    return smoothed_levels(np.clip((grey - low) / (high - low), 0, 1)[..., None].astype(np.float32))


def smoothed_levels(picture: np.ndarray) -> Texture:
    """Return the texture of a picture (H, W, C) float32 in [0, 1]."""
    levels = [np.ascontiguousarray(picture)]
    levels += [
        ndimage.gaussian_filter(picture, (0.55 * 2**k, 0.55 * 2**k, 0), mode="mirror")
        for k in range(1, _LEVELS)
    ]
    return Texture(tuple(levels))


def ramp(values: np.ndarray, dark: np.ndarray, middle: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Colour values (*, ) in [0, 1]: dark (3,) at 0, middle (3,) at 0.5, light (3,) at 1."""
    t = values[..., None].astype(np.float32)
    low, high = np.minimum(2 * t, 1), np.maximum(2 * t - 1, 0)
    ends = [np.asarray(colour, np.float32) for colour in (dark, middle, light)]
    return np.asarray(ends[0] + (ends[1] - ends[0]) * low + (ends[2] - ends[1]) * high)


def fractal_noise(
    rng: np.random.Generator, shape: tuple[int, int], cell: tuple[float, float], octaves: int = 4
) -> np.ndarray:
    """Return smooth noise: sums of cubic B-splines on ever finer grids.

    Args:
        rng: source of randomness.
        shape: (H, W).
        cell: height and width in pixels of the coarsest bumps.
        octaves: each halves the cell and the strength.

    Returns:
        (H, W) float32, mean 0, standard deviation 1.
    """
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        size = [max(c / 2**octave, 1.0) for c in cell]
        grid = rng.standard_normal(
            [int(n / s) + 5 for n, s in zip(shape, size, strict=True)], dtype=np.float32
        )
        rows = _spline(grid, shape[0], size[0])
        total += 0.5**octave * _spline(rows.T, shape[1], size[1]).T
    return np.asarray((total - total.mean()) / max(float(total.std()), 1e-6))


def _spline(grid: np.ndarray, length: int, cell: float) -> np.ndarray:
    """Evaluate cubic B-splines with coefficients grid (n, m) along axis 0: (length, m)."""
    position = np.arange(length) / cell
    index = position.astype(int)
    t = (position - index).astype(np.float32)[:, None]
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    return np.asarray(sum(weight * grid[index + k] for k, weight in enumerate(weights)) / 6)
