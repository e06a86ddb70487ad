"""Tables of a report, as HTML sections."""

from collections.abc import Mapping
from html import escape
from typing import Any

from segmodels.report.html import DASH, Column, meter, number, size_plot, table
from segmodels.report.inputs import ReportInputs
from segmodels.report.metrics_table import (
    FIT_NAMES,
    INSTANCE_COLUMNS,
    PANOPTIC_COLUMNS,
    SEMANTIC_COLUMNS,
    mapped_scores,
    score_cells,
    unnamed_scores,
)

_CLASSES_SHOWN = 24


def protocol_section(inputs: ReportInputs) -> str:
    """Scores of every protocol and fit."""
    rows = [
        [name, DASH, DASH, *(number(cell) for cell in score_cells(scores))]
        for name, scores in unnamed_scores(inputs.metrics)
    ]
    for protocol, fitted_on, scores in mapped_scores(inputs.metrics):
        clusters = scores.get("clusters", {})
        named = f"{clusters.get('things_named', 0)} + {clusters.get('stuff_named', 0)}"
        cells = [number(cell) for cell in score_cells(scores)]
        rows.append([protocol, FIT_NAMES[fitted_on], named, *cells])
    if not rows:
        return ""
    columns = [
        *(
            Column("Protocol", text=True),
            Column("Mapping fitted on", text=True),
            Column("Clusters"),
        ),
        *(Column(name) for name in INSTANCE_COLUMNS * 2 + SEMANTIC_COLUMNS + PANOPTIC_COLUMNS),
    ]
    groups = [("", 3), ("Boxes", 4), ("Masks", 4), ("Semantic", 2), ("Panoptic", 3)]
    lead = frozenset(i for i, row in enumerate(rows) if row[0] == inputs.headline)
    return (
        "<section><h2>All protocols</h2>"
        '<p class="note">u2seg-paper and u2seg-code: every cluster takes the class with most votes of its '
        "confident boxes (score and box IoU above 0.4 and 0.6, or 0.6 and 0.7); clusters may share a class. "
        "one-to-one: Hungarian assignment by shared pixels, left-over clusters by majority. "
        "Clusters: thing + stuff clusters with a class; the others are discarded. "
        "In PixelAcc and mIoU, pixels of clusters without a class are left out under u2seg-paper and "
        "u2seg-code, as in U2Seg's evaluator, and count as wrong under one-to-one. "
        "Any class: class-agnostic, all classes merged into one.</p>"
        + table(columns, rows, groups=groups, lead_rows=lead)
        + "</section>"
    )


def class_section(inputs: ReportInputs) -> str:
    """Scores of each class under the headline protocol."""
    if inputs.per_class is None or inputs.per_class.num_rows == 0:
        return ""
    lines = [row for row in inputs.per_class.to_pylist() if row["protocol"] == inputs.headline]
    by_class: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for line in lines:
        by_class.setdefault((line["kind"], line["class_id"]), {})[line["fitted_on"]] = line
    names = ("box_AP", "mask_AP", "IoU", "PQ")
    rows = []
    for (kind, _), fits in sorted(by_class.items(), key=lambda item: _rank(item[1])):
        same, other = fits.get("same", {}), fits.get("disjoint", {})
        first = same or other
        rows.append(
            [first["class_name"], kind, number(first["truths"]), number(same.get("clusters"))]
            + [meter(same.get(name)) for name in names]
            + [number(other.get(name)) for name in names]
        )
    columns = [
        *(Column("Class", text=True), Column("Kind", text=True)),
        *(Column("In ground truth"), Column("Clusters")),
        *(Column(name.replace("_", " ")) for name in names * 2),
    ]
    groups = [
        ("", 4),
        ("Mapping fitted on scored images", 4),
        ("Mapping fitted on other images", 4),
    ]
    best, rest = (
        table(columns, part, groups=groups, raw_columns=frozenset(range(4, 8)))
        for part in (rows[:_CLASSES_SHOWN], rows[_CLASSES_SHOWN:])
    )
    more = len(rows) - _CLASSES_SHOWN
    return (
        f'<section><h2>Classes</h2><p class="note">Protocol {escape(inputs.headline)}, '
        "best PQ first (mask AP without PQ).</p>"
        + best
        + (f"<details><summary>{more} more classes</summary>{rest}</details>" if more > 0 else "")
        + "</section>"
    )


def _rank(fits: Mapping[str, Mapping[str, Any]]) -> tuple[float, str]:
    line = fits.get("same") or fits["disjoint"]
    scores = (line["PQ"], line["mask_AP"], line["box_AP"], line["IoU"])
    best = next((score for score in scores if score is not None), -1.0)
    return -best, line["class_name"]


def statistics_section(inputs: ReportInputs) -> str:
    """Distribution of predictions over clusters and images."""
    statistics = inputs.metrics.get("statistics", {})
    if not statistics:
        return ""
    rows = [
        [name.replace("_", " ").capitalize(), number(value, 2)]
        for name, value in statistics.items()
    ]
    plot = ""
    if inputs.thing_counts is not None and len(inputs.thing_counts):
        plot = size_plot(inputs.thing_counts, "predicted instances of each thing cluster, by rank")
    return (
        "<section><h2>Clusters and predictions</h2>"
        f'<div class="two"><div>{plot}</div>'
        + table([Column("Quantity", text=True), Column("Value")], rows)
        + "</div></section>"
    )


def settings_section(settings: Mapping[str, object]) -> str:
    """The settings of the run."""
    if not settings:
        return ""
    rows = [[name, str(value)] for name, value in settings.items()]
    return (
        "<section><h2>Settings of this run</h2>"
        + table([Column("Setting", text=True), Column("Value", text=True)], rows)
        + "</section>"
    )
