"""Clustering of instances: the cluster is an instance's class (U2Seg, section 3.2)."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from kernels.errors import TooFewPointsError
from kernels.kmeans import kmeans

_COLUMNS: list["pa.Field[Any]"] = [
    pa.field("instance_id", pa.int64(), nullable=False),
    pa.field("cluster_id", pa.int32(), nullable=False),
    pa.field("distance", pa.float32(), nullable=False),
]
CLUSTER_SCHEMA = pa.schema(_COLUMNS)


@dataclass(frozen=True)
class ClusterSettings:
    """How instances are clustered; their number comes from the clustering's key.

    Attributes:
        iterations: Most rounds of k-means; U2Seg runs 100.
        init: First centroids: "random" points, as U2Seg takes them, or "k-means++".
        restarts: Starts, of which the tightest clustering is kept; U2Seg starts once.
        normalise: Scale every embedding to unit length first; U2Seg does not.
        backend: Where distances are computed.
    """

    iterations: int = 100
    init: Literal["random", "k-means++"] = "random"
    restarts: int = 1
    normalise: bool = False
    backend: Literal["auto", "cpu", "gpu"] = "auto"


def cluster_instances(
    embeddings: np.ndarray,
    instance_ids: np.ndarray,
    num_clusters: int,
    seed: int,
    settings: ClusterSettings,
) -> tuple[pa.Table, np.ndarray]:
    """Put every instance into one of `num_clusters` clusters, none of them empty.

    The result does not depend on the order of the instances: they are sorted by id first.

    Args:
        embeddings: (n, d) float32.
        instance_ids: (n,) int64, unique.
        num_clusters: Number of clusters.
        seed: Chooses the first centroids.
        settings: See ClusterSettings.

    Returns:
        A table of CLUSTER_SCHEMA in ascending instance_id, cluster_id in [0, num_clusters),
        distance = Euclidean distance to the own centroid; and centroids
        (num_clusters, d) float32.

    Raises:
        TooFewPointsError: There are fewer (distinct) instances than clusters.
        ValueError: Ids repeat or do not fit the embeddings.
    """
    if len(embeddings) != len(instance_ids):
        raise ValueError(f"{len(embeddings)} embeddings do not fit {len(instance_ids)} ids")
    if len(instance_ids) < num_clusters:
        raise TooFewPointsError(
            f"{num_clusters} clusters need at least {num_clusters} instances, but there are "
            f"{len(instance_ids)}: choose a lower cluster count or add images."
        )
    order = np.argsort(instance_ids, kind="stable")
    ids = np.asarray(instance_ids, np.int64)[order]
    if len(np.unique(ids)) != len(ids):
        raise ValueError("instance_ids must be unique")
    points = np.asarray(embeddings, np.float32)[order]
    if settings.normalise:
        points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    clustering = kmeans(
        points,
        num_clusters,
        seed=seed,
        iterations=settings.iterations,
        init=settings.init,
        restarts=settings.restarts,
        backend=settings.backend,
    )
    columns = [ids, clustering.labels, clustering.distances]
    return pa.table(columns, schema=CLUSTER_SCHEMA), clustering.centroids


@dataclass(frozen=True)
class ClusterStatistics:
    """How evenly instances spread over clusters.

    Attributes:
        sizes: (num_clusters,) int64 instances per cluster.
        mean_distances: (num_clusters,) float64, 0 for an empty cluster.
        effective_clusters: exp of the entropy of the sizes: num_clusters when all are equal,
            near 1 when one cluster holds nearly everything.
    """

    sizes: np.ndarray
    mean_distances: np.ndarray
    effective_clusters: float


def cluster_statistics(clusters: pa.Table, num_clusters: int) -> ClusterStatistics:
    """Summarise a table of `cluster_instances`."""
    labels = clusters["cluster_id"].to_numpy()
    sizes = np.bincount(labels, minlength=num_clusters)
    total = np.bincount(labels, clusters["distance"].to_numpy(), minlength=num_clusters)
    shares = sizes[sizes > 0] / max(sizes.sum(), 1)
    return ClusterStatistics(
        sizes=sizes,
        mean_distances=total / np.maximum(sizes, 1),
        effective_clusters=float(np.exp(-(shares * np.log(shares)).sum())),
    )
