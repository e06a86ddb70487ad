"""Panoptic quality in percent, for all classes, things and stuff."""

from typing import Any

from kernels.panoptic_quality import PanopticCounts, PanopticScores, PanopticSummary


def panoptic_scores(
    counts: PanopticCounts, num_thing_classes: int, num_stuff_classes: int
) -> tuple[dict[str, dict[str, Any]], PanopticSummary]:
    """Summarise matches in percent; a part without any segment is left out.

    Args:
        counts: categories are class numbers, things first.
        num_thing_classes: C.
        num_stuff_classes: D.

    Returns:
        {"all": {"PQ", "SQ", "RQ", "classes"}, "things": ..., "stuff": ...}, and the kernel's summary.
    """
    things = range(num_thing_classes)
    stuff = range(num_thing_classes, num_thing_classes + num_stuff_classes)
    summary = counts.summary(things, stuff)
    parts = {"all": summary.all, "things": summary.things, "stuff": summary.stuff}
    return {name: _percent(part) for name, part in parts.items() if part.num_categories}, summary


def _percent(scores: PanopticScores) -> dict[str, Any]:
    return {
        "PQ": 100.0 * scores.pq,
        "SQ": 100.0 * scores.sq,
        "RQ": 100.0 * scores.rq,
        "classes": scores.num_categories,
    }
