"""Pictures of masks and panoptic maps for previews and reports.

Everything takes and gives (H, W, 3) uint8 RGB arrays; only the encoders at the end give bytes.
"""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segmodels.pictures.palette import stuff_colour, thing_colour

Picture = NDArray[np.uint8]

_INK = (32, 33, 36)
_PAPER = (255, 255, 255)
_OUTLINE = np.array([255, 255, 255], dtype=np.float32)
_GAP = 6


def overlay_masks(image: Picture, masks: NDArray[np.bool_], *, opacity: float = 0.5) -> Picture:
    """Tint every mask with a colour of its own and outline it; later masks lie on top.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: (m, H, W) bool.
        opacity: share of the tint, 0 to 1.

    Returns:
        (H, W, 3) uint8.
    """
    if masks.shape[1:] != image.shape[:2]:
        raise ValueError(
            f"masks must be (m, {image.shape[0]}, {image.shape[1]}), got {masks.shape}"
        )
    segments = np.zeros(image.shape[:2], dtype=np.int32)
    for number, mask in enumerate(masks, start=1):
        segments[mask] = number
    colours = np.array([thing_colour(number) for number in range(len(masks) + 1)])
    return _tint(image, segments, colours, opacity)


def overlay_panoptic(
    image: Picture,
    segment_map: NDArray[np.integer],
    categories: Mapping[int, tuple[int, bool]],
    *,
    opacity: float = 0.6,
) -> Picture:
    """Tint a panoptic map: vivid things, muted stuff, white outlines, void as it was.

    Args:
        image: (H, W, 3) uint8 RGB.
        segment_map: (H, W) segment ids; 0 is void.
        categories: segment id -> (category id, whether it is a thing). A category has the same colour in
            every picture; several things of one category in a picture differ a little in lightness.
        opacity: share of the tint, 0 to 1.

    Returns:
        (H, W, 3) uint8.
    """
    if segment_map.shape != image.shape[:2]:
        raise ValueError(f"segment_map must be {image.shape[:2]}, got {segment_map.shape}")
    ids, dense = np.unique(segment_map, return_inverse=True)
    colours = np.zeros((len(ids) + 1, 3), dtype=np.uint8)
    seen: dict[int, int] = {}
    for row, segment_id in enumerate(ids.tolist(), start=1):
        if segment_id in categories:
            category_id, is_thing = categories[segment_id]
            nth = seen.get(category_id, 0)
            seen[category_id] = nth + 1
            colours[row] = thing_colour(category_id, nth) if is_thing else stuff_colour(category_id)
    known = np.array([segment_id in categories for segment_id in ids.tolist()], dtype=bool)
    segments = np.where(known[dense], dense + 1, 0).reshape(segment_map.shape)
    return _tint(image, segments, colours, opacity)


def dim_outside(image: Picture, mask: NDArray[np.bool_]) -> Picture:
    """Fade everything outside a mask towards white, so that the object stands out."""
    faded = (image.astype(np.float32) * 0.35 + 255 * 0.65).astype(np.uint8)
    return np.asarray(np.where(mask[..., None], image, faded), dtype=np.uint8)


def colour_map(values: NDArray[np.floating]) -> Picture:
    """Show a real map, an eigenvector for example: blue below its mean, white at it, red above.

    Args:
        values: (h, w) of any scale.

    Returns:
        (h, w, 3) uint8.
    """
    centred = values.astype(np.float64) - values.mean()
    level = np.clip(centred / max(float(np.abs(centred).max()), 1e-12), -1.0, 1.0)[..., None]
    low, high = np.array([33.0, 102.0, 172.0]), np.array([178.0, 24.0, 43.0])
    colour = 247.0 + np.where(level < 0, low - 247.0, high - 247.0) * np.abs(level) ** 0.8
    return np.asarray(np.round(colour), dtype=np.uint8)


def fit(image: Picture, width: int, height: int) -> Picture:
    """Scale an image to lie inside width x height, keeping its proportions; at least 1 px a side."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def contact_sheet(
    images: Sequence[Picture],
    captions: Sequence[str] | None = None,
    columns: int = 4,
    tile: int = 160,
) -> Picture:
    """Lay images out on a white grid of square tiles, each with its caption below.

    Args:
        images: (H, W, 3) uint8 each, of any size.
        captions: one for each image, cut to the tile's width; None for no captions.
        columns: tiles in a row.
        tile: side of a tile in px.

    Returns:
        (height, width, 3) uint8; width = columns * (tile + 6) + 6 whatever the number of images.
    """
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"captions must be {len(images)}, one an image, got {len(captions)}")
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


def crop(image: Picture, box_xywh: Sequence[float], *, margin: float = 0.08) -> Picture:
    """Cut a box with a margin (a share of its longer side) out of an image; never empty."""
    x, y, width, height = (float(side) for side in box_xywh)
    pad = margin * max(width, height)
    left, top = max(0, int(x - pad)), max(0, int(y - pad))
    right = min(image.shape[1], max(left + 1, int(np.ceil(x + width + pad))))
    bottom = min(image.shape[0], max(top + 1, int(np.ceil(y + height + pad))))
    left, top = min(left, right - 1), min(top, bottom - 1)
    return image[top:bottom, left:right]


def encode_png(image: Picture, max_bytes: int = 200_000) -> bytes:
    """Encode as PNG, scaled down until it fits.

    Raises:
        ValueError: if not even a 16 px picture fits.
    """
    return _shrink(image, max_bytes, [{"format": "PNG", "optimize": True}])


def encode_jpeg(image: Picture, max_bytes: int = 200_000) -> bytes:
    """Encode as JPEG, with lower quality and then smaller until it fits.

    Raises:
        ValueError: if not even a 16 px picture fits.
    """
    qualities = (88, 78, 66)
    return _shrink(
        image, max_bytes, [{"format": "JPEG", "quality": quality} for quality in qualities]
    )


def data_uri(content: bytes) -> str:
    """Wrap an encoded PNG or JPEG as a data URI for HTML or Markdown."""
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _tint(
    image: Picture, segments: NDArray[np.integer], colours: NDArray[np.uint8], opacity: float
) -> Picture:
    """Blend colours[segments] into the image where segments > 0, then draw the outlines."""
    share = np.where(segments > 0, np.float32(opacity), np.float32(0))[..., None]
    blended = image * (1 - share) + colours[segments].astype(np.float32) * share
    edge = _outline(segments, thickness=max(1, round(min(image.shape[:2]) / 320)))
    blended[edge] = 0.15 * blended[edge] + 0.85 * _OUTLINE
    return np.asarray(np.clip(np.round(blended), 0, 255), dtype=np.uint8)


def _outline(segments: NDArray[np.integer], thickness: int) -> NDArray[np.bool_]:
    """Pixels beside another segment, widened to the thickness."""
    edge = np.zeros(segments.shape, dtype=bool)
    edge[:, 1:] |= segments[:, 1:] != segments[:, :-1]
    edge[1:] |= segments[1:] != segments[:-1]
    for _ in range(thickness - 1):
        wider = edge.copy()
        wider[:, :-1] |= edge[:, 1:]
        wider[:-1] |= edge[1:]
        edge = wider
    return edge


def _cut(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    line = " ".join(text.split())
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"


def _shrink(image: Picture, max_bytes: int, encodings: list[dict[str, object]]) -> bytes:
    picture = Image.fromarray(image)
    while True:
        for options in encodings:
            buffer = io.BytesIO()
            picture.save(buffer, **options)  # type: ignore[arg-type]
            if buffer.tell() <= max_bytes:
                return buffer.getvalue()
        if max(picture.size) <= 16:
            raise ValueError(f"max_bytes must hold a 16 px picture, got {max_bytes}")
        smaller = (max(1, round(picture.width * 0.8)), max(1, round(picture.height * 0.8)))
        picture = picture.resize(smaller, Image.Resampling.LANCZOS)
