"""Unlabelled photographs decoded once into a flat file of 8-bit squares, then memory-mapped."""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def cached_photos(sources: Sequence[Path], cache_folder: Path, size: int) -> np.ndarray:
    """Decode photographs to centre squares, once, and map the result into memory.

    Args:
        sources: folders (searched recursively) and .tar shards.
        cache_folder: where the decoded squares are kept, one file for each set of sources.
        size: side of the squares in pixels.

    Returns:
        (n, size, size, 3) uint8 RGB, read-only; unreadable files are left out.

    Raises:
        ValueError: no readable photograph in the sources.
    """
    cache_folder.mkdir(parents=True, exist_ok=True)
    path = cache_folder / f"photos-{size}-{_fingerprint(sources)}.rgb"
    if not path.is_file():
        partial = path.with_suffix(f".{os.getpid()}.part")
        with partial.open("wb") as file:
            for content in _contents(sources):
                square = _square(content, size)
                if square is not None:
                    file.write(square.tobytes())
        os.replace(partial, path)
    if path.stat().st_size == 0:
        path.unlink()
        raise ValueError(f"no readable photograph in {', '.join(map(str, sources))}")
    return np.memmap(path, np.uint8, mode="r").reshape(-1, size, size, 3)


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise ValueError(f"{source} is neither a folder nor a .tar shard")
    return sorted(path for path in source.rglob("*") if path.suffix.lower() in _SUFFIXES | {".tar"})


def _fingerprint(sources: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for source in sources:
        for path in _files(source):
            status = path.stat()
            digest.update(f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns};".encode())
    return digest.hexdigest()[:16]


def _contents(sources: Sequence[Path]) -> Iterator[bytes]:
    for source in sources:
        for path in _files(source):
            if path.suffix.lower() != ".tar":
                yield path.read_bytes()
                continue
            with tarfile.open(path) as shard:
                for member in shard:
                    content = shard.extractfile(member)
                    if content and Path(member.name).suffix.lower() in _SUFFIXES:
                        yield content.read()


def _square(content: bytes, size: int) -> np.ndarray | None:
    """Decode the centre square, (size, size, 3) uint8; None for what is no readable image."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, Image.DecompressionBombError):
        return None
    return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS))
