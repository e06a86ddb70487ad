"""The report of one run: gathers scores, pictures and settings from the finished folders."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from segmodels.evaluation.cluster_sheets import ClusterMember, largest_clusters
from segmodels.evaluation.evaluate import EvaluationResult
from segmodels.evaluation.pictures import (
    Picture,
    contact_sheet,
    overlay_masks,
    overlay_panoptic,
)
from segmodels.evaluation.predictions import Predictions
from segmodels.evaluation.report import (
    NamedCluster,
    Panel,
    PictureRow,
    ReportInputs,
    write_report,
)
from segmodels.formats.decode import read_image
from segmodels.formats.ground_truth import GroundTruth
from segmodels.formats.masks import decode_masks

SHOWN_IMAGES = 8
# The one protocol in which every cluster with a vote has a class: the fullest pictures.
PICTURE_PROTOCOL = "one-to-one"


@dataclass(frozen=True)
class RunPlaces:
    """What a run left behind.

    Attributes:
        images: the predicted images (IMAGES_SCHEMA).
        all_images: every image of the dataset.
        things: thing masks (MASK_SCHEMA) with a column `cluster_id`, 0-based.
        discovered: masks straight from MaskCut (MASK_SCHEMA).
        predictions: the predictions.
        ground_truth: None where there is none.
    """

    images: pa.Table
    all_images: pa.Table
    things: pa.Table
    discovered: pa.Table
    predictions: Predictions
    ground_truth: GroundTruth | None


def write_run_report(
    path: Path,
    places: RunPlaces,
    result: EvaluationResult,
    *,
    title: str,
    summary: str,
    settings: Mapping[str, object],
) -> None:
    """Write the self-contained HTML report of one clustering's run."""
    names = _class_names(result.mapping)
    inputs = ReportInputs(
        title=title,
        summary=summary,
        metrics=result.metrics,
        per_class=result.per_class if result.per_class.num_rows else None,
        settings=settings,
        thing_counts=result.statistics.thing_counts,
        clusters=[NamedCluster(crops, names.get(crops.cluster_id)) for crops in _clusters(places)],
        comparisons=list(comparisons(places, result.mapping)),
        examples=list(_examples(places)),
    )
    write_report(path, inputs)


def comparisons(places: RunPlaces, mapping: pa.Table) -> Iterator[PictureRow]:
    """Image, prediction and, where there is one, ground truth, in the colours of the classes."""
    truth = places.ground_truth
    classes = _class_ids(mapping)
    things = set() if truth is None else {category.id for category in truth.thing_categories}
    for row in shown_rows(places.images):
        image = read_image(row["source"], row["path"])
        segment_map, clusters = places.predictions.segments(row["image_id"])
        panels = [
            Panel("photograph", image),
            Panel("prediction", _draw_prediction(image, segment_map, clusters, classes, places)),
        ]
        found = None if truth is None else truth.panoptic(row["image_id"])
        if found is not None:
            segments = {s.id: (s.category_id, s.category_id in things) for s in found[1]}
            panels.append(Panel("ground truth", overlay_panoptic(image, found[0], segments)))
        yield PictureRow(row["path"], panels)


def comparison_sheet(places: RunPlaces, mapping: pa.Table) -> Picture:
    """The comparisons as one picture: a row an image."""
    rows = list(comparisons(places, mapping))
    panels = [panel for row in rows for panel in row.panels]
    columns = max((len(row.panels) for row in rows), default=1)
    return contact_sheet(
        [panel.picture for panel in panels], [panel.title for panel in panels], columns
    )


def shown_rows(images: pa.Table) -> list[dict[str, Any]]:
    """Rows of a few images, evenly over the table."""
    count = min(SHOWN_IMAGES, images.num_rows)
    chosen = np.linspace(0, images.num_rows - 1, count).round().astype(np.int64)
    rows: list[dict[str, Any]] = images.take(chosen).to_pylist()
    return rows


def _draw_prediction(
    image: Picture,
    segment_map: np.ndarray,
    clusters: Mapping[int, int],
    classes: Mapping[int, int],
    places: RunPlaces,
) -> Picture:
    """Segments in the colour of their class; of their cluster where nothing names classes."""
    num_things = places.predictions.num_things
    categories = {
        segment: (classes.get(cluster, -1) if classes else cluster, cluster <= num_things)
        for segment, cluster in clusters.items()
    }
    named = {segment: pair for segment, pair in categories.items() if pair[0] >= 0}
    return overlay_panoptic(image, segment_map, named)


def _clusters(places: RunPlaces) -> list[Any]:
    rows = {row["image_id"]: row for row in places.all_images.to_pylist()}
    members = [
        ClusterMember(
            cluster_id=row["cluster_id"] + 1,
            image_id=row["image_id"],
            box_xywh=row["bbox"],
            score=row["score"],
            read_mask=partial(_mask, places.things, position),
        )
        for position, row in enumerate(
            places.things.select(["cluster_id", "image_id", "bbox", "score"]).to_pylist()
        )
    ]
    return largest_clusters(members, partial(_image, rows))


def _mask(table: pa.Table, position: int) -> np.ndarray:
    return decode_masks(table.slice(position, 1))[0]


def _image(rows: Mapping[int, Mapping[str, Any]], image_id: int) -> Picture:
    return read_image(rows[image_id]["source"], rows[image_id]["path"])


def _examples(places: RunPlaces) -> Iterator[PictureRow]:
    for row in shown_rows(places.images)[:4]:
        own = places.discovered.filter(
            pa.compute.equal(places.discovered["image_id"], row["image_id"])
        )
        image = read_image(row["source"], row["path"])
        drawn = overlay_masks(image, decode_masks(own)) if own.num_rows else image
        caption = f"{row['path']}: {own.num_rows} masks"
        yield PictureRow(caption, [Panel("photograph", image), Panel("MaskCut", drawn)])


def _class_names(mapping: pa.Table) -> dict[int, str]:
    return {row["cluster_id"]: row["class_name"] for row in _named(mapping)}


def _class_ids(mapping: pa.Table) -> dict[int, int]:
    return {row["cluster_id"]: row["class_id"] for row in _named(mapping)}


def _named(mapping: pa.Table) -> Sequence[dict[str, Any]]:
    return [
        row
        for row in mapping.to_pylist()
        if row["protocol"] == PICTURE_PROTOCOL
        and row["fitted_on"] == "same"
        and row["class_id"] is not None
    ]
