"""A self-contained HTML page about one evaluation: no scripts, no external references."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from segmodels.formats.atomic import write_text
from segmodels.pictures.sheets import fit
from segmodels.report.html import PictureBudget, key, number
from segmodels.report.inputs import NamedCluster, PictureRow, ReportInputs
from segmodels.report.tables import (
    class_section,
    protocol_section,
    settings_section,
    statistics_section,
)

PICTURE_BYTES = 5_000_000
_PANEL = 520


def write_report(path: Path, inputs: ReportInputs) -> None:
    """Write the page atomically; it is smaller than 6 MB for any number of pictures."""
    write_text(path, render_report(inputs))


def render_report(inputs: ReportInputs) -> str:
    """Render the page as HTML."""
    panels = sum(len(row.panels) for row in (*inputs.comparisons, *inputs.examples))
    crops = sum(len(cluster.crops.pictures) for cluster in inputs.clusters)
    # A crop is a fifth of a panel's side; it counts as a tenth of a panel.
    large = PictureBudget(PICTURE_BYTES, panels + crops // 10)
    small = PictureBudget(PICTURE_BYTES, 10 * panels + crops, most_bytes=9_000)
    sections = [
        _headline(inputs),
        _comparisons(inputs, large),
        protocol_section(inputs),
        _clusters(inputs, small),
        _examples(inputs.examples, large),
        class_section(inputs),
        statistics_section(inputs),
        settings_section(inputs.settings),
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
    agnostic, baseline = metrics.get("class_agnostic", {}), metrics.get("maskcut_baseline", {})
    cards = [
        _card(
            f"Any class, {kind} AP50",
            agnostic[kind]["AP50"],
            f"MaskCut alone: {number(baseline[kind]['AP50'])}"
            if baseline
            else "needs no class names",
        )
        for kind in agnostic
    ]
    wanted = (
        ("PQ", ("panoptic", "all", "PQ")),
        ("Mask AP50", ("mask", "AP50")),
        ("Box AP50", ("box", "AP50")),
        ("mIoU", ("semantic", "mIoU")),
        ("PixelAcc", ("semantic", "PixelAcc")),
    )
    for name, keys in wanted:
        same, other = (_score(fits.get(fitted_on, {}), keys) for fitted_on in ("same", "disjoint"))
        if same is not None:
            cards.append(_card(name, same, f"fitted on other images: {number(other)}"))
    missing = "".join(
        f'<p class="note"><b class="warn">Not computed:</b> {escape(name)}: {escape(reason)}</p>'
        for name, reason in metrics.get("not_computed", {}).items()
    )
    if not cards:
        return f"<section><h2>No scores</h2>{missing}</section>"
    return (
        f'<section><h2>Scores</h2><p class="note">{_score_note(inputs)}</p>'
        f'<div class="cards">{"".join(cards)}</div>{missing}</section>'
    )


def _score_note(inputs: ReportInputs) -> str:
    images = inputs.metrics.get("images", {})
    text = f"{int(images.get('scored', 0)):,} images, all numbers in percent."
    if not inputs.metrics.get("protocols"):
        return text
    text += (
        " The model was trained without labels, so its clusters have no class names; the protocol "
        f"<b>{escape(inputs.headline)}</b> maps clusters to classes with ground truth. For the large "
        "numbers the mapping is fitted on the scored images, as in the literature, which overestimates "
        "the scores."
    )
    if images.get("disjoint_scored"):
        text += (
            f" For the numbers below them it is fitted on {int(images['disjoint_mapping']):,} images "
            f"and scored on the other {int(images['disjoint_scored']):,}."
        )
    with_panoptic = int(images.get("with_panoptic", 0))
    if 0 < with_panoptic < int(images.get("scored", 0)):
        text += f" PQ, mIoU and PixelAcc are of the {with_panoptic:,} images with panoptic maps."
    return text


def _card(name: str, value: float, note: str) -> str:
    return (
        f'<div class="card"><div class="name">{escape(name)}</div>'
        f'<div class="value">{number(value)}</div><div class="other">{escape(note)}</div></div>'
    )


def _score(scores: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    value: Any = scores
    for name in keys:
        value = value.get(name, {})
    return value if isinstance(value, float) else None


def _comparisons(inputs: ReportInputs, budget: PictureBudget) -> str:
    if not inputs.comparisons:
        return ""
    named = f" Classes of clusters: {escape(inputs.naming)}; grey clusters have none." * bool(
        inputs.naming
    )
    return (
        "<section><h2>Predictions</h2>"
        '<p class="note">Things are vivid, stuff is muted; a class has the same colour in every picture.'
        f"{named}</p>{_picture_rows(inputs.comparisons, budget)}</section>"
    )


def _examples(rows: Sequence[PictureRow], budget: PictureBudget) -> str:
    if not rows:
        return ""
    return f"<section><h2>Masks of MaskCut</h2>{_picture_rows(rows, budget)}</section>"


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
        columns = max(3, len(row.panels))
        panels = f'<div class="panels" style="--columns:{columns}">{figures}</div>'
        parts.append(f'<div class="row">{caption}{panels}</div>')
    return "".join(parts)


def _clusters(inputs: ReportInputs, budget: PictureBudget) -> str:
    if not inputs.clusters:
        return ""
    named = f" Classes of clusters: {escape(inputs.naming)}." * bool(inputs.naming)
    cells = "".join(
        f'<div class="cluster"><div class="what"><b>{escape(_cluster_name(cluster, inputs))}</b>'
        f"<span>cluster {cluster.crops.cluster_id} · {cluster.crops.size:,} instances</span></div>"
        '<div class="crops">'
        + "".join(
            budget.image(fit(crop, 112, 112), f"instance of cluster {cluster.crops.cluster_id}")
            for crop in cluster.crops.pictures
        )
        + "</div></div>"
        for cluster in inputs.clusters
    )
    return (
        "<section><h2>Largest clusters</h2>"
        '<p class="note">The best-scored instances of each cluster, from different images where '
        f"there are enough.{named}</p>"
        f'<div class="clusters">{cells}</div></section>'
    )


def _cluster_name(cluster: NamedCluster, inputs: ReportInputs) -> str:
    if cluster.class_name is not None:
        return cluster.class_name
    return "no class" if inputs.naming else ""
