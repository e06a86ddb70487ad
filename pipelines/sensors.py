"""Sensors: new images, and runs that died."""

import dagster as dg

from assets.stages.runs import end_dead_runs
from assets.stages.settings import read_remembered
from assets.stages.store import Store
from pipelines.jobs.u2seg import discover
from segmodels.datasets.image_source import ImageSource, sources_state
from segmodels.formats.errors import InputError


@dg.sensor(job=discover, name="new_images", minimum_interval_seconds=60)
def new_images(context: dg.SensorEvaluationContext, store: Store) -> dg.RunRequest | dg.SkipReason:
    """Launch `discover` when the files of the dataset's sources have changed."""
    remembered = read_remembered(store.stage("images"))
    sources = [ImageSource(**source) for source in remembered.get("sources", ())]
    if not sources:
        return dg.SkipReason(
            f"dataset {store.dataset.name!r} has no image folders yet: materialise images once"
        )
    try:
        state = sources_state(sources)
    except InputError as error:
        return dg.SkipReason(str(error))
    if state == context.cursor:
        return dg.SkipReason("no image has changed")
    context.update_cursor(state)
    # No run key: files that return to an earlier state are a change too, and a key counts once.
    return dg.RunRequest()


@dg.sensor(
    name="dead_runs",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Mark runs whose process is gone as failed: they would hold back every queued run."""
    ended: list[str] = []
    end_dead_runs(context.instance, ended.append)
    return dg.SkipReason("; ".join(ended) or "every unfinished run has its process")
