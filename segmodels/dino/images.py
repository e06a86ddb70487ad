"""Images of a pre-training run, decoded once to a flat file of 8-bit squares and memory-mapped."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from segmodels.formats.atomic import replacing
from segmodels.formats.decode import decode_image
from segmodels.formats.errors import UnreadableImageError
from segmodels.formats.tar import is_tar, read_member, tar_index

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_SAMPLE = 256


def cached_images(sources: Sequence[Path], cache_folder: Path, size: int) -> np.memmap:
    """Decode images to centre squares, once, and memory-map the result.

    Args:
        sources: folders (searched recursively) and .tar shards.
        cache_folder: folder of the decoded squares, one file for each set of sources.
        size: side of the squares in pixels.

    Returns:
        (n, size, size, 3) uint8 RGB, read-only; unreadable files are skipped.

    Raises:
        ValueError: the sources hold no readable image, or one is neither a folder nor a shard.
    """
    path = cache_folder / f"photos-{size}-{_sources_digest(sources)}.rgb"
    if not path.is_file():
        with replacing(path) as partial, partial.open("wb") as file:
            for content in _contents(sources):
                square = _square(content, size)
                if square is not None:
                    file.write(square.tobytes())
    if path.stat().st_size == 0:
        path.unlink()
        raise ValueError(f"no readable image in {', '.join(map(str, sources))}")
    count = path.stat().st_size // (size * size * 3)
    return np.memmap(path, np.uint8, mode="r", shape=(count, size, size, 3))


def sample_digest(rows: np.ndarray) -> str:
    """Digest of the shape of an array and of a sample of its rows.

    Args:
        rows: (n, ...), may be a memory map; at most 256 rows, evenly spaced, are read.
    """
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE)).round().astype(int)
    digest = hashlib.sha256(str(rows.shape).encode())
    for index in chosen:
        digest.update(rows[index].tobytes())
    return digest.hexdigest()


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise ValueError(f"{source} is neither a folder nor a .tar shard")
    return sorted(path for path in source.rglob("*") if path.suffix.lower() in _SUFFIXES | {".tar"})


def _sources_digest(sources: Sequence[Path]) -> str:
    """Digest of the names, sizes and modification times of all files."""
    digest = hashlib.sha256()
    for source in sources:
        for path in _files(source):
            status = path.stat()
            digest.update(f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns};".encode())
    return digest.hexdigest()[:16]


def _contents(sources: Sequence[Path]) -> Iterator[bytes]:
    for source in sources:
        for path in _files(source):
            if not is_tar(path):
                yield path.read_bytes()
                continue
            for member in tar_index(path).members:
                if Path(member.name).suffix.lower() in _SUFFIXES:
                    yield read_member(path, member.name)


def _square(content: bytes, size: int) -> np.ndarray | None:
    """Decode the centre square, (size, size, 3) uint8; None for an unreadable image."""
    try:
        image = Image.fromarray(decode_image(content))
    except UnreadableImageError:
        return None
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS))
