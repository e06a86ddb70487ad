"""Stage instance_clusters: k-means over the instance embeddings."""

from pathlib import Path

import dagster as dg
import numpy as np

from assets.stages.metadata import bar_table, table_metadata
from assets.stages.partitions import CLUSTERINGS
from assets.stages.run import materialise, result
from assets.stages.settings import config_for, resolve_settings
from assets.stages.shards import finished_shards
from assets.stages.store import Store, digest_of
from kernels.errors import TooFewPointsError
from segmodels.formats.arrow import read_table
from segmodels.u2seg.clusters import (
    ClusterSettings,
    cluster_instances,
    cluster_sizes,
    write_clusters,
)
from segmodels.u2seg.embedding_shards import read_embeddings

CODE_VERSION = "1"
ClusterConfig = config_for(ClusterSettings)


@dg.asset(
    group_name="clusters",
    deps=["instance_embeddings"],
    partitions_def=CLUSTERINGS.definition,
    code_version=CODE_VERSION,
    kinds={"arrow", "zarr"},
)
def instance_clusters(
    context: dg.AssetExecutionContext,
    config: ClusterConfig,  # type: ignore[valid-type]
    store: Store,
) -> dg.MaterializeResult[None]:
    """Clusters of the instances; the partition key names their number."""
    key = CLUSTERINGS.key_of(context)
    stage = store.stage("instance_clusters", str(key))
    settings = resolve_settings(config, ClusterSettings, stage)
    upstream = store.stage("instance_embeddings").require()

    def compute(folder: Path) -> dict[str, int]:
        vectors, ids = read_embeddings(finished_shards(upstream).in_order)
        clustering = cluster_instances(vectors, ids, key.num_clusters, key.seed, settings)
        return write_clusters(folder, *clustering)

    digest = digest_of(CODE_VERSION, settings, str(key), upstream.digest)
    try:
        version = materialise(stage, digest, settings, compute, context.log.info)
    except TooFewPointsError as error:
        raise dg.Failure(str(error)) from error
    table = read_table(version.folder / "clusters.arrow")
    sizes = np.sort(cluster_sizes(table, key.num_clusters))[::-1]
    names = [f"{rank + 1}. largest" for rank in range(min(10, len(sizes)))]
    return result(
        version,
        {
            **table_metadata(table),
            **version.summary,
            "largest_clusters": bar_table("cluster", names, sizes[:10].tolist()),
        },
    )
