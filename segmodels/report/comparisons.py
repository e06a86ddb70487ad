"""Images of a run beside their prediction, their ground truth and MaskCut's masks."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from segmodels.datasets.ground_truth import GroundTruth
from segmodels.evaluation.predictions import Predictions
from segmodels.formats.arrow import evenly_spaced_rows, rows_in
from segmodels.formats.decode import read_image
from segmodels.formats.masks import decode_masks
from segmodels.pictures.overlays import overlay_masks
from segmodels.pictures.palette import UNNAMED
from segmodels.pictures.sheets import Picture, contact_sheet
from segmodels.report.artifacts import RunArtifacts
from segmodels.report.inputs import Panel, PictureRow
from segmodels.report.segment_panels import Label, segment_panel

SHOWN_IMAGES = 8
# The protocol in which every cluster with a vote has a class.
PICTURE_PROTOCOL = "one-to-one"


def comparisons(artifacts: RunArtifacts, mapping: pa.Table) -> Iterator[PictureRow]:
    """Image, prediction and, if there is one, ground truth, in the colours of the classes.

    Args:
        artifacts: of the run.
        mapping: `EvaluationResult.mapping`.
    """
    truth = artifacts.ground_truth
    labels = _cluster_labels(artifacts.predictions, named_clusters(mapping))
    classes = {} if truth is None else _class_labels(truth)
    for row in evenly_spaced_rows(artifacts.images, SHOWN_IMAGES).to_pylist():
        image = read_image(row["source"], row["path"])
        segment_map, segments = artifacts.predictions.segments(row["image_id"])
        predicted = {segment.id: labels[segment.category_id] for segment in segments}
        panels = [
            Panel("image", image),
            segment_panel("prediction", image, segment_map, predicted),
        ]
        panoptic = None if truth is None else truth.panoptic(row["image_id"])
        if panoptic is not None:
            true = {segment.id: classes[segment.category_id] for segment in panoptic[1]}
            panels.append(segment_panel("ground truth", image, panoptic[0], true))
        yield PictureRow(row["path"], panels)


def comparison_sheet(artifacts: RunArtifacts, mapping: pa.Table) -> Picture:
    """The comparisons as one picture, a row per image."""
    rows = list(comparisons(artifacts, mapping))
    panels = [panel for row in rows for panel in row.panels]
    columns = max((len(row.panels) for row in rows), default=1)
    return contact_sheet(
        [panel.picture for panel in panels], [panel.title for panel in panels], columns
    )


def maskcut_examples(artifacts: RunArtifacts) -> Iterator[PictureRow]:
    """Four images beside MaskCut's masks."""
    shown = evenly_spaced_rows(artifacts.images, SHOWN_IMAGES)
    for row in shown.slice(0, 4).to_pylist():
        own = rows_in(artifacts.discovered, "image_id", [row["image_id"]])
        image = read_image(row["source"], row["path"])
        drawn = overlay_masks(image, decode_masks(own)) if own.num_rows else image
        caption = f"{row['path']}: {own.num_rows} masks"
        yield PictureRow(caption, [Panel("image", image), Panel("MaskCut", drawn)])


def named_clusters(mapping: pa.Table) -> dict[int, dict[str, Any]]:
    """Rows of the clusters that have a class in the pictures, by cluster id."""
    return {
        row["cluster_id"]: row
        for row in mapping.to_pylist()
        if row["protocol"] == PICTURE_PROTOCOL
        and row["fitted_on"] == "same"
        and row["class_id"] is not None
    }


def _cluster_labels(
    predictions: Predictions, named: Mapping[int, Mapping[str, Any]]
) -> dict[int, Label]:
    """The class of each cluster, or the cluster itself if no cluster has a class."""
    labels = {}
    for cluster in range(1, predictions.num_things + predictions.num_stuff + 1):
        is_thing = cluster <= predictions.num_things
        if cluster in named:
            label = Label(named[cluster]["class_id"], named[cluster]["class_name"], is_thing)
        elif named:
            label = Label(UNNAMED, "no class", is_thing)
        else:
            label = Label(cluster, f"cluster {cluster}", is_thing)
        labels[cluster] = label
    return labels


def _class_labels(truth: GroundTruth) -> dict[int, Label]:
    categories = (*truth.thing_categories, *truth.stuff_categories)
    return {c.id: Label(c.id, c.name, c.isthing) for c in categories}
