"""COCO instance files: validated reading, writing, and result files."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from kernels import rle
from segmodels.formats.atomic import write_json_list, write_json_object
from segmodels.formats.coco_json import (
    Category,
    CocoImage,
    Record,
    check_known,
    integer,
    load_document,
    read_categories,
    read_images,
)
from segmodels.formats.errors import AnnotationError
from segmodels.formats.image_ids import read_image_id
from segmodels.formats.segmentations import segmentation_counts, segmentation_fault

Box = tuple[float, float, float, float]
_ROWS_AT_ONCE = 8_192


@dataclass(frozen=True)
class Instance:
    """One annotated object.

    Attributes:
        id: Number of the annotation.
        image_id: The image it lies in.
        category_id: Its class.
        rle_counts: COCO compressed counts of its mask, at the size of the image.
        iscrowd: Whether it is a group of objects annotated as one.
        area: px, as annotated; of the mask where the file has none.
        bbox: x, y, w, h in px, as annotated; of the mask where the file has none.
    """

    id: int
    image_id: int
    category_id: int
    rle_counts: bytes
    iscrowd: bool
    area: float
    bbox: Box


@dataclass(frozen=True)
class CocoInstances:
    """A validated COCO instance file; masks are decoded on access.

    Attributes:
        images: By id, in the order of the file.
        categories: By id, in the order of the file.
    """

    images: dict[int, CocoImage]
    categories: dict[int, Category]
    _annotations: dict[int, list[Record]]

    def instances(self, image_id: int) -> list[Instance]:
        """Give the instances of one image in the order of the file."""
        image = self.images[image_id]
        return [_instance(record, image) for record in self._annotations.get(image_id, [])]


def read_instances(path: str | Path) -> CocoInstances:
    """Read a COCO instance file and check all of it.

    Raises:
        AnnotationError: The file contradicts itself, its images or the format.
        InputError: There is no such file, or a file name leaves the image root.
    """
    document = load_document(path, "COCO instances")
    images = read_images(document["images"], path)
    categories = read_categories(document["categories"], path)
    annotations: dict[int, list[Record]] = {}
    seen: set[int] = set()
    for record in document["annotations"]:
        annotation_id = integer(record, "id", path, "annotation")
        if annotation_id in seen:
            raise AnnotationError(
                f"{path} has two annotations with the id {annotation_id}; make ids unique"
            )
        seen.add(annotation_id)
        where = f"annotation {annotation_id}"
        image_id = read_image_id(record.get("image_id"), path, where)
        check_known(image_id, images, path, f"{where} is of image")
        _check_annotation(record, where, images[image_id], categories, path)
        annotations.setdefault(image_id, []).append(record)
    return CocoInstances(images, categories, annotations)


def write_instances(
    path: str | Path,
    images_table: pa.Table,
    masks_table: pa.Table,
    categories: Sequence[Category],
    category_ids: Iterable[int] | None = None,
) -> None:
    """Write masks as a COCO instance file, annotation ids from 1 in the order of the rows.

    Args:
        path: The json file, replaced atomically.
        images_table: IMAGES_SCHEMA; images without masks are listed too.
        masks_table: MASK_SCHEMA, optionally with a column category_id.
        categories: Classes of the file.
        category_ids: Class of each mask; None for the column category_id or, without that column,
            the only category.

    Raises:
        ValueError: A mask has no image, another size than its image, or no category.
    """
    images = {
        row["image_id"]: CocoImage(row["image_id"], row["path"], row["height"], row["width"])
        for row in images_table.to_pylist()
    }
    classes = _category_column(masks_table, categories, category_ids)
    annotations = _annotations(masks_table, images, {entry.id for entry in categories}, classes)
    write_instances_json(path, images.values(), annotations, categories)


def write_instances_json(
    path: str | Path,
    images: Iterable[CocoImage],
    annotations: Iterable[Record],
    categories: Iterable[Category],
) -> None:
    """Write a COCO instance json atomically, item by item; see `annotation_json`."""
    write_json_object(
        path,
        {
            "info": {"description": "made by exnihilo"},
            "licenses": [],
            "images": map(asdict, images),
            "annotations": annotations,
            "categories": (category.as_json() for category in categories),
        },
    )


@dataclass(frozen=True)
class Result:
    """One predicted object of a COCO result file.

    Attributes:
        image_id: The image it lies in.
        category_id: Predicted class or cluster.
        score: Confidence.
        rle_counts: COCO compressed counts of its mask, at the size of the image.
        height: Rows of the image, px.
        width: Columns of the image, px.
        bbox: x, y, w, h in px; None for the box of the mask.
    """

    image_id: int
    category_id: int
    score: float
    rle_counts: bytes
    height: int
    width: int
    bbox: Box | None = None


def write_results(path: str | Path, rows: Iterable[Result]) -> None:
    """Write predictions as a bare COCO result list, atomically and in their order."""
    write_json_list(path, map(_result_json, rows))


def _result_json(row: Result) -> dict[str, Any]:
    bbox = row.bbox or rle.bbox_xywh([row.rle_counts], row.height, row.width)[0]
    return {
        "image_id": row.image_id,
        "category_id": row.category_id,
        "bbox": [float(side) for side in bbox],
        "score": float(row.score),
        "segmentation": _segmentation_json(row.rle_counts, row.height, row.width),
    }


def _category_column(
    masks_table: pa.Table, categories: Sequence[Category], category_ids: Iterable[int] | None
) -> list[int]:
    if category_ids is not None:
        return [int(category_id) for category_id in category_ids]
    if "category_id" in masks_table.column_names:
        return [row["category_id"] for row in masks_table.select(["category_id"]).to_pylist()]
    if len(categories) != 1:
        raise ValueError(f"category_ids must be given where there are {len(categories)} categories")
    return [categories[0].id] * masks_table.num_rows


def _annotations(
    masks_table: pa.Table, images: dict[int, CocoImage], known: set[int], classes: list[int]
) -> Iterator[dict[str, Any]]:
    batches = masks_table.to_batches(max_chunksize=_ROWS_AT_ONCE)
    rows = (row for batch in batches for row in batch.to_pylist())
    for number, (row, category_id) in enumerate(zip(rows, classes, strict=True), start=1):
        image = images.get(row["image_id"])
        size = (row["height"], row["width"])
        if image is None or size != (image.height, image.width):
            raise ValueError(f"mask {row['instance_id']} of size {size} fits no image: {image}")
        if category_id not in known:
            raise ValueError(f"category {category_id} of mask {row['instance_id']} is not listed")
        yield annotation_json(number, row, category_id)


def annotation_json(number: int, row: Record, category_id: int) -> dict[str, Any]:
    """The annotation of a row of MASK_SCHEMA."""
    return {
        "id": number,
        "image_id": row["image_id"],
        "category_id": category_id,
        "bbox": row["bbox"],
        "area": row["area"],
        "iscrowd": 0,
        "segmentation": _segmentation_json(row["rle_counts"], row["height"], row["width"]),
    }


def _segmentation_json(counts: bytes, height: int, width: int) -> dict[str, Any]:
    return {"size": [height, width], "counts": counts.decode("ascii")}


def _check_annotation(
    record: Record,
    where: str,
    image: CocoImage,
    categories: dict[int, Category],
    path: str | Path,
) -> None:
    category_id = integer(record, "category_id", path, where)
    check_known(category_id, categories, path, f"{where} is of category")
    if record.get("iscrowd", 0) not in {0, 1}:
        raise AnnotationError(f"{path}: iscrowd of {where} must be 0 or 1")
    fault = segmentation_fault(record.get("segmentation"), image.height, image.width)
    if fault:
        raise AnnotationError(f"{path}: {where} {fault}")
    if not _is_box(record.get("bbox", [0, 0, 0, 0])):
        raise AnnotationError(f"{path}: bbox of {where} must be four numbers x, y, w, h")


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(type(side) in {int, float} for side in value)
    )


def _instance(record: Record, image: CocoImage) -> Instance:
    counts = segmentation_counts(record["segmentation"], image.height, image.width)
    area, bbox = record.get("area"), record.get("bbox")
    if area is None:
        area = rle.area([counts], image.height, image.width)[0]
    if bbox is None:
        bbox = rle.bbox_xywh([counts], image.height, image.width)[0]
    x, y, width, height = map(float, bbox)
    return Instance(
        id=record["id"],
        image_id=image.id,
        category_id=record["category_id"],
        rle_counts=counts,
        iscrowd=bool(record.get("iscrowd", 0)),
        area=float(area),
        bbox=(x, y, width, height),
    )
