"""One self-contained HTML page about one evaluation: no scripts, no outside references."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segmodels.evaluation.cluster_sheets import ClusterCrops
from segmodels.evaluation.metrics_table import (
    FIT_NAMES,
    INSTANCE_COLUMNS,
    PANOPTIC_COLUMNS,
    SEMANTIC_COLUMNS,
    mapped_scores,
    score_cells,
)
from segmodels.evaluation.pictures import Picture, fit
from segmodels.evaluation.report_html import (
    DASH,
    Column,
    PictureBudget,
    key,
    meter,
    number,
    size_plot,
    table,
)
from segmodels.formats.atomic import replacing

PICTURE_BYTES = 5_000_000
_PANEL = 520
_CLASSES_SHOWN = 24


@dataclass(frozen=True)
class Panel:
    """One captioned picture; `legend` holds (colour, name) pairs."""

    title: str
    picture: Picture
    legend: Sequence[tuple[NDArray[np.uint8], str]] = ()


@dataclass(frozen=True)
class PictureRow:
    """Pictures that belong side by side, such as image, prediction and ground truth."""

    caption: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class NamedCluster:
    """Crops of a cluster with the class it was matched to, None if it has none."""

    crops: ClusterCrops
    class_name: str | None


@dataclass(frozen=True)
class ReportInputs:
    """Everything a report shows.

    Attributes:
        title: heading of the page, for example "coco, 800 clusters".
        summary: one or two sentences under it.
        metrics: `EvaluationResult.metrics`.
        per_class: `EvaluationResult.per_class`, or None.
        settings: the run's settings, flat, in the order in which they shall be read.
        thing_counts: (K,) predicted instances of each thing cluster, for the plot of sizes.
        clusters: the largest clusters.
        comparisons: predictions beside image and ground truth.
        examples: pictures of intermediate stages, such as eigenvectors and masks.
        headline: protocol of the numbers at the top.
    """

    title: str
    summary: str
    metrics: Mapping[str, Any]
    per_class: pa.Table | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    thing_counts: NDArray[np.int64] | None = None
    clusters: Sequence[NamedCluster] = ()
    comparisons: Sequence[PictureRow] = ()
    examples: Sequence[PictureRow] = ()
    headline: str = "u2seg-paper"


def write_report(path: Path, inputs: ReportInputs) -> None:
    """Write the page whole or not at all; below 6 MB however many pictures it is given."""
    with replacing(path) as temporary:
        temporary.write_text(render_report(inputs), encoding="utf-8")


def render_report(inputs: ReportInputs) -> str:
    """The page as HTML text."""
    panels = sum(len(row.panels) for row in (*inputs.comparisons, *inputs.examples))
    crops = sum(len(cluster.crops.pictures) for cluster in inputs.clusters)
    # A crop is a fifth of a panel's side; counting it as a tenth of a panel shares the bytes fairly.
    large = PictureBudget(PICTURE_BYTES, panels + crops // 10)
    small = PictureBudget(PICTURE_BYTES, 10 * panels + crops, most_bytes=9_000)
    sections = [
        _headline(inputs),
        _comparisons(inputs.comparisons, large),
        _protocols(inputs),
        _clusters(inputs.clusters, small),
        _examples(inputs.examples, large),
        _per_class(inputs),
        _statistics(inputs),
        _settings(inputs.settings),
    ]
    page = Template(files(__package__).joinpath("report.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=escape(inputs.title),
        summary=escape(inputs.summary),
        sections="\n".join(section for section in sections if section),
    )


def _headline(inputs: ReportInputs) -> str:
    metrics = inputs.metrics
    fits = metrics.get("protocols", {}).get(inputs.headline, {})
    agnostic = metrics.get("class_agnostic", {})
    cards = [
        _card(f"Class-agnostic {kind} AP50", agnostic[kind]["AP50"], "no mapping needed")
        for kind in agnostic
    ]
    wanted = (
        ("PQ", ("panoptic", "all", "PQ")),
        ("Mask AP50", ("mask", "AP50")),
        ("Box AP50", ("box", "AP50")),
        ("mIoU", ("semantic", "mIoU")),
        ("PixelAcc", ("semantic", "PixelAcc")),
    )
    for name, place in wanted:
        same, other = (_at(fits.get(fitted_on, {}), place) for fitted_on in ("same", "disjoint"))
        if same is not None:
            beside = f"other images: {number(other)}"
            cards.append(_card(name, same, beside))
    missing = "".join(
        f'<p class="note"><b class="warn">Not computed:</b> {escape(name)}: {escape(reason)}</p>'
        for name, reason in metrics.get("not_computed", {}).items()
    )
    if not cards:
        return f"<section><h2>No scores</h2>{missing}</section>"
    return (
        f'<section><h2>Scores</h2><p class="note">{_honesty(inputs)}</p>'
        f'<div class="cards">{"".join(cards)}</div>{missing}</section>'
    )


def _honesty(inputs: ReportInputs) -> str:
    images = inputs.metrics.get("images", {})
    text = f"{int(images.get('scored', 0)):,} images, all numbers in percent."
    if not inputs.metrics.get("protocols"):
        return text
    text += (
        " Nothing was trained on labels, so clusters have no names; to compare them with classes they are "
        f"named with the help of ground truth, here by the protocol <b>{escape(inputs.headline)}</b>. "
        "The large numbers name clusters on the very images that are scored, as the literature does, "
        "which flatters them."
    )
    if images.get("disjoint_scored"):
        text += (
            f" Beneath them the honest reading: named on {int(images['disjoint_mapping']):,} images, "
            f"scored on the other {int(images['disjoint_scored']):,}."
        )
    return text


def _card(name: str, value: float, beneath: str) -> str:
    return (
        f'<div class="card"><div class="name">{escape(name)}</div>'
        f'<div class="value">{number(value)}</div><div class="other">{escape(beneath)}</div></div>'
    )


def _at(scores: Mapping[str, Any], place: Sequence[str]) -> float | None:
    value: Any = scores
    for name in place:
        value = value.get(name, {})
    return value if isinstance(value, float) else None


def _protocols(inputs: ReportInputs) -> str:
    agnostic = inputs.metrics.get("class_agnostic", {})
    rows: list[list[str]] = []
    blank = [None] * (len(SEMANTIC_COLUMNS) + len(PANOPTIC_COLUMNS))
    if agnostic:
        numbers = [
            agnostic.get(kind, {}).get(name)
            for kind in ("box", "mask")
            for name in INSTANCE_COLUMNS
        ]
        rows.append(["class-agnostic", DASH, DASH, *(number(cell) for cell in [*numbers, *blank])])
    for protocol, fitted_on, scores in mapped_scores(inputs.metrics):
        clusters = scores.get("clusters", {})
        named = f"{clusters.get('things_named', 0)} + {clusters.get('stuff_named', 0)}"
        cells = [number(cell) for cell in score_cells(scores)]
        rows.append([protocol, FIT_NAMES[fitted_on], named, *cells])
    if not rows:
        return ""
    columns = [
        *(Column("Protocol", text=True), Column("Named on", text=True), Column("Clusters")),
        *(Column(name) for name in INSTANCE_COLUMNS * 2 + SEMANTIC_COLUMNS + PANOPTIC_COLUMNS),
    ]
    groups = [("", 3), ("Boxes", 4), ("Masks", 4), ("Semantic", 2), ("Panoptic", 3)]
    lead = frozenset(i for i, row in enumerate(rows) if row[0] == inputs.headline)
    return (
        "<section><h2>All protocols</h2>"
        '<p class="note">u2seg-paper and u2seg-code: every cluster takes the class that most of its '
        "confident boxes hit (score and box IoU above 0.4 and 0.6, or 0.6 and 0.7), so many clusters may "
        "share a class. one-to-one: an assignment by shared pixels first, left-over clusters by majority. "
        "Clusters: thing + stuff clusters that received a class; the others are dropped. "
        "Class-agnostic: all classes merged into one, no names needed.</p>"
        + table(columns, rows, groups=groups, lead_rows=lead)
        + "</section>"
    )


def _comparisons(rows: Sequence[PictureRow], budget: PictureBudget) -> str:
    if not rows:
        return ""
    return (
        "<section><h2>Predictions</h2>"
        '<p class="note">Things are vivid, stuff is muted; a class has the same colour everywhere. '
        "Grey: a cluster without a class.</p>" + _picture_rows(rows, budget) + "</section>"
    )


def _examples(rows: Sequence[PictureRow], budget: PictureBudget) -> str:
    if not rows:
        return ""
    return f"<section><h2>How masks came about</h2>{_picture_rows(rows, budget)}</section>"


def _picture_rows(rows: Sequence[PictureRow], budget: PictureBudget) -> str:
    parts = []
    for row in rows:
        figures = "".join(
            f"<figure>{budget.image(fit(panel.picture, _PANEL, _PANEL), panel.title)}"
            f"<figcaption><strong>{escape(panel.title)}</strong>"
            f"{''.join(key(colour, name) for colour, name in panel.legend)}</figcaption></figure>"
            for panel in row.panels
        )
        caption = f'<div class="caption">{escape(row.caption)}</div>' if row.caption else ""
        parts.append(f'<div class="row">{caption}<div class="panels">{figures}</div></div>')
    return "".join(parts)


def _clusters(clusters: Sequence[NamedCluster], budget: PictureBudget) -> str:
    if not clusters:
        return ""
    cells = "".join(
        f'<div class="cluster"><div class="what"><b>{escape(cluster.class_name or "no class")}</b>'
        f"<span>cluster {cluster.crops.cluster_id} · {cluster.crops.size:,} instances</span></div>"
        '<div class="crops">'
        + "".join(
            budget.image(fit(crop, 112, 112), f"instance of cluster {cluster.crops.cluster_id}")
            for crop in cluster.crops.pictures
        )
        + "</div></div>"
        for cluster in clusters
    )
    return (
        "<section><h2>Largest clusters</h2>"
        '<p class="note">The best-scored predictions of each cluster, from different images where '
        "there are enough, and the class the cluster was matched to.</p>"
        f'<div class="clusters">{cells}</div></section>'
    )


def _per_class(inputs: ReportInputs) -> str:
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
    groups = [("", 4), ("Named on the scored images", 4), ("Named on other images", 4)]
    best, rest = (
        table(columns, part, groups=groups, raw_columns=frozenset(range(4, 8)))
        for part in (rows[:_CLASSES_SHOWN], rows[_CLASSES_SHOWN:])
    )
    more = len(rows) - _CLASSES_SHOWN
    return (
        f'<section><h2>Classes</h2><p class="note">Protocol {escape(inputs.headline)}, '
        "best PQ first (mask AP where there is no PQ).</p>"
        + best
        + (f"<details><summary>{more} more classes</summary>{rest}</details>" if more > 0 else "")
        + "</section>"
    )


def _rank(fits: Mapping[str, Mapping[str, Any]]) -> tuple[float, str]:
    line = fits.get("same") or fits["disjoint"]
    scores = (line["PQ"], line["mask_AP"], line["box_AP"], line["IoU"])
    best = next((score for score in scores if score is not None), -1.0)
    return -best, line["class_name"]


def _statistics(inputs: ReportInputs) -> str:
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


def _settings(settings: Mapping[str, object]) -> str:
    if not settings:
        return ""
    rows = [[name, str(value)] for name, value in settings.items()]
    return (
        "<section><h2>Settings of this run</h2>"
        + table([Column("Setting", text=True), Column("Value", text=True)], rows)
        + "</section>"
    )
