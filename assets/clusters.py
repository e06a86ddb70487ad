"""Stages instance_embeddings and instance_clusters: every instance gets a cluster."""

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa

from assets.config import config_for, resolve_settings
from assets.features import Weights, backbone_choice
from assets.images import identity_of, read_images, shards_of
from assets.metadata import bar_table, table_metadata
from assets.partitions import CLUSTERINGS, clustering_of
from assets.sharding import ShardRunner, ShardTask, finished_shards, materialise_shards
from assets.stage_run import materialise, result
from assets.store import Store, digest_of
from kernels.errors import TooFewPointsError
from segmodels.formats.arrow import column_values, read_table, rows_in, write_table
from segmodels.u2seg.clusters import ClusterSettings, cluster_instances, cluster_statistics
from segmodels.u2seg.embedding_shards import EmbeddingShard, embed_shard, read_embeddings
from segmodels.u2seg.embeddings import EmbeddingSettings

CODE_VERSION = "1"
EmbeddingConfig = config_for(EmbeddingSettings)
ClusterConfig = config_for(ClusterSettings)


@dg.asset(
    group_name="masks",
    deps=["thing_masks", "images", "dino_features"],
    code_version=CODE_VERSION,
    kinds={"zarr"},
    pool="gpu",
)
def instance_embeddings(
    context: dg.AssetExecutionContext,
    config: EmbeddingConfig,  # type: ignore[valid-type]
    store: Store,
    weights: Weights,
    shards: ShardRunner,
) -> dg.MaterializeResult[None]:
    """One vector an instance, from the backbone that the features were computed with."""
    stage = store.stage("instance_embeddings")
    settings = resolve_settings(config, EmbeddingSettings, stage)
    backbone = backbone_choice(store)
    masks = read_table(store.stage("thing_masks").require().folder / "masks.arrow")
    tasks = []
    for shard, rows in shards_of(read_images(store.stage("images").require())).items():
        own = rows_in(masks, "image_id", column_values(rows, "image_id"))
        tasks.append(
            ShardTask(
                shard,
                digest_of(
                    CODE_VERSION, settings, backbone.digest, identity_of(rows), masks_digest(own)
                ),
                embed_shard,
                EmbeddingShard(rows, own, settings, backbone.name, backbone.device, weights.folder),
            )
        )
    version, computed = materialise_shards(
        stage, tasks, shards, settings=settings, log=context.log.info
    )
    return result(version, {**version.summary["totals"], "shards_computed": computed})


def masks_digest(masks: pa.Table) -> str:
    """What a result that is computed from these masks depends on."""
    return digest_of(
        [
            [instance_id, counts.hex()]
            for instance_id, counts in zip(
                column_values(masks, "instance_id"),
                column_values(masks, "rle_counts"),
                strict=True,
            )
        ]
    )


@dg.asset(
    group_name="clusters",
    deps=["instance_embeddings"],
    partitions_def=CLUSTERINGS,
    code_version=CODE_VERSION,
    kinds={"arrow", "zarr"},
)
def instance_clusters(
    context: dg.AssetExecutionContext,
    config: ClusterConfig,  # type: ignore[valid-type]
    store: Store,
) -> dg.MaterializeResult[None]:
    """k-means over all instances, with the count that the partition key names."""
    key = clustering_of(context)
    stage = store.stage("instance_clusters", str(key))
    settings = resolve_settings(config, ClusterSettings, stage)
    upstream = store.stage("instance_embeddings").require()

    def compute(folder: Path) -> dict[str, Any]:
        import zarr

        vectors, ids = read_embeddings(finished_shards(upstream).in_order)
        table, centroids = cluster_instances(vectors, ids, key.num_clusters, key.seed, settings)
        write_table(table, folder / "clusters.arrow")
        group = zarr.open_group(folder / "centroids.zarr", mode="w", zarr_format=3)
        group.create_array("centroids", data=centroids, compressors=None)
        sizes = cluster_statistics(table, key.num_clusters).sizes
        return {
            "instances": table.num_rows,
            "clusters": key.num_clusters,
            "empty_clusters": int((sizes == 0).sum()),
            "smallest_cluster": int(sizes.min()),
            "largest_cluster": int(sizes.max()),
        }

    digest = digest_of(CODE_VERSION, settings, str(key), upstream.digest)
    try:
        version = materialise(stage, digest, settings, compute, context.log.info)
    except TooFewPointsError as error:
        raise dg.Failure(str(error)) from error
    table = read_table(version.folder / "clusters.arrow")
    sizes = np.sort(cluster_statistics(table, key.num_clusters).sizes)[::-1]
    names = [f"{rank + 1}. largest" for rank in range(min(10, len(sizes)))]
    return result(
        version,
        {
            **table_metadata(table),
            **version.summary,
            "largest_clusters": bar_table("cluster", names, sizes[:10].tolist()),
        },
    )
