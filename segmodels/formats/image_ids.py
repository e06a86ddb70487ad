"""Image ids: the number of an image in all tables, from the id or the name that a file gives it."""

import hashlib
from pathlib import Path

from segmodels.formats.errors import AnnotationError

MAX_IMAGE_ID = 2**53 - 1
"""JSON readers keep numbers up to here exact, and a thousand ids of masks an image fit 63 bits."""


def stable_image_id(text: str) -> int:
    """Id of an image from its relative path or its id in words, in [1, 2^53)."""
    digest = hashlib.sha256(text.encode()).digest()
    return max(int.from_bytes(digest[:8], "big") >> 11, 1)


def read_image_id(value: object, path: str | Path, where: str) -> int:
    """Image id of an annotation file: a whole number stays, text is numbered by its hash.

    Text that looks like a number is text: "7" is not the image 7.

    Args:
        value: The id as in the file.
        path: The file, for the message.
        where: What has the id, for the message.

    Raises:
        AnnotationError: It is neither text nor an integer in [0, 2^53).
    """
    if isinstance(value, str) and value:
        return stable_image_id(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_IMAGE_ID:
        raise AnnotationError(
            f"{path}: the image id of {where} must be text or an integer in [0, 2^53), "
            f"got {value!r}; renumber the images"
        )
    return value
