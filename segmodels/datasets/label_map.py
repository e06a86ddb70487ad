"""Label maps: which annotated stuff classes are scored as which classes; one file each.

A file `label_maps/<name>.json` lists the scored classes, each with the ids `from` which it is
made. Its own ids must not be those of thing classes; COCO's largest category id is 200.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segmodels.formats.coco_json import Category
from segmodels.formats.errors import AnnotationError, InputError

_FOLDER = Path(__file__).with_name("label_maps")
LABEL_MAPS = ("none", *sorted(path.stem for path in _FOLDER.glob("*.json")))


@dataclass(frozen=True)
class LabelMap:
    """A grouping of stuff classes.

    Attributes:
        name: Name of its file.
        categories: The scored classes, in the order of the file.
        category_of: Scored class of each annotated category id.
    """

    name: str
    categories: tuple[Category, ...]
    category_of: dict[int, Category]

    def group(self, stuff: Sequence[Category]) -> tuple[Category, ...]:
        """Give all scored classes, or none where no stuff is annotated.

        Raises:
            InputError: An annotated class has no scored class.
        """
        for category in stuff:
            if category.id not in self.category_of:
                raise InputError(
                    f"stuff_grouping {self.name} does not know the stuff class {category.id} "
                    f"({category.name!r}); set stuff_grouping to none"
                )
        return self.categories if stuff else ()


def load_label_map(name: str) -> LabelMap | None:
    """Load a label map by name; None for "none", which keeps the annotated classes.

    Raises:
        InputError: There is no such label map.
    """
    if name not in LABEL_MAPS:
        raise InputError(f"stuff_grouping must be {' or '.join(LABEL_MAPS)}, got {name!r}")
    return None if name == "none" else read_label_map(_FOLDER / f"{name}.json")


def read_label_map(path: Path) -> LabelMap:
    """Read a label map file.

    Raises:
        AnnotationError: A class lacks its id, name or sources, or an id occurs twice.
    """
    try:
        entries = [
            (Category(int(entry["id"]), str(entry["name"]), False, str(entry["name"])), source)
            for entry in json.loads(path.read_text("utf-8"))["classes"]
            for source in map(int, entry["from"])
        ]
    except (LookupError, TypeError, ValueError) as error:
        raise AnnotationError(
            f"{path} is no label map ({error!r}): list classes, each with id, name and from"
        ) from error
    categories = tuple(dict.fromkeys(category for category, _ in entries))
    category_of = {source: category for category, source in entries}
    if len({category.id for category in categories}) < len(categories):
        raise AnnotationError(f"{path} has two classes of one id; make ids unique")
    if len(category_of) < len(entries):
        raise AnnotationError(f"{path} maps one id to two classes; list every id once")
    return LabelMap(path.stem, categories, category_of)
