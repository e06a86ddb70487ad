"""Panels with named segments and a legend of the largest."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segmodels.pictures.overlays import overlay_panoptic
from segmodels.pictures.palette import stuff_colour, thing_colour
from segmodels.pictures.sheets import Picture
from segmodels.report.inputs import Panel

MOST_ENTRIES = 7


@dataclass(frozen=True)
class Label:
    """The label of a segment: its class, or its cluster if no cluster has a class.

    Attributes:
        id: determines the colour; `palette.UNNAMED` for a cluster without a class.
        name: for the legend.
        is_thing: vivid if True, muted if False.
    """

    id: int
    name: str
    is_thing: bool


def segment_panel(
    title: str, image: Picture, segment_map: NDArray[np.integer], labels: Mapping[int, Label]
) -> Panel:
    """Draw a panoptic map over its image.

    Args:
        title: of the panel.
        image: (H, W, 3) uint8.
        segment_map: (H, W) segment ids, 0 = void.
        labels: by segment id; segments without one are not tinted.

    Returns:
        The panel; its legend lists the labels by area, largest first.
    """
    drawn = overlay_panoptic(
        image, segment_map, {i: (label.id, label.is_thing) for i, label in labels.items()}
    )
    ids, areas = np.unique(segment_map, return_counts=True)
    covered: dict[Label, int] = {}
    for segment_id, area in zip(ids.tolist(), areas.tolist(), strict=True):
        if segment_id in labels:
            covered[labels[segment_id]] = covered.get(labels[segment_id], 0) + area
    largest = sorted(covered, key=lambda label: (-covered[label], label.name))[:MOST_ENTRIES]
    return Panel(title, drawn, [(_colour(label), label.name) for label in largest])


def _colour(label: Label) -> NDArray[np.uint8]:
    return thing_colour(label.id) if label.is_thing else stuff_colour(label.id)
