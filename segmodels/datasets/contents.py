"""Reads each candidate once: its digest and size, or the reason why it is rejected."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from segmodels.datasets.candidates import Candidate
from segmodels.datasets.listing import Entry, Rejection
from segmodels.formats.decode import decode_image, looks_like_image
from segmodels.formats.errors import RejectReason, UnreadableImageError
from segmodels.formats.tar import is_tar, read_member

_BLOCK = 256
_HEAD = 16


@dataclass(frozen=True, slots=True)
class Content:
    """Digest and size of an image file.

    Attributes:
        sha256: Hexadecimal digest of the file.
        height: Rows after EXIF rotation, px.
        width: Columns after EXIF rotation, px.
    """

    sha256: str
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Known:
    """An image of an earlier scan, at a row of its images table."""

    row: int
    image_id: int
    content: Content
    shard: int


def known_images(previous: pa.Table | None) -> dict[tuple[str, str], Known]:
    """Index an earlier images table by source and path."""
    if previous is None:
        return {}
    return {
        (row["source"], row["path"]): Known(
            row=index,
            image_id=row["image_id"],
            content=Content(row["sha256"], row["height"], row["width"]),
            shard=row["shard"],
        )
        for index, row in enumerate(previous.to_pylist())
    }


def inspect_all(
    candidates: Sequence[Candidate],
    known: dict[tuple[str, str], Known],
    max_pixels: int,
    log: Callable[[str], None] | None,
) -> Iterator[tuple[Candidate, Content | Rejection]]:
    """Read candidates with one thread a processor; results come in the candidates' order.

    Args:
        candidates: The files to read.
        known: Images of an earlier scan, which are not decoded again.
        max_pixels: Larger images are rejected from their header.
        log: Called with a progress sentence for about every 5 % of the files.
    """
    inspect = partial(_inspect, known=known, max_pixels=max_pixels)
    step = max(len(candidates) // 20, _BLOCK)
    reported = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # In blocks, so that one slow image cannot make results pile up in memory.
        for start in range(0, len(candidates), _BLOCK):
            block = candidates[start : start + _BLOCK]
            yield from zip(block, pool.map(inspect, block), strict=True)
            done = start + len(block)
            if log and (done - reported >= step or done == len(candidates)):
                log(f"read {done} of {len(candidates)} files")
                reported = done


def _inspect(
    candidate: Candidate, known: dict[tuple[str, str], Known], max_pixels: int
) -> Content | Rejection:
    entry = candidate.entry
    before = known.get((entry.source, entry.path))
    try:
        content = _read(entry)
        sha256 = hashlib.sha256(content).hexdigest()
        if before is not None and before.content.sha256 == sha256:
            found = before.content
        else:
            height, width, _ = decode_image(content, max_pixels=max_pixels).shape
            found = Content(sha256, height, width)
    except UnreadableImageError as error:
        return Rejection(entry.source, entry.path, error.reason, error.detail)
    except OSError as error:
        return Rejection(entry.source, entry.path, RejectReason.UNREADABLE_FILE, str(error))
    if found.height * found.width > max_pixels:
        detail = f"{found.width} x {found.height} pixels are more than the limit of {max_pixels}"
        return Rejection(entry.source, entry.path, RejectReason.OVER_PIXEL_LIMIT, detail)
    if candidate.size not in {None, (found.height, found.width)}:
        detail = (
            f"annotated at (height, width) {candidate.size}, "
            f"but the file has {(found.height, found.width)}"
        )
        return Rejection(entry.source, entry.path, RejectReason.SIZE_MISMATCH, detail)
    return found


def _read(entry: Entry) -> bytes:
    """Read a file, only its head where that is not an image's: the rest may be large."""
    if is_tar(entry.source):
        return read_member(entry.source, entry.path)
    with Path(entry.source, entry.path).open("rb") as file:
        head = file.read(_HEAD)
        return head + file.read() if looks_like_image(head) else head
