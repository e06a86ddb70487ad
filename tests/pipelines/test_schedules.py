"""Which clustering a night adds, and when it adds none."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import dagster as dg
import pytest

from assets.stages.runs import PROCESS_TAG, record_process
from assets.stages.store import Dataset, Store
from pipelines.definitions import defs
from pipelines.schedules import next_key, nightly_recluster

LARGE = 10_000


def name_of(*arguments):
    key = next_key(*arguments)
    return None if key is None else str(key)


def test_the_first_count_without_scores_is_next():
    assert name_of((300, 800, 2911), set(), {}, LARGE) == "k0300"
    assert name_of((300, 800, 2911), {"k0300"}, {}, LARGE) == "k0800"


def test_a_finished_list_starts_again_with_the_next_seed():
    assert name_of((300, 800), {"k0300", "k0800", "k0300-s1"}, {}, LARGE) == "k0800-s1"


def test_a_count_above_the_number_of_instances_is_passed_over():
    assert name_of((300, 800, 20), set(), {}, 89) == "k0020"
    assert name_of((300, 800, 20), {"k0020"}, {}, 89) == "k0020-s1"
    assert name_of((300, 800), set(), {}, 89) is None


def test_a_count_that_failed_waits_for_those_that_did_not():
    assert name_of((300, 800), set(), {"k0300": 1}, LARGE) == "k0800"
    assert name_of((300, 800), set(), {"k0300": 1, "k0800": 1}, LARGE) == "k0300"


def test_no_counts_give_no_runs():
    assert next_key((), set(), {}, LARGE) is None


@pytest.fixture
def instance():
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store of 50 thing masks with a stuff model."""
    monkeypatch.setenv("EXNIHILO_COUNTS", "300,30,40")
    store = Store(root=str(tmp_path), dataset=Dataset(name="birds"))
    finish(store, "thing_masks", totals={"masks": 50})
    finish(store, "stuff_model")
    return store


def finish(store, name, partition=None, **summary):
    stage = store.stage(name, partition)
    with stage.new_version("aaaa"):
        pass
    stage.point_to("aaaa", settings={}, summary=summary)


def tick(store, instance):
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=datetime(2026, 11, 20, 2, tzinfo=UTC),
        repository_def=defs.get_repository_def(),
        resources={"store": store, "dataset": store.dataset},
    ) as context:
        return nightly_recluster(context)


def test_a_night_asks_for_one_run_and_registers_nothing_itself(store, instance):
    request = tick(store, instance)
    assert request.tags == {"dagster/partition": "k0030", "exnihilo/dataset": "birds"}
    assert request.run_key == "2026-11-20_birds"
    assert instance.get_dynamic_partitions("clusterings") == []


def test_a_tick_evaluated_twice_asks_for_the_same_run(store, instance):
    first = tick(store, instance)
    finish(store, "evaluation", "k0030")
    second = tick(store, instance)
    assert second.tags["dagster/partition"] == "k0040"
    assert second.run_key == first.run_key


def test_only_success_counts_as_done(store, instance):
    instance.add_dynamic_partitions("clusterings", ["k0030"])
    assert tick(store, instance).tags["dagster/partition"] == "k0030"
    run = instance.create_run_for_job(
        defs.resolve_job_def("recluster"),
        tags={"dagster/partition": "k0030", "exnihilo/dataset": "birds"},
        status=dg.DagsterRunStatus.FAILURE,
    )
    assert tick(store, instance).tags["dagster/partition"] == "k0040"
    instance.delete_run(run.run_id)
    finish(store, "evaluation", "k0030")
    assert tick(store, instance).tags["dagster/partition"] == "k0040"


def test_a_night_waits_for_a_living_run_and_not_for_a_dead_one(store, instance):
    run = instance.create_run_for_job(
        defs.resolve_job_def("u2seg"), status=dg.DagsterRunStatus.STARTED
    )
    record_process(instance, run.run_id)
    assert f"run {run.run_id[:8]} (u2seg) is in progress" in tick(store, instance).skip_message
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    process = json.loads(instance.get_run_by_id(run.run_id).tags[PROCESS_TAG])
    instance.add_run_tags(run.run_id, {PROCESS_TAG: json.dumps(process | {"pid": child.pid})})
    assert isinstance(tick(store, instance), dg.RunRequest)


def test_a_dataset_without_stuff_model_or_enough_masks_is_passed_over_with_the_reason(
    store, instance, monkeypatch
):
    monkeypatch.setenv("EXNIHILO_COUNTS", "300,800")
    assert "300, 800" in tick(store, instance).skip_message
    assert "50 thing masks" in tick(store, instance).skip_message
    new = Store(root=store.root, dataset=Dataset(name="cars"))
    assert "run the job u2seg" in tick(new, instance).skip_message
