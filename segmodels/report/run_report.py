"""The report of one run: gathers scores, pictures and settings from the finished folders."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segmodels.datasets.ground_truth import GroundTruth
from segmodels.evaluation.predictions import Predictions
from segmodels.evaluation.protocols.evaluate import EvaluationResult
from segmodels.formats.decode import read_image
from segmodels.formats.masks import decode_masks
from segmodels.pictures.cluster_sheets import ClusterCrops, largest_clusters
from segmodels.pictures.overlays import (
    Picture,
    contact_sheet,
    overlay_masks,
)
from segmodels.pictures.palette import UNNAMED
from segmodels.report.inputs import NamedCluster, Panel, PictureRow, ReportInputs
from segmodels.report.page import write_report
from segmodels.report.segment_panels import Label, segment_panel

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
        naming=f"{PICTURE_PROTOCOL}, fitted on the scored images" if names else "",
    )
    write_report(path, inputs)


def comparisons(places: RunPlaces, mapping: pa.Table) -> Iterator[PictureRow]:
    """Image, prediction and, where there is one, ground truth, in the colours of the classes."""
    truth = places.ground_truth
    named = _cluster_labels(places.predictions, mapping)
    classes = {} if truth is None else _class_labels(truth)
    for row in shown_rows(places.images):
        image = read_image(row["source"], row["path"])
        segment_map, segments = places.predictions.segments(row["image_id"])
        panels = [
            Panel("photograph", image),
            segment_panel(
                "prediction",
                image,
                segment_map,
                {segment.id: named[segment.category_id] for segment in segments},
            ),
        ]
        found = None if truth is None else truth.panoptic(row["image_id"])
        if found is not None:
            labels = {segment.id: classes[segment.category_id] for segment in found[1]}
            panels.append(segment_panel("ground truth", image, found[0], labels))
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


def _cluster_labels(predictions: Predictions, mapping: pa.Table) -> dict[int, Label]:
    """What each cluster shows: its class, or itself where nothing names classes."""
    rows = {row["cluster_id"]: row for row in _named(mapping)}
    labels = {}
    for cluster in range(1, predictions.num_things + predictions.num_stuff + 1):
        is_thing = cluster <= predictions.num_things
        if cluster in rows:
            label = Label(rows[cluster]["class_id"], rows[cluster]["class_name"], is_thing)
        elif rows:
            label = Label(UNNAMED, "no class", is_thing)
        else:
            label = Label(cluster, f"cluster {cluster}", is_thing)
        labels[cluster] = label
    return labels


def _class_labels(truth: GroundTruth) -> dict[int, Label]:
    categories = (*truth.thing_categories, *truth.stuff_categories)
    return {c.id: Label(c.id, c.name, c.isthing) for c in categories}


def _clusters(places: RunPlaces) -> list[ClusterCrops]:
    columns = ("cluster_id", "image_id", "bbox", "score")
    members = pa.table({name: places.things[name] for name in columns})
    # Clusters are numbered from 0 in the table and from 1 in predictions.
    members = members.set_column(0, "cluster_id", pc.add(members["cluster_id"], 1))
    return largest_clusters(
        members,
        _ImageReader(places.all_images),
        lambda row: decode_masks(places.things.slice(row, 1))[0],
    )


class _ImageReader:
    """Reads images by id; a table of a million images is searched, never turned into records."""

    def __init__(self, images: pa.Table) -> None:
        self._images = images
        ids = images["image_id"].to_numpy()
        self._order = np.argsort(ids)
        self._ids = ids[self._order]

    def __call__(self, image_id: int) -> Picture:
        row = int(self._order[np.searchsorted(self._ids, image_id)])
        record = self._images.slice(row, 1).to_pylist()[0]
        return read_image(record["source"], record["path"])


def _examples(places: RunPlaces) -> Iterator[PictureRow]:
    for row in shown_rows(places.images)[:4]:
        own = places.discovered.filter(pc.equal(places.discovered["image_id"], row["image_id"]))
        image = read_image(row["source"], row["path"])
        drawn = overlay_masks(image, decode_masks(own)) if own.num_rows else image
        caption = f"{row['path']}: {own.num_rows} masks"
        yield PictureRow(caption, [Panel("photograph", image), Panel("MaskCut", drawn)])


def _class_names(mapping: pa.Table) -> dict[int, str]:
    return {row["cluster_id"]: row["class_name"] for row in _named(mapping)}


def _named(mapping: pa.Table) -> Sequence[dict[str, Any]]:
    return [
        row
        for row in mapping.to_pylist()
        if row["protocol"] == PICTURE_PROTOCOL
        and row["fitted_on"] == "same"
        and row["class_id"] is not None
    ]
