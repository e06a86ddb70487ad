"""Lists the files at an image root: those of a folder, and the members of its archives."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from segmodels.formats.coco_json import safe_name
from segmodels.formats.errors import InputError, RejectReason
from segmodels.formats.tar import is_tar, tar_index


@dataclass(frozen=True, slots=True)
class Entry:
    """One file that may be an image.

    Attributes:
        source: Absolute path of the folder or .tar.
        path: Name relative to the folder, or member name.
        key: Path that the image id is made from: relative to the image root, archives as folders.
        link_target: Target of a link that leaves the image root; empty for all others.
    """

    source: str
    path: str
    key: str
    link_target: str = ""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A file that is not among the images; a row of the rejected table."""

    source: str
    path: str
    reason: RejectReason
    detail: str


@dataclass
class Listing:
    """Everything at an image root.

    Attributes:
        entries: Files that may be images, by key.
        rejections: Names and archives that are rejected before any content is read.
    """

    entries: list[Entry] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)


def absolute_root(images: str) -> str:
    """Give the absolute path of an image root.

    Raises:
        InputError: It is neither a folder nor a .tar file.
    """
    root = os.path.abspath(os.path.expanduser(images))
    if Path(root).is_dir() or (is_tar(root) and Path(root).is_file()):
        return root
    kind = "is neither a folder nor a .tar file" if Path(root).exists() else "does not exist"
    raise InputError(f"the image path {images!r} {kind}; set it to a folder of images or a .tar")


def list_images(images: str) -> Listing:
    """List an image root: a folder at any depth with the archives in it, or one archive.

    A link to a folder within the root is skipped, as its files are listed in that folder.

    Raises:
        InputError: The root does not exist, or an archive cannot be listed.
    """
    root = absolute_root(images)
    listing = Listing()
    if is_tar(root):
        _list_archive(root, os.path.basename(root), listing)
    else:
        for found in walk(root):
            _list_file(root, found, listing)
    listing.entries.sort(key=lambda entry: entry.key)
    return listing


@dataclass(frozen=True, slots=True)
class Found:
    """A directory entry other than a folder.

    Attributes:
        path: Name relative to the walked folder.
        fault: Why it cannot be read as a file; empty if it can.
        link: Whether it is a symbolic link.
    """

    path: str
    fault: str = ""
    link: bool = False


def walk(root: str) -> Iterable[Found]:
    """Walk a folder at any depth in a fixed order, without following links to folders."""
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            yield Found(folder or ".", fault=str(error))
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                pending.append(path)
            elif entry.is_symlink():
                whole = Path(entry.path).exists()
                yield Found(path, fault="" if whole else "a link that leads nowhere", link=True)
            else:
                plain = entry.is_file(follow_symlinks=False)
                yield Found(path, fault="" if plain else "neither a file nor a folder")


def is_hidden(path: str) -> bool:
    """Whether a relative path is of a hidden file or lies in a hidden folder."""
    return any(part.startswith(".") and part != "." for part in path.split("/"))


def escape_target(root: str, path: str) -> str:
    """Resolve a path that leaves the root through a link; empty for one that stays within."""
    target, real_root = os.path.realpath(os.path.join(root, path)), os.path.realpath(root)
    return "" if os.path.commonpath([target, real_root]) == real_root else target


def _list_file(root: str, found: Found, listing: Listing) -> None:
    target = escape_target(root, found.path) if found.link else ""
    name = _storable(found.path)
    if name is None:
        _reject_name(root, found.path, listing)
    elif target:
        listing.entries.append(Entry(root, name, name, link_target=target))
    elif found.fault:
        listing.rejections.append(Rejection(root, name, RejectReason.UNREADABLE_FILE, found.fault))
    elif found.link and Path(root, found.path).is_dir():
        return  # its files are listed in that folder
    elif is_tar(name) and not is_hidden(name):
        _list_archive(os.path.join(root, name), name, listing)
    else:
        listing.entries.append(Entry(root, name, name))


def _list_archive(archive: str, key: str, listing: Listing) -> None:
    try:
        index = tar_index(archive)
    except OSError as error:
        raise InputError(
            f"{archive} cannot be read ({error.strerror}); repair or remove it"
        ) from error
    times = Counter(member.name for member in index.members)
    for member in index.members:
        name = _storable(member.name)
        times[member.name] -= 1
        if name is None:
            _reject_name(archive, member.name, listing)
        elif times[member.name]:
            detail = "a later member of the archive has the same name"
            listing.rejections.append(
                Rejection(archive, name, RejectReason.REPLACED_MEMBER, detail)
            )
        else:
            name = safe_name(name, archive)
            listing.entries.append(Entry(archive, name, f"{key}/{name}"))
    for other in index.others:
        detail = "a link or special file within an archive"
        listing.rejections.append(
            Rejection(archive, _escaped(other), RejectReason.UNREADABLE_FILE, detail)
        )
    if index.fault:
        listing.rejections.append(
            Rejection(archive, "(end of the archive)", RejectReason.TRUNCATED, index.fault)
        )


def _storable(name: str) -> str | None:
    """Return the name if it is valid UTF-8, as tables and json files need it, else None."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return None
    return name


def _reject_name(source: str, name: str, listing: Listing) -> None:
    detail = "the name is not UTF-8; rename the file"
    listing.rejections.append(
        Rejection(source, _escaped(name), RejectReason.UNREADABLE_NAME, detail)
    )


def _escaped(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
