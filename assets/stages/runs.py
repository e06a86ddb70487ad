"""Runs whose process has died: found by the next run, which marks them as failed.

A run that is killed by SIGKILL or a reboot cannot report its own end: Dagster counts it as
running for ever.
"""

import json
import os
import socket
from collections.abc import Callable

import dagster as dg
import psutil

PROCESS_TAG = "exnihilo/process"
_UNFINISHED = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def record_process(instance: dg.DagsterInstance, run_id: str) -> None:
    """Tag a run with the process that executes it: this one."""
    own = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
    instance.add_run_tags(run_id, {PROCESS_TAG: json.dumps(own)})


def end_dead_runs(instance: dg.DagsterInstance, log: Callable[[str], None]) -> None:
    """Mark the unfinished runs of this machine whose process is gone as failed; say which.

    Runs of other machines, and of other projects on the same instance, are left alone.
    """
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        process = json.loads(run.tags.get(PROCESS_TAG, "{}"))
        if process.get("host") != socket.gethostname() or _alive(process):
            continue
        sentence = f"run {run.run_id[:8]} ({run.job_name}) died: process {process['pid']} is gone"
        instance.report_run_failed(run, sentence)
        if instance.event_log_storage.supports_global_concurrency_limits:
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        log(f"{sentence}; it is marked as failed, what it finished is kept")


def unfinished_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs that wait or go on, after those that died were marked."""
    statuses = [*_UNFINISHED, dg.DagsterRunStatus.QUEUED]
    return list(instance.get_runs(dg.RunsFilter(statuses=statuses)))


def _alive(process: dict[str, float]) -> bool:
    # Process ids are used again, so the start has to be the same too.
    started = _started(int(process["pid"]))
    return started is not None and abs(started - process["started"]) < 1


def _started(pid: int) -> float | None:
    """When a process started, in seconds since the epoch; None where it has ended."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
