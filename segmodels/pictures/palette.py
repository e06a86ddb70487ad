"""Colours of categories; an id has the same colour in every picture of every run."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

_GOLDEN_ANGLE = 137.50776405003785
# Consecutive ids differ by the golden angle in hue; lightness separates ids whose hues are close.
_THING_LIGHTNESS = (0.70, 0.60, 0.80)
_STUFF_LIGHTNESS = (0.62, 0.72, 0.52, 0.80)
# Hue (degrees) and lightness that separate two instances but do not change the name of the colour.
_INSTANCE_STEPS = ((0, 0.0), (9, 0.08), (-9, -0.08), (5, -0.04), (-5, 0.04), (9, -0.08), (-9, 0.08))


UNNAMED = -1
"""Category of a cluster without a class: grey."""


@cache
def _thing(category_id: int, nth: int) -> bytes:
    if category_id < 0:
        return _srgb(0.72, 0.0, 0.0).tobytes()
    turn, shift = _INSTANCE_STEPS[nth % len(_INSTANCE_STEPS)]
    hue = category_id * _GOLDEN_ANGLE + turn
    return _srgb(_THING_LIGHTNESS[category_id % 3] + shift, 0.17, hue).tobytes()


@cache
def _stuff(category_id: int) -> bytes:
    if category_id < 0:
        return _srgb(0.50, 0.0, 0.0).tobytes()
    hue = category_id * _GOLDEN_ANGLE + 60.0
    return _srgb(_STUFF_LIGHTNESS[category_id % 4], 0.045, hue).tobytes()


def thing_colour(category_id: int, nth: int = 0) -> NDArray[np.uint8]:
    """Vivid colour of a thing category: (3,) uint8 RGB; `nth` varies it by instance."""
    return np.frombuffer(_thing(category_id, nth % len(_INSTANCE_STEPS)), dtype=np.uint8)


def stuff_colour(category_id: int) -> NDArray[np.uint8]:
    """Muted colour of a stuff category: (3,) uint8 RGB."""
    return np.frombuffer(_stuff(category_id), dtype=np.uint8)


def _srgb(lightness: float, chroma: float, hue_degrees: float) -> NDArray[np.uint8]:
    """Convert Oklch (Ottosson 2020) to 8-bit sRGB; chroma is reduced until the colour is in gamut."""
    hue = np.deg2rad(hue_degrees % 360.0)
    direction = np.array([np.cos(hue), np.sin(hue)])
    for share in (1.0, 0.85, 0.7, 0.55, 0.4, 0.2, 0.0):
        linear = _linear_rgb(lightness, *(chroma * share * direction))
        if linear.min() >= -1e-3 and linear.max() <= 1.001:
            break
    linear = np.clip(linear, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)


def _linear_rgb(lightness: float, a: float, b: float) -> NDArray[np.float64]:
    """Oklab to linear sRGB with the published matrices."""
    cones = np.array(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    return np.asarray(to_rgb @ cones**3)
