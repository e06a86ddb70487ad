"""Image files to pixels: JPEG, PNG, WebP, BMP and GIF become (H, W, 3) uint8 RGB.

Colour profiles are not applied; of an animation the first frame is read; transparent pixels are
blended with white; 16-bit samples keep their high byte.
"""

import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from segmodels.formats.errors import RejectReason, UnreadableImageError
from segmodels.formats.tar import is_tar, read_member

# Pillow warns above the first and refuses above the second; callers cannot raise the latter.
DEFAULT_MAX_PIXELS = 89_478_485
HIGHEST_MAX_PIXELS = 2 * DEFAULT_MAX_PIXELS

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
_MAGIC = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|BM....\0\0\0\0|GIF8", re.DOTALL)
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise on broken content.
_BROKEN = (OSError, SyntaxError, EOFError, ValueError, IndexError, KeyError, TypeError)
_BROKEN_PARTS = (*_BROKEN, struct.error, zlib.error, OverflowError, AttributeError)
_WARNINGS = threading.Lock()


def read_image(
    source: str | Path, path: str, *, max_pixels: int = HIGHEST_MAX_PIXELS
) -> NDArray[np.uint8]:
    """Read one image of the images table.

    Args:
        source: Folder, or .tar file.
        path: File name relative to the folder, or member name.
        max_pixels: Larger images are refused from their header.

    Returns:
        (H, W, 3) uint8 RGB, EXIF rotation applied.

    Raises:
        UnreadableImageError: The file cannot be read or decoded; it names the reason.
    """
    try:
        content = read_member(source, path) if is_tar(source) else Path(source, path).read_bytes()
    except OSError as error:
        raise UnreadableImageError(RejectReason.UNREADABLE_FILE, str(error)) from error
    return decode_image(content, max_pixels=max_pixels)


def looks_like_image(head: bytes) -> bool:
    """Whether the first 16 bytes of a file are those of a format that can be decoded."""
    return _MAGIC.match(head) is not None


def decode_image(content: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode the content of an image file.

    Args:
        content: The whole file.
        max_pixels: Larger images are refused from their header, before any pixel is decoded.

    Returns:
        (H, W, 3) uint8 RGB, EXIF rotation applied.

    Raises:
        UnreadableImageError: The content cannot be decoded; it names the reason.
    """
    with _open(content) as image:
        if image.width * image.height > max_pixels:
            raise UnreadableImageError(
                RejectReason.OVER_PIXEL_LIMIT,
                f"{image.width} x {image.height} pixels are more than the limit of {max_pixels}",
            )
        try:
            image.load()
        except _BROKEN_PARTS as error:
            raise _broken(content, error) from error
        upright = _turn_upright(image)
    return _to_rgb(upright)


def _open(content: bytes) -> Image.Image:
    if not content:
        raise UnreadableImageError(RejectReason.EMPTY_FILE, "the file has no content")
    if not looks_like_image(content[:16]):
        raise UnreadableImageError(
            RejectReason.NOT_AN_IMAGE, "the content is none of JPEG, PNG, WebP, BMP, GIF"
        )
    try:
        with _quiet():
            return Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        detail = f"more than {HIGHEST_MAX_PIXELS} pixels"
        raise UnreadableImageError(RejectReason.OVER_PIXEL_LIMIT, detail) from error
    except UnidentifiedImageError as error:
        if _ends_early(content):
            detail = "the file ends within its header"
            raise UnreadableImageError(RejectReason.TRUNCATED, detail) from error
        detail = "the header is of no known image format"
        raise UnreadableImageError(RejectReason.NOT_AN_IMAGE, detail) from error
    except _BROKEN_PARTS as error:
        raise _broken(content, error) from error


def _broken(content: bytes, error: Exception) -> UnreadableImageError:
    reason = RejectReason.TRUNCATED if _ends_early(content) else RejectReason.CORRUPT
    return UnreadableImageError(reason, str(error) or type(error).__name__)


def _ends_early(content: bytes) -> bool:
    """Whether the end marker of the format is missing; called only for content that failed."""
    if content.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in content[-64:]
    if content.startswith(b"\x89PNG"):
        return b"IEND" not in content[-64:]
    if content.startswith(b"RIFF"):
        return len(content) < 8 + int.from_bytes(content[4:8], "little")
    if content.startswith(b"BM"):
        return len(content) < int.from_bytes(content[2:6], "little")
    return content.startswith(b"GIF8") and not content.endswith(b";")


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        with _quiet():
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except _BROKEN_PARTS:
        # The pixels are intact; only the orientation is lost.
        orientation = 1
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        # Grey of 16 bits, which Pillow's own conversion would clip at 255.
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layer)
    return np.array(image.convert("RGB"), dtype=np.uint8)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings about content that is decoded or rejected anyway.

    Locked, as Python's warning filters are global to all threads.
    """
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
