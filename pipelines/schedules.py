"""The nightly schedule: the next cluster counts, each in a partition of its own."""

import dagster as dg

from assets.stages.partitions import CLUSTERINGS, PARTITION_TAG
from pipelines.jobs.u2seg import recluster
from pipelines.settings import read_settings
from segmodels.u2seg.clustering_key import ClusteringKey

RUNS_A_NIGHT = 1


def next_counts(wanted: tuple[int, ...], done: set[str], limit: int) -> list[ClusteringKey]:
    """The first cluster counts of the list that have no partition yet.

    Once every count has its partition, the list is repeated with the next k-means seed, so that
    a night always adds a clustering instead of repeating one.
    """
    chosen: list[ClusteringKey] = []
    seed = 0
    while wanted and len(chosen) < limit:
        fresh = [ClusteringKey(count, seed=seed) for count in wanted]
        chosen += [key for key in fresh if str(key) not in done]
        seed += 1
    return chosen[:limit]


@dg.schedule(job=recluster, cron_schedule="0 2 * * *", name="nightly_recluster")
def nightly_recluster(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest]:
    """Register the next counts of EXNIHILO_COUNTS and launch `recluster` for each."""
    done = set(context.instance.get_dynamic_partitions(str(CLUSTERINGS.name)))
    keys = [str(key) for key in next_counts(read_settings().recluster_counts, done, RUNS_A_NIGHT)]
    # There is no partition request in a schedule's result: it has to be registered first.
    context.instance.add_dynamic_partitions(str(CLUSTERINGS.name), keys)
    night = context.scheduled_execution_time.date().isoformat()
    return [
        dg.RunRequest(run_key=f"{night}_{key}", partition_key=key, tags={PARTITION_TAG: key})
        for key in keys
    ]
