"""Scores as plain text for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

FIT_NAMES = {"same": "scored images", "disjoint": "other images"}
"""Names of the images that a mapping is fitted on."""

INSTANCE_COLUMNS = ("AP", "AP50", "AP75", "AR100")
SEMANTIC_COLUMNS = ("PixelAcc", "mIoU")
PANOPTIC_COLUMNS = ("PQ", "SQ", "RQ")
_INSTANCE_HEADS = ("box AP", "AP50", "AP75", "AR100", "mask AP", "AP50", "AP75", "AR100")


def mapped_scores(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Iterate class-aware scores as (protocol, fitted on, scores)."""
    for protocol, fits in metrics.get("protocols", {}).items():
        for fitted_on, scores in fits.items():
            yield protocol, fitted_on, scores


def unnamed_scores(metrics: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterate class-agnostic scores: of the model, then of MaskCut without a model."""
    names = {"class_agnostic": "any class", "maskcut_baseline": "any class, MaskCut alone"}
    for key, name in names.items():
        if metrics.get(key):
            yield name, metrics[key]


def score_cells(scores: Mapping[str, Any]) -> list[float | None]:
    """The 13 numbers of one protocol: box, mask, semantic, panoptic; None where not computed."""
    parts = (
        ("box", INSTANCE_COLUMNS),
        ("mask", INSTANCE_COLUMNS),
        ("semantic", SEMANTIC_COLUMNS),
    )
    cells = [scores.get(part, {}).get(name) for part, names in parts for name in names]
    overall = scores.get("panoptic", {}).get("all", {})
    return cells + [overall.get(name) for name in PANOPTIC_COLUMNS]


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """Format the scores of `evaluate` as text.

    Args:
        metrics: `EvaluationResult.metrics`.

    Returns:
        Lines for a terminal, without a final newline; percentages, "-" where not computed.
    """
    images = metrics.get("images", {})
    predicted, scored = images.get("predicted", 0), images.get("scored", 0)
    lines = [f"{predicted:,} images predicted, {scored:,} scored; all scores in percent."]
    with_panoptic = images.get("with_panoptic", 0)
    if 0 < with_panoptic < scored:
        lines.append(f"PixelAcc, mIoU and PQ are of the {with_panoptic:,} with panoptic maps.")
    unnamed = [
        [name, *(_text(cell) for cell in score_cells(scores)[: 2 * len(INSTANCE_COLUMNS)])]
        for name, scores in unnamed_scores(metrics)
    ]
    if unnamed:
        lines += ["", "Without classes", *_aligned(["", *_INSTANCE_HEADS], unnamed, texts=1)]
    with_classes = [
        [protocol, FIT_NAMES[fitted_on], *(_text(cell) for cell in score_cells(scores))]
        for protocol, fitted_on, scores in mapped_scores(metrics)
    ]
    if with_classes:
        heads = [
            *("protocol", "clusters named on"),
            *_INSTANCE_HEADS,
            *(*SEMANTIC_COLUMNS, *PANOPTIC_COLUMNS),
        ]
        lines += ["", "With classes", *_aligned(heads, with_classes, texts=2)]
    if not unnamed and not with_classes:
        lines += ["", "Clusters and predictions", *_statistics(metrics.get("statistics", {}))]
    missing = metrics.get("not_computed", {})
    if missing:
        lines += ["", *(f"Not computed: {name}: {reason}" for name, reason in missing.items())]
    return "\n".join(lines)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _statistics(statistics: Mapping[str, Any]) -> list[str]:
    return [f"  {name.replace('_', ' '):32}{value:>12,}" for name, value in statistics.items()]


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int) -> list[str]:
    """Pad columns to equal width, the first `texts` left-aligned."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if column < texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (heads, *rows)
    ]
