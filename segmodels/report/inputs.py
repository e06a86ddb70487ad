"""What a report shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from segmodels.pictures.cluster_crops import ClusterCrops
from segmodels.pictures.sheets import Picture


@dataclass(frozen=True)
class Panel:
    """One captioned picture; `legend` is (colour, name) pairs."""

    title: str
    picture: Picture
    legend: Sequence[tuple[NDArray[np.uint8], str]] = ()


@dataclass(frozen=True)
class PictureRow:
    """Pictures side by side, such as image, prediction and ground truth."""

    caption: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class NamedCluster:
    """Crops of a cluster, and its class, None without one."""

    crops: ClusterCrops
    class_name: str | None


@dataclass(frozen=True)
class ReportInputs:
    """Everything a report shows.

    Attributes:
        title: heading of the page, such as "coco, 800 clusters".
        summary: one or two sentences below the title.
        metrics: `EvaluationResult.metrics`.
        per_class: `EvaluationResult.per_class`, or None.
        settings: of the run, flat, in order.
        thing_counts: (K,) predicted instances of each thing cluster.
        clusters: the largest clusters.
        comparisons: predictions beside image and ground truth.
        examples: pictures of intermediate stages, such as eigenvectors and masks.
        headline: protocol of the scores at the top.
        naming: how the clusters in the pictures got classes, such as "one-to-one, fitted on the scored
            images"; empty if they have none.
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
