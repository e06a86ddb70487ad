"""Lays images out on contact sheets, and fits or crops them to tiles."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""

_INK = (32, 33, 36)
_PAPER = (255, 255, 255)
_GAP = 6


def contact_sheet(
    images: Sequence[Picture],
    captions: Sequence[str] | None = None,
    columns: int = 4,
    tile: int = 160,
) -> Picture:
    """Lay images out on a white grid of square tiles, captions below.

    Args:
        images: (H, W, 3) uint8 each, of any size.
        captions: one per image, cut to the width of a tile; None for none.
        columns: tiles in a row.
        tile: side of a tile in px.

    Returns:
        (height, width, 3) uint8; width = columns * (tile + 6) + 6.

    Raises:
        ValueError: the captions are not one per image, or columns or tile are too small.
    """
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"captions must be {len(images)}, one per image, got {len(captions)}")
    if columns < 1 or tile < 8:
        raise ValueError(f"columns must be >= 1 and tile >= 8, got {columns} and {tile}")
    text_height = 0 if captions is None else 18
    rows = max(1, -(-len(images) // columns))
    step_x, step_y = tile + _GAP, tile + text_height + _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for index, image in enumerate(images):
        left, top = _GAP + index % columns * step_x, _GAP + index // columns * step_y
        fitted = fit(image, tile, tile)
        offset = ((tile - fitted.shape[1]) // 2, (tile - fitted.shape[0]) // 2)
        sheet.paste(Image.fromarray(fitted), (left + offset[0], top + offset[1]))
        if captions is not None:
            text = _cut(captions[index], font, tile)
            draw.text((left + tile / 2, top + tile + 2), text, _INK, font=font, anchor="ma")
    return np.asarray(sheet)


def fit(image: Picture, width: int, height: int) -> Picture:
    """Scale an image to fit into width x height px with its aspect ratio; at least 1 px a side."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def crop(image: Picture, box_xywh: Sequence[float], *, margin: float = 0.08) -> Picture:
    """Crop a box (xywh px) and a margin (share of its longer side); never empty."""
    x, y, width, height = (float(side) for side in box_xywh)
    pad = margin * max(width, height)
    left, top = max(0, int(x - pad)), max(0, int(y - pad))
    right = min(image.shape[1], max(left + 1, int(np.ceil(x + width + pad))))
    bottom = min(image.shape[0], max(top + 1, int(np.ceil(y + height + pad))))
    left, top = min(left, right - 1), min(top, bottom - 1)
    return image[top:bottom, left:right]


def _cut(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    line = " ".join(text.split())
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"
