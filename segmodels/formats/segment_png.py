"""PNG files, and segment ids as their colours."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from segmodels.formats.atomic import replacing
from segmodels.formats.errors import AnnotationError

MAX_SEGMENT_ID = 256**3 - 1


def id_to_rgb(ids: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Encode segment ids as colours, id = R + 256 G + 65536 B.

    Args:
        ids: (H, W) integers in [0, MAX_SEGMENT_ID].

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: An id is out of range.
    """
    if ids.size and not 0 <= ids.min() <= ids.max() <= MAX_SEGMENT_ID:
        raise ValueError(f"segment ids must be in [0, {MAX_SEGMENT_ID}], got {ids.max()}")
    wide = ids.astype(np.uint32)
    return np.stack([wide & 255, wide >> 8 & 255, wide >> 16], axis=-1).astype(np.uint8)


def rgb_to_id(rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Decode segment ids, (H, W) int32, from colours, (H, W, 3) uint8."""
    red, green, blue = (rgb[..., channel].astype(np.int32) for channel in range(3))
    return red | green << 8 | blue << 16


def png_name(image_id: int) -> str:
    """File name of the PNG of an image, in all folders that this project writes."""
    return f"{image_id:012d}.png"


def shard_folder(shard: int) -> str:
    """Subfolder of a shard's PNGs, where they are too many for one folder."""
    return f"shard-{shard:05d}"


def write_png(path: str | Path, pixels: NDArray[np.uint8]) -> None:
    """Write (H, W) grey or (H, W, 3) RGB uint8 as PNG, atomically."""
    with replacing(path) as temporary:
        # Run-length matching: smaller files than zlib's own strategy for maps, in half the time.
        Image.fromarray(pixels).save(temporary, format="PNG", compress_type=zlib.Z_RLE)


def read_rgb_png(path: Path) -> NDArray[np.uint8]:
    """Read the colours of a panoptic PNG, (H, W, 3) uint8.

    Raises:
        AnnotationError: The file cannot be read or has no colours.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in {"RGB", "RGBA", "P"}:
                raise AnnotationError(
                    f"{path} has {image.mode} pixels; panoptic PNGs must be RGB, one colour an id"
                )
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise AnnotationError(f"{path} cannot be read ({error}); export it anew") from error
