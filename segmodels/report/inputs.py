"""What a report is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segmodels.pictures.cluster_sheets import ClusterCrops
from segmodels.pictures.overlays import Picture


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
        naming: how the clusters in the pictures got their names, for example "one-to-one, on the scored
            images"; empty where they have none.
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
    naming: str = ""
