"""Draws the pictures of docs/sample.md: `python -m segmodels.datasets.sample.contact_sheet docs/images`."""

import colorsys
import sys
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from segmodels.datasets.sample.catalogue import THINGS, exemplars
from segmodels.datasets.sample.dataset import scenes
from segmodels.datasets.sample.scene import Scene
from segmodels.datasets.sample.sprite import Pose
from segmodels.datasets.sample.textures import Split

_CELL = (190, 190)
_BACKGROUND = (246, 246, 244)
_LIGHT = (-0.48, -0.6, 0.64)
# Brick, grass, gravel, sand, sky, water, as in STUFF.
_STUFF_COLOURS = (
    (150, 84, 64),
    (84, 128, 62),
    (118, 118, 122),
    (196, 172, 122),
    (150, 186, 216),
    (40, 92, 140),
)


def truth_overlay(scene: Scene) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8: muted colours for stuff, bright ones for things, outlined."""
    out = 0.3 * scene.image + 0.7 * np.array(_STUFF_COLOURS)[scene.stuff]
    for number, thing in enumerate(scene.things):
        hue = 0.13 * THINGS.index(thing.category) + 0.03 * number
        colour = np.array(colorsys.hsv_to_rgb(hue % 1, 0.9, 1.0)) * 255
        out[thing.mask] = 0.4 * scene.image[thing.mask] + 0.6 * colour
        out[thing.mask & ~ndimage.binary_erosion(thing.mask)] = 255
    return np.asarray(out.clip(0, 255), dtype=np.uint8)


def scene_sheet(split: Split, count: int, columns: int, seed: int = 0) -> Image.Image:
    """Return the first scenes of a split, each above its ground truth."""
    sheet = Image.new("RGB", (columns * _CELL[0], 2 * -(-count // columns) * _CELL[1]), _BACKGROUND)
    for number, scene in enumerate(scenes(split, count, seed)):
        row, column = divmod(number, columns)
        for line, pixels in enumerate((scene.image, truth_overlay(scene))):
            _paste(sheet, Image.fromarray(pixels), column, 2 * row + line)
    return sheet


def exemplar_sheet(per_split: dict[Split, int]) -> Image.Image:
    """Return some exemplars of every thing class, a row each: train first, then val."""
    columns = sum(per_split.values())
    sheet = Image.new("RGB", (columns * _CELL[0] // 2, len(THINGS) * _CELL[1] // 2), _BACKGROUND)
    for row, category in enumerate(THINGS):
        column = 0
        for split, count in per_split.items():
            for shift, exemplar in enumerate(islice(reversed(exemplars(split)[category]), count)):
                sprite = exemplar.draw(Pose(4000, False, 0.0, 25.0, 18.0, _LIGHT))
                alpha = sprite.alpha[..., None]
                flat = alpha * sprite.rgb * 255 + (1 - alpha) * np.array(_BACKGROUND)
                picture = Image.fromarray(flat.astype(np.uint8))
                _paste(sheet, picture, column + shift, row, scale=0.5)
            column += count
    return sheet


def main(folder: Path) -> None:
    """Write both pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, sheet in (
        ("sample_scenes.png", scene_sheet("train", 6, 6)),
        ("sample_exemplars.png", exemplar_sheet({"train": 6, "val": 3})),
    ):
        # A palette: in full colour the PNG would be too large for the repository.
        palette = sheet.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=3)
        sheet.quantize(palette=palette).save(folder / name, optimize=True)


def _paste(
    sheet: Image.Image, picture: Image.Image, column: int, row: int, scale: float = 1.0
) -> None:
    width, height = (int(side * scale) for side in _CELL)
    picture.thumbnail((width - 6, height - 6), Image.Resampling.LANCZOS)
    left = column * width + (width - picture.width) // 2
    sheet.paste(picture, (left, row * height + (height - picture.height) // 2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
