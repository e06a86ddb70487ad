"""Stage instance_clusters: k-means over the instance embeddings."""

from pathlib import Path

import numpy as np

from assets.masks.instance_embeddings import instance_embeddings
from assets.masks.thing_masks import thing_masks
from assets.stages.metadata import bar_table, table_metadata
from assets.stages.partitions import CLUSTERINGS
from assets.stages.shards import finished_shards
from assets.stages.stage import Result, StageRun, result, stage
from segmodels.formats.arrow import read_table
from segmodels.u2seg.clusters import (
    ClusterSettings,
    cluster_instances,
    cluster_sizes,
    write_clusters,
)
from segmodels.u2seg.embedding_shards import read_embeddings


@stage(
    group="clusters",
    inputs=(thing_masks, instance_embeddings),
    settings=ClusterSettings,
    version="1",
    partitions=CLUSTERINGS,
    kinds={"arrow", "zarr"},
)
def instance_clusters(run: StageRun[ClusterSettings]) -> Result:
    """Clusters of the instances; the partition key names their number."""
    embeddings = run.joined(instance_embeddings, thing_masks)

    def compute(folder: Path) -> dict[str, int]:
        vectors, ids = read_embeddings(finished_shards(embeddings).in_order)
        clustering = cluster_instances(
            vectors, ids, run.key.num_clusters, run.key.seed, run.settings
        )
        return write_clusters(folder, *clustering)

    version = run.materialise(compute, embeddings.digest)
    table = read_table(version.folder / "clusters.arrow")
    sizes = np.sort(cluster_sizes(table, run.key.num_clusters))[::-1]
    names = [f"{rank + 1}. largest" for rank in range(min(10, len(sizes)))]
    return result(
        version,
        {
            **table_metadata(table),
            **version.summary,
            "largest_clusters": bar_table("cluster", names, sizes[:10].tolist()),
        },
    )
