"""Average precision and recall of boxes and masks, by the COCO rules."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from segmodels.datasets.ground_truth import GroundTruth, PanopticTruth

Row = dict[str, Any]
"""A COCO result or annotation: image_id, category_id, bbox (xywh px), segmentation, score or iscrowd."""

MAX_DETECTIONS = (100,)
Kind = Literal["box", "mask"]
_KINDS: dict[Kind, Literal["bbox", "segm"]] = {"box": "bbox", "mask": "segm"}


@dataclass(frozen=True)
class AveragePrecision:
    """COCO scores in percent.

    Attributes:
        ap, ap50, ap75: average precision at IoU 0.5 to 0.95, 0.5 and 0.75.
        recall: average recall by the number of detections per image and class.
        per_class: AP of each class that has ground truth.
    """

    ap: float
    ap50: float
    ap75: float
    recall: dict[int, float]
    per_class: dict[int, float]

    def as_dict(self) -> dict[str, float]:
        """The scores under their usual names, such as AP50 and AR100."""
        recalls = {f"AR{count}": value for count, value in self.recall.items()}
        return {"AP": self.ap, "AP50": self.ap50, "AP75": self.ap75, **recalls}


def average_precision(
    results: Iterable[Row],
    annotations: Iterable[Row],
    image_sizes: Mapping[int, tuple[int, int]],
    *,
    kind: Kind,
    max_detections: Sequence[int] = MAX_DETECTIONS,
) -> AveragePrecision | None:
    """Score results against annotations whose categories share one numbering.

    Args:
        results: COCO result rows.
        annotations: COCO annotation rows; crowd regions absorb detections and are never missed.
        image_sizes: (height, width) of every scored image, by image id.
        kind: whether boxes or masks are compared.
        max_detections: limits of detections per image and class, best first; ascending. Recall is
            computed for each, precision for the last.

    Returns:
        The scores, or None if every annotation is a crowd.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    truths = [
        {**row, "id": number, "iscrowd": int(row.get("iscrowd", 0))}
        for number, row in enumerate(annotations, start=1)
    ]
    if all(row["iscrowd"] for row in truths):
        return None
    found = [
        {**row, "id": number, "iscrowd": 0, "area": _area(row)}
        for number, row in enumerate(results, start=1)
    ]
    images = [
        {"id": image_id, "height": height, "width": width}
        for image_id, (height, width) in image_sizes.items()
    ]
    class_ids = sorted({row["category_id"] for row in truths})
    evaluator = COCOeval_faster(
        _dataset(COCO(), images, class_ids, truths),
        _dataset(COCO(), images, class_ids, found),
        _KINDS[kind],
        print_function=_silent,
        separate_eval=True,
        rle_iou_max_workers=1,
    )
    evaluator.params.maxDets = list(max_detections)
    # Size classes are not reported, so only the range "all" is computed.
    evaluator.params.areaRng = [[0, 1e10]]
    evaluator.params.areaRngLbl = ["all"]
    evaluator.evaluate()
    evaluator.accumulate()
    return _summary(evaluator.eval, class_ids, max_detections)


def class_agnostic_scores(
    results: Iterable[Row], annotations: Iterable[Row], image_sizes: Mapping[int, tuple[int, int]]
) -> dict[str, dict[str, float]]:
    """Box and mask scores with all classes merged into one.

    Returns:
        {"box": {"AP", "AP50", "AP75", "AR100"}, "mask": {...}} in percent; empty if there is nothing
        to find.
    """
    found, true = merge_classes(results), merge_classes(annotations)
    scores = {kind: average_precision(found, true, image_sizes, kind=kind) for kind in _KINDS}
    return {kind: score.as_dict() for kind, score in scores.items() if score is not None}


def merge_classes(rows: Iterable[Row]) -> list[Row]:
    """Give every row category 1, for class-agnostic scores."""
    return [{**row, "category_id": 1} for row in rows]


def truth_rows(
    ground_truth: GroundTruth,
    image_id: int,
    size: tuple[int, int],
    panoptic: PanopticTruth | None = None,
) -> list[Row] | None:
    """True instances of one image as COCO annotation rows; None if they are not annotated.

    Args:
        ground_truth: has the image, or not.
        image_id: of the image.
        size: (height, width) of the image.
        panoptic: of the image if it was read before, so that it is not read again.
    """
    instances = ground_truth.instances(image_id, panoptic)
    if instances is None:
        return None
    return [
        {
            "image_id": image_id,
            "category_id": instance.category_id,
            "bbox": list(instance.bbox),
            "area": instance.area,
            "iscrowd": int(instance.iscrowd),
            "segmentation": {"size": list(size), "counts": instance.rle_counts.decode("ascii")},
        }
        for instance in instances
    ]


def mask_results(masks: pa.Table) -> list[Row]:
    """COCO result rows of category 1 for a mask table (MASK_SCHEMA)."""
    columns = masks.select(
        ["image_id", "height", "width", "rle_counts", "bbox", "score"]
    ).to_pylist()
    return [
        {
            "image_id": row["image_id"],
            "category_id": 1,
            "bbox": row["bbox"],
            "score": row["score"],
            "segmentation": {
                "size": [row["height"], row["width"]],
                "counts": row["rle_counts"].decode("ascii"),
            },
        }
        for row in columns
    ]


def _dataset(coco: Any, images: list[Row], class_ids: list[int], rows: list[Row]) -> Any:
    coco.dataset = {
        "images": images,
        "categories": [{"id": class_id, "name": str(class_id)} for class_id in class_ids],
        "annotations": rows,
    }
    coco.createIndex()
    return coco


def _area(row: Row) -> float:
    return float(row["bbox"][2] * row["bbox"][3])


def _silent(*_: object) -> None:
    """Discard what the evaluator would print."""


def _summary(
    accumulated: Mapping[str, Any], class_ids: list[int], max_detections: Sequence[int]
) -> AveragePrecision:
    # precision: (10 IoU thresholds, 101 recalls, classes, 1 size, counts); recall: (10, classes,
    # 1 size, counts); -1 = no truth.
    precision = np.asarray(accumulated["precision"])[..., 0, -1]
    recall = np.asarray(accumulated["recall"])[:, :, 0]
    per_class = {
        class_id: _mean_percent(precision[:, :, index])
        for index, class_id in enumerate(class_ids)
        if np.any(precision[:, :, index] > -1)
    }
    return AveragePrecision(
        ap=_mean_percent(precision),
        ap50=_mean_percent(precision[0]),
        ap75=_mean_percent(precision[5]),
        recall={
            count: _mean_percent(recall[..., index]) for index, count in enumerate(max_detections)
        },
        per_class=per_class,
    )


def _mean_percent(values: np.ndarray) -> float:
    return 100.0 * float(np.mean(values[values > -1]))
