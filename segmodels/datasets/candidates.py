"""The candidate images of all sources, numbered, before any image is read."""

import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from segmodels.datasets.image_source import ImageSource, read_annotations
from segmodels.datasets.listing import (
    Entry,
    Listing,
    Rejection,
    absolute_root,
    escape_target,
    is_hidden,
    list_images,
)
from segmodels.formats.coco_json import CocoImage
from segmodels.formats.errors import AnnotationError, InputError
from segmodels.formats.image_ids import stable_image_id
from segmodels.formats.tar import is_tar

# Formats that can be decoded, and other formats of images, which are rejected by name.
_DECODABLE = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
_OTHER_FORMATS = (".avif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that is taken for an image until it is read.

    Attributes:
        entry: The file.
        order: Position of its source.
        image_id: Id of the image.
        size: (height, width) in px that an annotation file states; None without one.
        source: Its source.
    """

    entry: Entry
    order: int
    image_id: int
    size: tuple[int, int] | None
    source: ImageSource

    @property
    def image_by_name(self) -> bool:
        """Whether an annotation file or the suffix says that this is an image."""
        suffix = posixpath.splitext(self.entry.path)[1].lower()
        return self.size is not None or not suffix or suffix in _DECODABLE + _OTHER_FORMATS


@dataclass
class Candidates:
    """The files of the sources before any image is read.

    Attributes:
        images: By source, then by path.
        rejections: Position of the source, and the rejected file.
        num_other_files: Hidden files, and files that the annotation files of a source do not list.
    """

    images: list[Candidate] = field(default_factory=list)
    rejections: list[tuple[int, Rejection]] = field(default_factory=list)
    num_other_files: int = 0


def find_candidates(sources: Sequence[ImageSource]) -> Candidates:
    """List the files of all sources and give them image ids.

    Raises:
        InputError: A source does not exist, is empty, does not match its annotation files or
            shares an image id with another.
    """
    if not sources:
        raise InputError("no image source is given; name at least one folder of images")
    found = Candidates()
    for order, source in enumerate(sources):
        listing = list_images(source.images)
        read = _annotated if source.annotated else _unannotated
        images, rejections = read(order, source, listing)
        found.images += images
        found.rejections += rejections
        found.num_other_files += len(listing.entries) + len(listing.rejections)
        found.num_other_files -= len(images) + len(rejections)
    # Of other files it is known only once they are decoded whether their id matters.
    refuse_shared_ids(
        image
        for image in found.images
        if image.size or image.entry.path.lower().endswith(_DECODABLE)
    )
    return found


def refuse_shared_ids(candidates: Iterable[Candidate]) -> None:
    """Refuse two images with one id.

    Raises:
        InputError: Two candidates share an image id.
    """
    seen: dict[int, Candidate] = {}
    for candidate in candidates:
        first = seen.setdefault(candidate.image_id, candidate)
        if first is candidate:
            continue
        one, two = (f"{each.entry.path} of {each.entry.source}" for each in (first, candidate))
        cure = (
            "renumber one of the annotation files, or give both files of the same images in "
            "one source"
            if first.size or candidate.size
            else "images are numbered by their relative path, so give the folder above both as "
            "one source, or rename one"
        )
        raise InputError(f"{one} and {two} have the same image id {candidate.image_id}; {cure}")


def _unannotated(
    order: int, source: ImageSource, listing: Listing
) -> tuple[list[Candidate], list[tuple[int, Rejection]]]:
    if not listing.entries and not listing.rejections:
        raise InputError(f"there are no files in {source.images}; give a folder with images")
    entries = [entry for entry in listing.entries if not is_hidden(entry.path)]
    _refuse_links(source, entries)
    images = [
        Candidate(entry, order, stable_image_id(entry.key), None, source) for entry in entries
    ]
    return images, [(order, one) for one in listing.rejections if not is_hidden(one.path)]


def _annotated(
    order: int, source: ImageSource, listing: Listing
) -> tuple[list[Candidate], list[tuple[int, Rejection]]]:
    listed = _listed_images(source)
    entries = _find_listed(source, listing.entries, listed)
    images = [
        Candidate(entry, order, image.id, (image.height, image.width), source)
        for entry, image in zip(entries, listed, strict=True)
    ]
    return sorted(images, key=lambda image: image.entry.key), []


def _listed_images(source: ImageSource) -> list[CocoImage]:
    """Give the images that the annotation files list, each once."""
    images: dict[int, CocoImage] = {}
    for annotations in read_annotations(source):
        if annotations is not None:
            images |= annotations.images
    if not images:
        raise AnnotationError(
            f"the annotation files of {source.images} list no image; give files that do"
        )
    return list(images.values())


def _find_listed(
    source: ImageSource, entries: Sequence[Entry], listed: Sequence[CocoImage]
) -> list[Entry]:
    by_name: dict[str, Entry] = {}
    names = {image.file_name for image in listed}
    json_path = source.instances_json or source.panoptic_json or ""
    for entry in entries:
        first = by_name.setdefault(entry.path, entry)
        if first is not entry and entry.path in names:
            raise InputError(
                f"{entry.path}, listed in {json_path}, is in {first.source} and in "
                f"{entry.source}; keep one of them"
            )
    missing = [image.file_name for image in listed if image.file_name not in by_name]
    root = absolute_root(source.images)
    for name in missing:
        # The walk does not follow a link to a folder outside the root, so its files are missing.
        target = "" if is_tar(root) else escape_target(root, name)
        if target:
            _refuse_links(source, [Entry(root, name, name, target)])
    if missing:
        raise AnnotationError(
            f"{len(missing)} of the {len(listed)} images that {json_path} lists are not in "
            f"{source.images}, for example {missing[0]!r}; give the folder which its file names "
            "are relative to"
        )
    found = [by_name[image.file_name] for image in listed]
    _refuse_links(source, found)
    return found


def _refuse_links(source: ImageSource, entries: Iterable[Entry]) -> None:
    for entry in entries:
        if entry.link_target:
            raise InputError(
                f"{entry.path} leads out of the image root {source.images} to "
                f"{entry.link_target}; put the file there instead of the link, or give the "
                "folder that it points to"
            )
