"""What COCO instance and COCO panoptic files share: images, categories, validated fields."""

import json
import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from segmodels.formats.errors import AnnotationError, InputError
from segmodels.formats.image_ids import read_image_id

Record = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Category:
    """A class of things or of stuff, or a cluster that stands for one.

    Attributes:
        id: Number in the annotations.
        name: Name of the class.
        isthing: Thing (its instances are separate) or stuff.
        supercategory: Coarser class; may be empty.
    """

    id: int
    name: str
    isthing: bool = True
    supercategory: str = ""

    def as_json(self) -> dict[str, Any]:
        """Give the record of a COCO or COCO-panoptic file."""
        return {
            "id": self.id,
            "name": self.name,
            "supercategory": self.supercategory,
            "isthing": int(self.isthing),
        }


@dataclass(frozen=True)
class CocoImage:
    """An image entry of an annotation file, fields but the id as in the file.

    Attributes:
        id: Image id, see `read_image_id`.
        file_name: Normalised name relative to the image root.
        height: Rows, px.
        width: Columns, px.
    """

    id: int
    file_name: str
    height: int
    width: int


def load_document(path: str | Path, kind: str) -> dict[str, list[Record]]:
    """Load an annotation file and check that its three lists are there.

    Args:
        path: The json file.
        kind: What it should be, for messages: "COCO instances" or "COCO panoptic".

    Raises:
        InputError: There is no such file.
        AnnotationError: It is not JSON, or not an object with the three lists of records.
    """
    try:
        document = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(
            f"the annotation file {path} cannot be read ({error.strerror}); correct its path"
        ) from error
    except ValueError as error:
        raise AnnotationError(f"{path} is not valid JSON ({error}); export it anew") from error
    lists = ("images", "annotations", "categories")
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), list)
        and all(isinstance(record, dict) for record in document[key])
        for key in lists
    ):
        raise AnnotationError(
            f"{path} is not a {kind} file: it must be an object with the lists {', '.join(lists)}"
        )
    return document


def read_images(records: Iterable[Record], path: str | Path) -> dict[int, CocoImage]:
    """Read the images of an annotation file by id, in its order."""

    def read(record: Record) -> CocoImage:
        image_id = read_image_id(record.get("id"), path, "an image")
        where = f"image {image_id}"
        return CocoImage(
            id=image_id,
            file_name=safe_name(text(record, "file_name", path, where), path),
            height=integer(record, "height", path, where, minimum=1),
            width=integer(record, "width", path, where, minimum=1),
        )

    images = _by_id(map(read, records), lambda image: image.id, path, "images")
    seen: dict[str, int] = {}
    for image in images.values():
        first = seen.setdefault(image.file_name, image.id)
        if first != image.id:
            raise AnnotationError(
                f"{path} lists the file {image.file_name!r} as image {first} and as image "
                f"{image.id}; give every file one image entry"
            )
    return images


def read_categories(records: Iterable[Record], path: str | Path) -> dict[int, Category]:
    """Read the categories of an annotation file by id, in its order.

    Without `isthing`, as in instance files, a category is a thing.
    """

    def read(record: Record) -> Category:
        category_id = integer(record, "id", path, "category")
        return Category(
            id=category_id,
            name=text(record, "name", path, f"category {category_id}"),
            isthing=bool(record.get("isthing", 1)),
            supercategory=str(record.get("supercategory") or ""),
        )

    return _by_id(map(read, records), lambda category: category.id, path, "categories")


def safe_name(name: str, path: str | Path) -> str:
    """Normalise a file name and refuse one that leaves its root.

    Args:
        name: Name as given, relative to a root.
        path: The file that gives the name, for the message.

    Raises:
        InputError: The name is absolute or climbs out of the root.
    """
    normal = posixpath.normpath(name.replace("\\", "/"))
    outside = normal.startswith(("/", "../")) or normal in {"..", "."} or normal[1:3] == ":/"
    if outside or "\0" in name:
        raise InputError(
            f"{path} names the file {name!r}, which does not lie within the image root; "
            "name files relative to the image root"
        )
    return normal


def integer(record: Record, key: str, path: str | Path, where: str, *, minimum: int = 0) -> int:
    """Return an integer field of a record.

    Raises:
        AnnotationError: It is absent, not whole, below `minimum` or beyond 63 bits.
    """
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value < 2**63:
        raise AnnotationError(
            f"{path}: {key} of {where} must be an integer of at least {minimum}, got {value!r}"
        )
    return value


def text(record: Record, key: str, path: str | Path, where: str) -> str:
    """Return a non-empty string field of a record.

    Raises:
        AnnotationError: It is absent, empty or not text.
    """
    value = record.get(key)
    if not isinstance(value, str) or not value:
        raise AnnotationError(f"{path}: {key} of {where} must be text, got {value!r}")
    return value


def check_known(value: int, known: Mapping[int, Any], path: str | Path, where: str) -> None:
    """Refuse a reference to an image or category that the file does not list.

    Raises:
        AnnotationError: `value` is not among `known`.
    """
    if value not in known:
        raise AnnotationError(f"{path}: {where} {value}, which the file does not list")


def _by_id(
    items: Iterable[T], key: Callable[[T], int], path: str | Path, plural: str
) -> dict[int, T]:
    found: dict[int, T] = {}
    for item in items:
        if key(item) in found:
            raise AnnotationError(
                f"{path} has two {plural} with the id {key(item)}; make ids unique"
            )
        found[key(item)] = item
    return found
