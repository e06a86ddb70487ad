"""Cluster instances by their embeddings; the cluster is the pseudo class (U2Seg sec. 3.2)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import zarr

from kernels.backend import Backend
from kernels.errors import TooFewPointsError
from kernels.kmeans import kmeans
from segmodels.formats.arrow import write_table

_COLUMNS: list["pa.Field[Any]"] = [
    pa.field("instance_id", pa.int64(), nullable=False),
    pa.field("cluster_id", pa.int32(), nullable=False),
    pa.field("distance", pa.float32(), nullable=False),
]
CLUSTER_SCHEMA = pa.schema(_COLUMNS)


@dataclass(frozen=True)
class ClusterSettings:
    """Settings of k-means; the number of clusters comes from the clustering key.

    Attributes:
        iterations: most iterations; 100 in U2Seg.
        init: initial centroids: "random" points, as in U2Seg, or "k-means++".
        restarts: initialisations, of which the one of lowest inertia is kept; 1 in U2Seg.
        normalise: scale embeddings to unit length first; U2Seg does not.
        backend: where distances are computed.
    """

    iterations: int = 100
    init: Literal["random", "k-means++"] = "random"
    restarts: int = 1
    normalise: bool = False
    backend: Backend = "auto"


def cluster_instances(
    embeddings: np.ndarray,
    instance_ids: np.ndarray,
    num_clusters: int,
    seed: int,
    settings: ClusterSettings,
) -> tuple[pa.Table, np.ndarray]:
    """Assign every instance to one of `num_clusters` clusters, none of them empty.

    Instances are sorted by id first, so their order does not matter.

    Args:
        embeddings: (n, d) float32.
        instance_ids: (n,) int64, unique.
        num_clusters: K.
        seed: of the initial centroids.
        settings: of k-means.

    Returns:
        CLUSTER_SCHEMA rows by rising instance_id, with cluster_id in [0, K) and the Euclidean
        distance to the centroid; and the centroids (K, d) float32.

    Raises:
        TooFewPointsError: there are fewer distinct instances than clusters.
        ValueError: ids repeat, or their number is not that of the embeddings.
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


def write_clusters(folder: Path, clusters: pa.Table, centroids: np.ndarray) -> dict[str, int]:
    """Write `clusters.arrow` and `centroids.zarr`; returns counts."""
    write_table(clusters, folder / "clusters.arrow")
    group = zarr.open_group(folder / "centroids.zarr", mode="w", zarr_format=3)
    group.create_array("centroids", data=centroids, compressors=None)
    sizes = cluster_sizes(clusters, len(centroids))
    return {
        "instances": len(clusters),
        "clusters": len(centroids),
        "empty_clusters": int((sizes == 0).sum()),
        "smallest_cluster": int(sizes.min()),
        "largest_cluster": int(sizes.max()),
    }


def cluster_sizes(clusters: pa.Table, num_clusters: int) -> np.ndarray:
    """Count the instances of each cluster: (num_clusters,) int64."""
    return np.bincount(clusters["cluster_id"].to_numpy(), minlength=num_clusters)
