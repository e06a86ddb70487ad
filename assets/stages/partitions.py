"""The clusterings partition: one key a cluster count, registered on first use."""

import dagster as dg

from segmodels.u2seg.clustering_key import ClusteringKey

CLUSTERINGS = dg.DynamicPartitionsDefinition(name="clusterings")
PARTITION_TAG = "dagster/partition"


def clustering_of(context: dg.AssetExecutionContext) -> ClusteringKey:
    """The clustering that this run works on, registered as a partition if it is new.

    Raises:
        dg.Failure: the run names no key, or one outside the grammar `k0300[-r2][-s1]`.
    """
    text = context.run.tags.get(PARTITION_TAG)
    if text is None:
        job = context.job_name if not context.job_name.startswith("__") else "u2seg"
        raise dg.Failure(
            f'{job} needs a cluster count: add --tags \'{{"{PARTITION_TAG}": "k0300"}}\' to '
            f"`dagster job execute`, or --partition k0300 to `dg launch`"
        )
    try:
        key = ClusteringKey.parse(text)
    except ValueError as error:
        raise dg.Failure(str(error)) from error
    if key.round is not None:
        raise dg.Failure(
            f"{text} asks for masks of self-training round {key.round}, but self-training is not "
            f"built yet: use {ClusteringKey(key.num_clusters, seed=key.seed)}"
        )
    if not context.instance.has_dynamic_partition(str(CLUSTERINGS.name), text):
        context.instance.add_dynamic_partitions(str(CLUSTERINGS.name), [text])
        context.log.info(f"registered the clustering {text}")
    return key


def require_clustering_if_partitioned(context: dg.AssetExecutionContext) -> None:
    """Fail in a run's first stage, not its last, when a later stage needs a key it lacks."""
    layer = context.job_def.asset_layer
    planned = layer.executable_asset_keys
    if any(layer.get(key).partitions_def is not None for key in planned):
        clustering_of(context)
