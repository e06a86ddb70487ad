"""The pseudo-label folder: what its writer (U2Seg) and the detector agree on.

It holds ``instances.json`` (COCO instances), ``panoptic.json`` with ``panoptic/``, ``clusters.json``
(K and S), and ``semantic/shard-<shard>/<image id>.png`` (uint8: 0 = thing, 1..S = stuff,
255 = void). Categories are the thing clusters 1..K, then the stuff clusters K+1..K+S.
"""

import json
from pathlib import Path

from segmodels.formats.atomic import write_json
from segmodels.formats.coco_json import Category
from segmodels.formats.segment_png import png_name, shard_folder

_COUNTS = "clusters.json"

SEMANTIC_VOID = 255
"""Value of a semantic map where there is no label."""

MAX_STUFF = SEMANTIC_VOID - 1
"""Most stuff clusters that a semantic map can hold."""


def cluster_categories(num_things: int, num_stuff: int) -> list[Category]:
    """Categories cluster_0001.. (things, 1..K), then stuff_0001.. (stuff, K+1..K+S)."""
    things = [Category(k, f"cluster_{k:04d}") for k in range(1, num_things + 1)]
    stuff = [
        Category(num_things + s, f"stuff_{s:04d}", isthing=False) for s in range(1, num_stuff + 1)
    ]
    return things + stuff


def write_cluster_counts(pseudo_labels: Path, num_things: int, num_stuff: int) -> None:
    """Write the numbers of clusters that `count_categories` reads."""
    write_json(pseudo_labels / _COUNTS, {"num_things": num_things, "num_stuff": num_stuff})


def count_categories(pseudo_labels: str | Path) -> tuple[int, int]:
    """Read the numbers of thing and stuff clusters (K, S) of a pseudo-label folder.

    Raises:
        ValueError: the folder has no ``clusters.json``, or S is above ``MAX_STUFF``.
    """
    path = Path(pseudo_labels) / _COUNTS
    if not path.is_file():
        raise ValueError(f"{path} is missing: {pseudo_labels} is not a pseudo-label folder")
    counts = json.loads(path.read_text(encoding="utf-8"))
    num_things, num_stuff = counts["num_things"], counts["num_stuff"]
    if num_stuff > MAX_STUFF:
        raise ValueError(f"at most {MAX_STUFF} stuff clusters can be trained, got {num_stuff}")
    return num_things, num_stuff


def semantic_file(pseudo_labels: Path, image_id: int, shard: int) -> Path:
    """The semantic map of an image, whose shard is that of the images table."""
    return pseudo_labels / "semantic" / shard_folder(shard) / png_name(image_id)
