"""Sources to tables: reads every file once; lists the images, and the rejected files by reason."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from segmodels.datasets.candidates import Candidate, find_candidates, refuse_shared_ids
from segmodels.datasets.contents import Content, Known, inspect_all, known_images
from segmodels.datasets.image_source import ImageSource
from segmodels.datasets.images import IMAGES_SCHEMA, REJECTED_SCHEMA
from segmodels.datasets.listing import Rejection
from segmodels.formats.arrow import column_values
from segmodels.formats.decode import DEFAULT_MAX_PIXELS, HIGHEST_MAX_PIXELS
from segmodels.formats.errors import InputError, RejectReason

DEFAULT_SHARD_SIZE = 512
_NO_IMAGE_CONTENT = (RejectReason.NOT_AN_IMAGE, RejectReason.EMPTY_FILE)


@dataclass(frozen=True)
class ScanResult:
    """The files of the sources.

    Attributes:
        images: IMAGES_SCHEMA; known images first, then new ones by source and path.
        rejected: REJECTED_SCHEMA, by source and path.
        num_other_files: Files that are no images of the data set: hidden ones, those whose suffix
            and content are of another type, and those that a source's annotation files do not list.
    """

    images: pa.Table
    rejected: pa.Table
    num_other_files: int


@dataclass(frozen=True, slots=True)
class _Image:
    """An image, and its entry in the earlier scan if it has not changed since."""

    candidate: Candidate
    content: Content
    known: Known | None


def scan_sources(
    sources: Sequence[ImageSource],
    *,
    previous: pa.Table | None = None,
    shard_size: int = DEFAULT_SHARD_SIZE,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    evaluation_fraction: float = 0.0,
    log: Callable[[str], None] | None = None,
) -> ScanResult:
    """Read every image of the sources once; check the images and assign ids and shards.

    Args:
        sources: Of images with equal content, that of the first val source is kept, else that of
            the first source.
        previous: Images table of an earlier scan; unchanged images are not decoded again and keep
            their shards.
        shard_size: Most images of a new shard.
        max_pixels: Larger images are rejected from their header.
        evaluation_fraction: Share, by content, of the annotated images of train sources that
            goes to the split val, in [0, 1).
        log: Called with progress sentences.

    Returns:
        The tables; they depend on the files alone, not on the machine.

    Raises:
        InputError: A setting, a source or an annotation file is at fault; raised before any image
            is read where the content is not needed to know.
    """
    _check_settings(shard_size, max_pixels, evaluation_fraction)
    found = find_candidates(sources)
    known = known_images(previous)
    accepted: list[_Image] = []
    rejections, num_other_files = found.rejections, found.num_other_files
    for candidate, outcome in inspect_all(found.images, known, max_pixels, log):
        if not isinstance(outcome, Rejection):
            before = known.get((candidate.entry.source, candidate.entry.path))
            same = before and (before.image_id, before.content) == (candidate.image_id, outcome)
            accepted.append(_Image(candidate, outcome, before if same else None))
        elif candidate.image_by_name or outcome.reason not in _NO_IMAGE_CONTENT:
            rejections.append((candidate.order, outcome))
        else:
            num_other_files += 1
    # Unchanged images first, in their old order.
    accepted.sort(key=lambda image: image.known.row if image.known else math.inf)
    unique, duplicates = _split_duplicates(accepted)
    _require_images(unique, rejections, num_other_files)
    refuse_shared_ids(image.candidate for image in unique)
    shards = _shards(unique, previous, shard_size)
    rows = [
        _image_row(image.candidate, image.content, shard, evaluation_fraction)
        for image, shard in zip(unique, shards, strict=True)
    ]
    return ScanResult(
        images=pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA),
        rejected=_rejected_table(rejections + duplicates),
        num_other_files=num_other_files,
    )


def _check_settings(shard_size: int, max_pixels: int, evaluation_fraction: float) -> None:
    if shard_size < 1:
        raise InputError(f"shard_size must be at least 1, got {shard_size}")
    if not 1 <= max_pixels <= HIGHEST_MAX_PIXELS:
        raise InputError(f"max_pixels must be in [1, {HIGHEST_MAX_PIXELS}], got {max_pixels}")
    if not 0 <= evaluation_fraction < 1:
        raise InputError(f"evaluation_fraction must be in [0, 1), got {evaluation_fraction}")


def _split_duplicates(
    accepted: Sequence[_Image],
) -> tuple[list[_Image], list[tuple[int, Rejection]]]:
    # Images of val first: a copy among the train images must not take one out of a benchmark.
    firsts: dict[str, Candidate] = {}
    for image in sorted(accepted, key=lambda image: image.candidate.source.split != "val"):
        firsts.setdefault(image.content.sha256, image.candidate)
    unique: list[_Image] = []
    duplicates: list[tuple[int, Rejection]] = []
    for image in accepted:
        candidate, first = image.candidate, firsts[image.content.sha256]
        if first is candidate:
            unique.append(image)
            continue
        entry = candidate.entry
        detail = f"the same content as {first.entry.path} of {first.entry.source}"
        rejection = Rejection(entry.source, entry.path, RejectReason.DUPLICATE_CONTENT, detail)
        duplicates.append((candidate.order, rejection))
    return unique, duplicates


def _require_images(
    unique: Sequence[_Image], rejections: Sequence[tuple[int, Rejection]], num_other_files: int
) -> None:
    if unique:
        return
    example = ""
    if rejections:
        _, first = rejections[0]
        example = f", for example {first.path} of {first.source}: {first.reason} ({first.detail})"
    raise InputError(
        f"none of the {len(rejections) + num_other_files} files of the sources is a readable image"
        f"{example}; give other files"
    )


def _shards(images: Sequence[_Image], previous: pa.Table | None, shard_size: int) -> Iterator[int]:
    """Give each image its old shard, or a new one with a number above all old ones."""
    next_shard = 0
    if previous is not None and previous.num_rows:
        next_shard = max(column_values(previous, "shard")) + 1
    added = 0
    for image in images:
        if image.known is not None:
            yield image.known.shard
        else:
            yield next_shard + added // shard_size
            added += 1


def _image_row(
    candidate: Candidate, content: Content, shard: int, evaluation_fraction: float
) -> dict[str, object]:
    source = candidate.source
    split = source.split
    # By content, so that the split does not depend on names, order or other images.
    if source.annotated and int(content.sha256[:13], 16) < evaluation_fraction * 16**13:
        split = "val"
    return {
        "image_id": candidate.image_id,
        "source": candidate.entry.source,
        "path": candidate.entry.path,
        "height": content.height,
        "width": content.width,
        "sha256": content.sha256,
        "split": split,
        "shard": shard,
    }


def _rejected_table(rejections: Sequence[tuple[int, Rejection]]) -> pa.Table:
    ordered = sorted(rejections, key=lambda pair: (pair[0], pair[1].source, pair[1].path))
    rows = [asdict(rejection) for _, rejection in ordered]
    return pa.Table.from_pylist(rows, schema=REJECTED_SCHEMA)
