"""The pseudo-label folder: what its writer (U2Seg) and the detector agree on.

It holds ``instances.json`` (COCO instances), ``panoptic.json`` with ``panoptic/``, and
``semantic/<image id>.png`` (uint8: 0 = thing, 1..S = stuff, 255 = void). Categories are the thing
clusters 1..K, then the stuff clusters K+1..K+S.
"""

import json
from pathlib import Path

from segmodels.formats.coco_json import Category

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


def count_categories(pseudo_labels: str | Path) -> tuple[int, int]:
    """Read the numbers of thing and stuff clusters (K, S) of a pseudo-label folder.

    Raises:
        ValueError: the folder has no ``panoptic.json``, or S is above ``MAX_STUFF``.
    """
    path = Path(pseudo_labels) / "panoptic.json"
    if not path.is_file():
        raise ValueError(f"{path} is missing: {pseudo_labels} is not a pseudo-label folder")
    categories = json.loads(path.read_text(encoding="utf-8"))["categories"]
    num_things = sum(bool(category["isthing"]) for category in categories)
    num_stuff = len(categories) - num_things
    if num_stuff > MAX_STUFF:
        raise ValueError(f"at most {MAX_STUFF} stuff clusters can be trained, got {num_stuff}")
    return num_things, num_stuff
