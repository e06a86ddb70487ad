"""What several sources hold, numbered, before any image is read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from segmodels.datasets.image_source import ImageSource, read_annotations
from segmodels.datasets.images import stable_image_id
from segmodels.datasets.listing import (
    Entry,
    Rejection,
    absolute_root,
    escape_target,
    list_images,
)
from segmodels.formats.coco_json import CocoImage, refuse_missing
from segmodels.formats.errors import AnnotationError, InputError
from segmodels.formats.tar import is_tar

# Files so named must not share an id; of the others it is known once they are decoded.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that is taken for an image until its content says otherwise.

    Attributes:
        entry: Where it lies.
        order: Position of its source.
        image_id: Number of the image.
        size: Height and width that an annotation file states; None without one.
        source: What it was gathered from.
    """

    entry: Entry
    order: int
    image_id: int
    size: tuple[int, int] | None
    source: ImageSource


@dataclass(frozen=True)
class Gathered:
    """What the sources hold before any image is read.

    Attributes:
        candidates: By source, then by path.
        rejections: Position of the source and what it cannot offer.
        num_unlisted: Files beside those that an annotation file lists.
    """

    candidates: list[Candidate]
    rejections: list[tuple[int, Rejection]]
    num_unlisted: int


def gather(sources: Sequence[ImageSource]) -> Gathered:
    """List the files of all sources and number them.

    Raises:
        InputError: A source does not exist, is empty, does not match its annotation files or
            shares an image id with another.
    """
    if not sources:
        raise InputError("no image source is given; name at least one folder of images")
    gathered = Gathered([], [], 0)
    for order, source in enumerate(sources):
        found = _gather_source(order, source)
        gathered = Gathered(
            gathered.candidates + found.candidates,
            gathered.rejections + found.rejections,
            gathered.num_unlisted + found.num_unlisted,
        )
    named = (
        candidate
        for candidate in gathered.candidates
        if candidate.size or candidate.entry.path.lower().endswith(IMAGE_SUFFIXES)
    )
    refuse_shared_ids(named)
    return gathered


def refuse_shared_ids(candidates: Iterable[Candidate]) -> None:
    """Refuse two images of one number.

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


def _gather_source(order: int, source: ImageSource) -> Gathered:
    listing = list_images(source.images)
    rejections = [(order, rejection) for rejection in listing.rejections]
    if source.annotated:
        listed = _listed_images(source)
        entries = _find_listed(source, listing.entries, listed)
        candidates = [
            Candidate(entry, order, image.id, (image.height, image.width), source)
            for entry, image in zip(entries, listed, strict=True)
        ]
        candidates.sort(key=lambda candidate: candidate.entry.key)
        # What the annotation files do not list is counted, not judged.
        return Gathered(candidates, [], len(listing.entries) + len(rejections) - len(candidates))
    if not listing.entries and not rejections:
        raise InputError(f"there are no files in {source.images}; give a folder with images")
    _refuse_links(source, listing.entries)
    candidates = [
        Candidate(entry, order, stable_image_id(entry.key), None, source)
        for entry in listing.entries
    ]
    return Gathered(candidates, rejections, 0)


def _listed_images(source: ImageSource) -> list[CocoImage]:
    """Give every image that either annotation file lists, once."""
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
        # A name that goes through a link to a folder elsewhere exists, but is not listed.
        target = "" if is_tar(root) else escape_target(root, name)
        if target:
            _refuse_links(source, [Entry(root, name, name, target)])
    refuse_missing(missing, len(listed), json_path, source.images)
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
