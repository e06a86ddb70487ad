"""Runs whose process is gone are marked as failed; all others are left alone."""

import json
import os
import subprocess
import sys

import dagster as dg
import pytest

from assets.stages.runs import PROCESS_TAG, end_dead_runs, record_process, unfinished_runs


@dg.job
def some_job():
    pass


@pytest.fixture
def instance():
    with dg.instance_for_test() as instance:
        yield instance


def started_run(instance, **changes):
    """A run that Dagster takes for running, executed by this process but for the changes."""
    run = instance.create_run_for_job(some_job, status=dg.DagsterRunStatus.STARTED)
    record_process(instance, run.run_id)
    process = json.loads(instance.get_run_by_id(run.run_id).tags[PROCESS_TAG])
    instance.add_run_tags(run.run_id, {PROCESS_TAG: json.dumps(process | changes)})
    return run


def status_after(instance, run):
    lines = []
    end_dead_runs(instance, lines.append)
    return instance.get_run_by_id(run.run_id).status, lines


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_whose_process_lives_goes_on(instance):
    assert status_after(instance, started_run(instance)) == (dg.DagsterRunStatus.STARTED, [])


def test_a_run_whose_process_is_gone_is_failed_and_named(instance):
    pid = dead_process()
    run = started_run(instance, pid=pid)
    status, lines = status_after(instance, run)
    assert status == dg.DagsterRunStatus.FAILURE
    (line,) = lines
    assert line.startswith(f"run {run.run_id[:8]} (some_job) died: process {pid} is gone")


def test_a_process_id_that_is_used_again_does_not_keep_a_run_alive(instance):
    run = started_run(instance, started=1.0)
    assert status_after(instance, run)[0] == dg.DagsterRunStatus.FAILURE


def test_a_killed_child_that_nobody_has_waited_for_is_gone(instance):
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert status_after(instance, started_run(instance, pid=child.pid))[0] == (
        dg.DagsterRunStatus.FAILURE
    )
    child.wait()


def test_runs_of_other_machines_and_other_projects_are_left_alone(instance):
    elsewhere = started_run(instance, host="elsewhere", pid=dead_process())
    other = instance.create_run_for_job(some_job, status=dg.DagsterRunStatus.STARTED)
    assert status_after(instance, elsewhere) == (dg.DagsterRunStatus.STARTED, [])
    assert {run.run_id for run in unfinished_runs(instance)} == {elsewhere.run_id, other.run_id}
