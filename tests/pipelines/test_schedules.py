"""Which cluster counts a night takes, and what it launches."""

from datetime import UTC, datetime

import dagster as dg

from pipelines.definitions import defs
from pipelines.schedules import next_counts, nightly_recluster


def names(keys):
    return [str(key) for key in keys]


def test_the_first_count_without_a_partition_is_next():
    assert names(next_counts((300, 800, 2911), set(), 1)) == ["k0300"]
    assert names(next_counts((300, 800, 2911), {"k0300"}, 1)) == ["k0800"]
    assert names(next_counts((300, 800, 2911), {"k0300"}, 5)[:2]) == ["k0800", "k2911"]


def test_a_finished_list_starts_again_with_the_next_seed():
    done = {"k0300", "k0800", "k0300-s1"}
    assert names(next_counts((300, 800), done, 2)) == ["k0800-s1", "k0300-s2"]


def test_no_counts_give_no_runs():
    assert next_counts((), set(), 1) == []


def test_a_night_registers_its_key_and_launches_recluster(monkeypatch):
    monkeypatch.setenv("EXNIHILO_COUNTS", "30,60")
    with dg.instance_for_test() as instance:
        instance.add_dynamic_partitions("clusterings", ["k0030"])
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime(2026, 11, 20, 2, tzinfo=UTC),
            repository_def=defs.get_repository_def(),
        )
        (request,) = nightly_recluster(context)
        assert request.partition_key == "k0060"
        assert request.run_key == "2026-11-20_k0060"
        assert instance.get_dynamic_partitions("clusterings") == ["k0030", "k0060"]
