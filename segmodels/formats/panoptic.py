"""COCO panoptic files: a json and one PNG an image, in which colours are segment ids."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segmodels.formats.atomic import write_json_object
from segmodels.formats.coco_json import (
    Category,
    CocoImage,
    Record,
    check_known,
    integer,
    load_document,
    read_categories,
    read_images,
    safe_name,
    text,
)
from segmodels.formats.errors import AnnotationError, InputError
from segmodels.formats.image_ids import read_image_id
from segmodels.formats.segment_png import id_to_rgb, png_name, read_rgb_png, rgb_to_id, write_png


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic map; its area and box follow from the map.

    Attributes:
        id: Value of its pixels, in [1, MAX_SEGMENT_ID].
        category_id: Its class or cluster.
        iscrowd: 1 for a group of things annotated as one.
    """

    id: int
    category_id: int
    iscrowd: int = 0


def segments_info(segment_map: NDArray[np.integer[Any]]) -> dict[int, dict[str, Any]]:
    """Area (px) and bbox (x, y, w, h in px) of every segment id of a map, (H, W), except void."""
    ids, inverse, areas = np.unique(segment_map, return_inverse=True, return_counts=True)
    found = ndimage.find_objects(inverse.reshape(segment_map.shape) + 1)
    return {
        int(segment_id): {
            "area": int(area),
            "bbox": [
                columns.start,
                rows.start,
                columns.stop - columns.start,
                rows.stop - rows.start,
            ],
        }
        for segment_id, area, (rows, columns) in zip(ids, areas, found, strict=True)
        if segment_id != 0
    }


def write_panoptic_json(
    path: str | Path,
    images: Iterable[CocoImage],
    annotations: Iterable[Record],
    categories: Iterable[Category],
) -> None:
    """Write a COCO panoptic json atomically, item by item."""
    write_json_object(
        path,
        {
            "info": {"description": "made by exnihilo"},
            "licenses": [],
            "images": map(asdict, images),
            "annotations": annotations,
            "categories": (
                category.as_json() | {"color": _color(category.id)} for category in categories
            ),
        },
    )


class PanopticWriter:
    """Writes a panoptic json and its PNGs; the json last, in `close`.

    As a context manager it closes itself, and writes no json if the block raises.
    """

    def __init__(
        self, json_path: str | Path, png_folder: str | Path, categories: Sequence[Category]
    ) -> None:
        """Set the outputs and the classes that segments may have."""
        self._json_path = Path(json_path)
        self._png_folder = Path(png_folder)
        self._categories = tuple(categories)
        self._known = {category.id for category in categories}
        self._entries: dict[int, tuple[CocoImage, dict[str, Any]]] = {}

    def add(
        self,
        image_id: int,
        file_name: str,
        segment_map: NDArray[np.integer[Any]],
        segments: Sequence[Segment],
    ) -> None:
        """Write the PNG of one image and keep its record.

        Args:
            image_id: Number of the image.
            file_name: Name of the image, as in the images table.
            segment_map: (H, W) integer segment ids, 0 = void.
            segments: One for every id of the map.

        Raises:
            ValueError: Map and segments disagree, or the image was added before.
        """
        if image_id in self._entries:
            raise ValueError(f"image {image_id} was added before")
        info = segments_info(segment_map)
        fault = ids_fault(set(info), segments) or self._category_fault(segments)
        if fault:
            raise ValueError(f"image {image_id}: {fault}")
        write_png(self._png_folder / png_name(image_id), id_to_rgb(segment_map))
        height, width = segment_map.shape
        record = {
            "image_id": image_id,
            "file_name": png_name(image_id),
            "segments_info": [
                {
                    "id": segment.id,
                    "category_id": segment.category_id,
                    **info[segment.id],
                    "iscrowd": segment.iscrowd,
                }
                for segment in segments
            ],
        }
        self._entries[image_id] = CocoImage(image_id, file_name, height, width), record

    def close(self) -> None:
        """Write the json, images by ascending id."""
        entries = [self._entries[image_id] for image_id in sorted(self._entries)]
        self._png_folder.mkdir(parents=True, exist_ok=True)
        write_panoptic_json(
            self._json_path,
            (image for image, _ in entries),
            (record for _, record in entries),
            self._categories,
        )

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the json unless the block raised."""
        if kind is None:
            self.close()

    def _category_fault(self, segments: Sequence[Segment]) -> str:
        for segment in segments:
            if segment.category_id not in self._known:
                return f"segment {segment.id} has category {segment.category_id}, not listed"
        return ""


@dataclass(frozen=True)
class CocoPanoptic:
    """A panoptic file with validated json; PNGs are read on access.

    Attributes:
        json_path: The json file.
        png_folder: Folder of its PNGs.
        images: Annotated and other listed images by id, in the order of the file.
        categories: By id, in the order of the file.
    """

    json_path: Path
    png_folder: Path
    images: dict[int, CocoImage]
    categories: dict[int, Category]
    _annotations: dict[int, tuple[str, tuple[Segment, ...]]]

    @property
    def image_ids(self) -> tuple[int, ...]:
        """Images that have a panoptic map, in the order of the annotations."""
        return tuple(self._annotations)

    def segments(self, image_id: int) -> list[Segment]:
        """Give the segments of one image in the order of the file."""
        return list(self._annotations[image_id][1])

    def segment_map(self, image_id: int) -> NDArray[np.int32]:
        """Read the map of one image and check it against its segments.

        Returns:
            (H, W) int32 segment ids, 0 = void.

        Raises:
            AnnotationError: The PNG is no RGB image of the right size, or its ids are not those
                of the json.
        """
        name, segments = self._annotations[image_id]
        path = self.png_folder / name
        ids = rgb_to_id(read_rgb_png(path))
        image = self.images[image_id]
        if ids.shape != (image.height, image.width):
            raise AnnotationError(
                f"{path} is {ids.shape[1]} x {ids.shape[0]} px, but {self.json_path} lists the "
                f"image with {image.width} x {image.height}; export the PNGs at image size"
            )
        fault = ids_fault(set(np.unique(ids).tolist()) - {0}, segments)
        if fault:
            raise AnnotationError(f"{path} does not match {self.json_path}: {fault}")
        return ids

    def validate(self) -> None:
        """Read every PNG and name the first that does not match the json.

        Raises:
            AnnotationError: See `segment_map`.
        """
        for image_id in self._annotations:
            self.segment_map(image_id)


def read_panoptic(json_path: str | Path, png_folder: str | Path | None = None) -> CocoPanoptic:
    """Read a COCO panoptic json and check it; `CocoPanoptic.validate` checks the pixels.

    Args:
        json_path: The json file.
        png_folder: Folder of its PNGs; None for the path of the json without ".json".

    Raises:
        AnnotationError: The file contradicts itself or the format, or PNGs are missing.
        InputError: There is no such file or folder.
    """
    folder = Path(json_path).with_suffix("") if png_folder is None else Path(png_folder)
    document = load_document(json_path, "COCO panoptic")
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {folder} with the PNGs of {json_path}; set panoptic_folder"
        )
    images = read_images(document["images"], json_path)
    categories = read_categories(document["categories"], json_path)
    annotations: dict[int, tuple[str, tuple[Segment, ...]]] = {}
    for record in document["annotations"]:
        image_id = read_image_id(record.get("image_id"), json_path, "an annotation")
        check_known(image_id, images, json_path, "an annotation is of image")
        if image_id in annotations:
            raise AnnotationError(
                f"{json_path} annotates image {image_id} twice; keep one annotation an image"
            )
        where = f"the annotation of image {image_id}"
        name = safe_name(text(record, "file_name", json_path, where), json_path)
        annotations[image_id] = name, _segments(record, categories, json_path, where)
    missing = [name for name, _ in annotations.values() if not (folder / name).is_file()]
    if missing:
        raise AnnotationError(
            f"{len(missing)} of the {len(annotations)} PNGs of {json_path} are not in {folder}, "
            f"for example {missing[0]!r}; set panoptic_folder"
        )
    return CocoPanoptic(Path(json_path), folder, images, categories, annotations)


def ids_fault(ids: set[int], segments: Sequence[Segment]) -> str:
    """Describe how the ids of a map, without void, differ from its segments; empty if equal."""
    listed = {segment.id for segment in segments}
    if len(listed) < len(segments):
        return "a segment id is listed twice"
    if ids - listed:
        return f"the pixels of id {min(ids - listed)} have no segment"
    if listed - ids:
        return f"segment {min(listed - ids)} has no pixels"
    return ""


def _segments(
    record: Record, categories: dict[int, Category], path: str | Path, where: str
) -> tuple[Segment, ...]:
    infos = record.get("segments_info")
    if not isinstance(infos, list) or not all(isinstance(info, dict) for info in infos):
        raise AnnotationError(f"{path}: segments_info of {where} must be a list of records")
    segments = []
    for info in infos:
        segment_id = integer(info, "id", path, f"a segment in {where}", minimum=1)
        category_id = integer(info, "category_id", path, f"segment {segment_id} in {where}")
        check_known(
            category_id, categories, path, f"segment {segment_id} in {where} is of category"
        )
        segments.append(Segment(segment_id, category_id, int(bool(info.get("iscrowd", 0)))))
    return tuple(segments)


def _color(category_id: int) -> list[int]:
    """Fixed colour of a category; the factor makes colours of neighbouring ids differ."""
    spread = category_id * 0x9E3779B1
    return [64 + (spread >> shift & 255) * 3 // 4 for shift in (8, 16, 24)]
