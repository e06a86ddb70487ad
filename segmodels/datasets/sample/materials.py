"""Surfaces of the rendered objects: natural textures, tinted and patterned."""

import colorsys
from collections.abc import Callable

import numpy as np

from segmodels.datasets.sample.render import Material
from segmodels.datasets.sample.textures import Split, ramp, relief, texture

Colour = tuple[float, float, float]


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return rgb in [0, 1] of hue (turns), saturation and value in [0, 1]."""
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def tinted(
    name: str,
    split: Split,
    colour: Colour,
    *,
    texels: float,
    depth: float = 0.35,
    gloss: float = 0.0,
) -> Material:
    """Return one colour whose brightness follows a natural texture.

    Args:
        name: texture name.
        split: which part of the photograph.
        colour: rgb at full brightness.
        texels: texels across one unit of uv.
        depth: share of the brightness that the texture takes away where it is darkest.
        gloss: strength of highlights.
    """

    def paint(uv: np.ndarray) -> np.ndarray:
        grey = relief(name, split).sample(uv[:, 0] * texels, uv[:, 1] * texels)
        return np.asarray(colour) * (1 - depth + depth * grey)

    return Material(paint, gloss)


def panels(
    name: str, split: Split, colours: tuple[Colour, Colour], *, count: int, gloss: float
) -> Material:
    """Return upright panels in two alternating colours, roughened by a natural texture."""
    covers = [tinted(name, split, colour, texels=260, depth=0.3) for colour in colours]

    def paint(uv: np.ndarray) -> np.ndarray:
        odd = (np.floor(uv[:, 0] * 2 * count) % 2).astype(bool)
        seam = np.abs((uv[:, 0] * 2 * count) % 1 - 0.5) > 0.47
        out = np.where(odd[:, None], covers[0].colour(uv), covers[1].colour(uv))
        return out * np.where(seam, 0.6, 1.0)[:, None]

    return Material(paint, gloss)


def photographic(
    name: str, split: Split, *, texels: float, gain: Colour = (1, 1, 1), gloss: float = 0.0
) -> Material:
    """Return the photograph's own colours, multiplied by gain, as a surface."""

    def paint(uv: np.ndarray) -> np.ndarray:
        colours = texture(name, split).sample(uv[:, 0] * texels, uv[:, 1] * texels, 2.0)
        return np.asarray(colours * np.asarray(gain))

    return Material(paint, gloss)


def banded(base: Material, bands: tuple[tuple[float, float, Colour], ...]) -> Material:
    """Return base with rings of plain colour between two lengths v of the profile."""

    def paint(uv: np.ndarray) -> np.ndarray:
        out = base.colour(uv)
        for low, high, colour in bands:
            inside = (uv[:, 1] >= low) & (uv[:, 1] < high)
            out[inside] = 0.25 * out[inside] + 0.75 * np.asarray(colour)
        return out

    return Material(paint, base.gloss)


def spotted(
    base: Material,
    centres: np.ndarray,
    radii: np.ndarray,
    colour: Colour,
    girth: Callable[[np.ndarray], np.ndarray],
) -> Material:
    """Return base with round spots.

    Args:
        base: the surface under them.
        centres: (n, 2) uv.
        radii: (n,) in units of v.
        colour: of the spots.
        girth: maps v to the length of one turn there, in units of v.
    """

    def paint(uv: np.ndarray) -> np.ndarray:
        out = base.colour(uv)
        across = np.abs(uv[:, None, 0] - centres[None, :, 0])
        across = np.minimum(across, 1 - across) * girth(uv[:, 1])[:, None]
        hit = (across**2 + (uv[:, None, 1] - centres[None, :, 1]) ** 2 < radii**2).any(axis=1)
        out[hit] = 0.2 * out[hit] + 0.8 * np.asarray(colour)
        return out

    return Material(paint, base.gloss)


def planks(
    split: Split, tone: Colour, *, size: tuple[float, float], boards: int, frame: float
) -> Material:
    """Return boards of photographed wood with dark gaps inside a frame.

    Args:
        split: which part of the photograph.
        tone: rgb of lit wood.
        size: lengths (u, v) of the face, as its uv run.
        boards: number of boards across v.
        frame: width of the frame in units of uv.
    """
    tone_array = np.asarray(tone)

    def paint(uv: np.ndarray) -> np.ndarray:
        u, v = uv[:, 0], uv[:, 1]
        board = v / size[1] * boards
        edge = np.minimum.reduce([u, size[0] - u, v, size[1] - v])
        framed = edge < frame
        shift = np.where(framed, 17.0, 53.0 * np.floor(board))
        grain = relief("wood", split).sample(u * 70 + shift, v * 110 + 2 * shift)[:, 0]
        out = ramp(grain, tone_array * 0.45, tone_array * 0.85, np.minimum(tone_array * 1.2, 1))
        gap = (np.abs(board - np.round(board)) < 0.05) & ~framed
        joint = np.abs(edge - frame) < 0.014
        return out * np.where(gap | joint, 0.35, np.where(framed, 1.1, 0.9))[:, None]

    return Material(paint)
