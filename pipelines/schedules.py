"""The nightly schedule: the next cluster counts, each in a partition of its own."""

import dagster as dg

from assets.stages.partitions import PARTITION_TAG
from assets.stages.runs import end_dead_runs, unfinished_runs
from assets.stages.store import Store
from pipelines.jobs.u2seg import recluster
from pipelines.settings import read_settings
from segmodels.u2seg.clustering_key import ClusteringKey

DATASET_TAG = "exnihilo/dataset"


def next_key(
    wanted: tuple[int, ...], done: set[str], failures: dict[str, int], instances: int
) -> ClusteringKey | None:
    """The clustering that a night should add.

    Args:
        wanted: cluster counts, in the order in which they are wanted.
        done: keys of the clusterings that have been evaluated.
        failures: how often a key has failed; a key that failed waits for those that did less.
        instances: thing masks; more clusters than that cannot be found.

    Returns:
        The first count that is not done, once all are the first with the next k-means seed; None
        where no count is possible.
    """
    possible = [count for count in wanted if count <= instances]
    seed = 0
    while possible:
        fresh = [ClusteringKey(count, seed=seed) for count in possible]
        left = [key for key in fresh if str(key) not in done]
        if left:
            return min(left, key=lambda key: failures.get(str(key), 0))
        seed += 1
    return None


@dg.schedule(job=recluster, cron_schedule="0 2 * * *", name="nightly_recluster")
def nightly_recluster(
    context: dg.ScheduleEvaluationContext, store: Store
) -> dg.RunRequest | dg.SkipReason:
    """Launch `recluster` for the next count of EXNIHILO_COUNTS, unless a run is in progress."""
    instance, dataset = context.instance, store.dataset.name
    end_dead_runs(instance, context.log.warning)
    for run in unfinished_runs(instance):
        return dg.SkipReason(
            f"run {run.run_id[:8]} ({run.job_name}) is in progress (terminate it in the UI if not)"
        )
    things = store.stage("thing_masks").current()
    if things is None or store.stage("stuff_model").current() is None:
        return dg.SkipReason(f"dataset {dataset!r} is not ready: run the job u2seg on it once")
    counts, instances = read_settings().recluster_counts, int(things.summary["totals"]["masks"])
    own = {DATASET_TAG: dataset}
    done = set(evaluated(store))
    failures: dict[str, int] = {}
    for run in instance.get_runs(
        dg.RunsFilter(job_name=recluster.name, tags=own, statuses=[dg.DagsterRunStatus.FAILURE])
    ):
        failed = run.tags[PARTITION_TAG]
        failures[failed] = failures.get(failed, 0) + 1
    key = next_key(counts, done, failures, instances)
    if key is None:
        return dg.SkipReason(
            f"no count of EXNIHILO_COUNTS ({', '.join(map(str, counts))}) is possible with the "
            f"{instances} thing masks of dataset {dataset!r}"
        )
    # One run a night: a tick that is evaluated twice asks for the same run.
    night = context.scheduled_execution_time.date().isoformat()
    return dg.RunRequest(run_key=f"{night}_{dataset}", tags={PARTITION_TAG: str(key), **own})


def evaluated(store: Store) -> list[str]:
    """Keys of the clusterings that this dataset has scores of."""
    folder = store.stage("evaluation").path
    keys = [path.name for path in folder.iterdir()] if folder.exists() else []
    return [key for key in keys if store.stage("evaluation", key).current() is not None]
