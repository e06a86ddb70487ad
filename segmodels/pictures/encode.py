"""Encodes pictures for HTML and Markdown, within a limit of bytes."""

import base64
import io

from PIL import Image

from segmodels.pictures.sheets import Picture

_QUALITIES = (88, 78, 66)


def encode_jpeg(image: Picture, max_bytes: int = 200_000) -> bytes:
    """Encode as JPEG, first with lower quality and then smaller until it fits.

    Raises:
        ValueError: not even a picture of 16 px fits.
    """
    picture = Image.fromarray(image)
    while True:
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            picture.save(buffer, format="JPEG", quality=quality)
            if buffer.tell() <= max_bytes:
                return buffer.getvalue()
        if max(picture.size) <= 16:
            raise ValueError(f"max_bytes must allow a picture of 16 px, got {max_bytes}")
        smaller = (max(1, round(picture.width * 0.8)), max(1, round(picture.height * 0.8)))
        picture = picture.resize(smaller, Image.Resampling.LANCZOS)


def data_uri(jpeg: bytes) -> str:
    """A JPEG as a data URI for HTML or Markdown."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
