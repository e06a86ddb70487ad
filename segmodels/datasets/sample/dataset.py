"""Writes the embedded sample: images with exact instance and panoptic ground truth as COCO files."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from PIL import Image

from segmodels.datasets.images import IMAGES_SCHEMA
from segmodels.datasets.sample.catalogue import THINGS, categories
from segmodels.datasets.sample.layouts import SETTINGS
from segmodels.datasets.sample.scene import Scene, compose
from segmodels.datasets.sample.textures import Split
from segmodels.formats.atomic import replacing_folder, write_json
from segmodels.formats.coco import write_instances
from segmodels.formats.masks import mask_row, mask_table
from segmodels.formats.panoptic import PanopticWriter, Segment

Card = TypeVar("Card")
RECIPE = 1  # raise it whenever the same seed would give other pixels
_FIRST_ID: dict[Split, int] = {"train": 1, "val": 100_001}
_COUNT_SHARES = (0.3, 0.35, 0.25, 0.1)  # of scenes with 1, 2, 3 and 4 things
_JPEG_QUALITY = 92
_DESCRIPTION = "sample.json"


def write_sample(
    folder: Path,
    *,
    train: int = 72,
    val: int = 28,
    seed: int = 0,
    log: Callable[[str], None] | None = None,
) -> None:
    """Compose and write the embedded sample; the same arguments give the same bytes.

    The folder appears once it is complete: `<split>/*.jpg`, `instances_<split>.json`,
    `panoptic_<split>.json` and `panoptic_<split>/*.png` for the splits train and val. An existing
    sample of the same arguments is kept.

    Args:
        folder: Must not exist, or hold the same sample.
        train: Number of train images, at least 1.
        val: Number of val images, at least 1.
        seed: Random seed; image i of a split depends on the seed, the split and i alone.
        log: Called with a progress sentence every 10 images.

    Raises:
        ValueError: A number is out of range.
        FileExistsError: `folder` holds something else.
    """
    if train < 1 or val < 1 or seed < 0:
        raise ValueError(
            f"train and val must be at least 1 and seed at least 0, got {train}, {val}, {seed}"
        )
    folder = Path(folder)
    description = {"recipe": RECIPE, "train": train, "val": val, "seed": seed}
    if not folder.exists():
        # Another run may have finished the same sample meanwhile and be reading it.
        with replacing_folder(folder, keep_existing=True) as temporary:
            _write_split(temporary, "train", train, seed, log)
            _write_split(temporary, "val", val, seed, log)
            write_json(temporary / _DESCRIPTION, description)
    _check_same(folder, description)


def scenes(split: Split, count: int, seed: int) -> Iterator[Scene]:
    """Compose the first scenes of a split.

    Thing classes and settings are dealt from shuffled decks, so that every class is shown about
    equally often however few scenes there are.
    """
    things = _deck(THINGS, [seed, split == "val", 1])
    settings = _deck(SETTINGS, [seed, split == "val", 2])
    for index in range(count):
        rng = np.random.default_rng([seed, split == "val", 3, index])
        number = 1 + int(rng.choice(len(_COUNT_SHARES), p=_COUNT_SHARES))
        yield compose(next(settings), tuple(next(things) for _ in range(number)), split, rng)


def _deck(cards: tuple[Card, ...], seed: list[int]) -> Iterator[Card]:
    rng = np.random.default_rng(seed)
    while True:
        yield from (cards[k] for k in rng.permutation(len(cards)))


def _write_split(
    folder: Path, split: Split, count: int, seed: int, log: Callable[[str], None] | None
) -> None:
    images = folder / split
    images.mkdir(parents=True)
    image_rows: list[dict[str, Any]] = []
    mask_rows: list[dict[str, Any]] = []
    category_ids: list[int] = []
    names: list[str] = []
    with PanopticWriter(
        folder / f"panoptic_{split}.json", folder / f"panoptic_{split}", categories()
    ) as panoptic:
        for index, scene in enumerate(scenes(split, count, seed)):
            image_id = _FIRST_ID[split] + index
            file_name = f"{image_id:012d}.jpg"
            Image.fromarray(scene.image).save(
                images / file_name, quality=_JPEG_QUALITY, subsampling=0
            )
            height, width = scene.stuff.shape
            image_rows.append(
                {"image_id": image_id, "path": file_name, "height": height, "width": width}
            )
            for thing in scene.things:
                number = len(mask_rows) + 1
                mask_rows.append(
                    mask_row(image_id, number, thing.mask, score=1, source="sample", round=0)
                )
                category_ids.append(1 + THINGS.index(thing.category))
                names.append(thing.exemplar)
            segment_map, segments = panoptic_truth(scene)
            panoptic.add(image_id, file_name, segment_map, segments)
            if log and (index + 1) % 10 == 0:
                log(f"composed {index + 1} of {count} {split} images of the embedded sample")
    path = folder / f"instances_{split}.json"
    things = [category for category in categories() if category.isthing]
    write_instances(
        path,
        pa.Table.from_pylist(image_rows, schema=IMAGES_SCHEMA),
        mask_table(mask_rows),
        things,
        category_ids,
    )
    _record_exemplars(path, names)


def panoptic_truth(scene: Scene) -> tuple[np.ndarray, list[Segment]]:
    """Return the segment map (H, W) int32 of a scene and its segments.

    Ids count from 1, things first, then stuff; no pixel is void.
    """
    segment_map = np.zeros(scene.stuff.shape, np.int32)
    segments: list[Segment] = []
    for thing in scene.things:
        segments.append(Segment(len(segments) + 1, 1 + THINGS.index(thing.category)))
        segment_map[thing.mask] = segments[-1].id
    bare = segment_map == 0
    for index in np.unique(scene.stuff[bare]):
        segments.append(Segment(len(segments) + 1, 1 + len(THINGS) + int(index)))
        segment_map[bare & (scene.stuff == index)] = segments[-1].id
    return segment_map, segments


def _record_exemplars(path: Path, names: list[str]) -> None:
    """Add to every annotation which exemplar it shows; readers of COCO files ignore the key."""
    document = json.loads(path.read_text("utf-8"))
    for annotation, name in zip(document["annotations"], names, strict=True):
        annotation["exemplar"] = name
    write_json(path, document)


def _check_same(folder: Path, description: dict[str, int]) -> None:
    try:
        found = json.loads((folder / _DESCRIPTION).read_text("utf-8"))
    except (OSError, ValueError):
        found = None
    if found != description:
        raise FileExistsError(
            f"{folder} holds something else than the sample {description}; "
            "remove it or name another folder"
        )
