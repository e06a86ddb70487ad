"""Random access to the members of uncompressed tar archives."""

import posixpath
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from segmodels.formats.errors import InputError


@dataclass(frozen=True)
class TarMember:
    """Position of one regular file within an archive.

    Attributes:
        name: Normalised member name ("./a.jpg" is "a.jpg").
        offset: First byte of its content.
        size: Bytes of its content.
    """

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class TarIndex:
    """Members of an archive in their order.

    Attributes:
        members: Every regular file, also those that a later one of the same name replaces.
        others: Names of links and special files.
        fault: Why the archive could not be read to its end; empty if it could.
    """

    members: tuple[TarMember, ...]
    others: tuple[str, ...]
    fault: str


def is_tar(source: str | Path) -> bool:
    """Whether a source is an archive rather than a folder, by its name."""
    return str(source).endswith(".tar")


def tar_index(path: str | Path) -> TarIndex:
    """List an archive; cached until the file changes.

    Raises:
        InputError: Not a tar archive, or a compressed one.
        OSError: The file cannot be opened.
    """
    status = Path(path).stat()
    return _index(str(path), status.st_mtime_ns, status.st_size)


def read_member(path: str | Path, name: str) -> bytes:
    """Read one member's content; shorter than its size where the archive ends early.

    Raises:
        FileNotFoundError: The archive has no such member.
    """
    status = Path(path).stat()
    member = _by_name(str(path), status.st_mtime_ns, status.st_size).get(name)
    if member is None:
        raise FileNotFoundError(f"{path} has no member {name!r}")
    with Path(path).open("rb") as file:
        file.seek(member.offset)
        return file.read(member.size)


@lru_cache(maxsize=64)
def _index(path: str, _modified: int, _size: int) -> TarIndex:
    members: list[TarMember] = []
    others: list[str] = []
    fault = ""
    try:
        # "r:" refuses compressed archives, in which members cannot be reached one by one.
        with tarfile.open(path, "r:") as archive:
            try:
                for info in archive:
                    name = posixpath.normpath(info.name)
                    if info.isreg() and not info.issparse():
                        members.append(TarMember(name, info.offset_data, info.size))
                    elif not info.isdir():
                        others.append(name)
            except tarfile.TarError as error:
                fault = str(error)
    except tarfile.TarError as error:
        raise InputError(
            f"{path} is not an uncompressed tar archive ({error}); unpack it and pack it without "
            "compression, or give the unpacked folder"
        ) from error
    return TarIndex(tuple(members), tuple(others), fault)


@lru_cache(maxsize=64)
def _by_name(path: str, modified: int, size: int) -> dict[str, TarMember]:
    return {member.name: member for member in _index(path, modified, size).members}
