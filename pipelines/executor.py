"""Dagster's executor, with what a person needs around a run.

A run first marks those that died before it as failed, and its error's sentence is the last line
on the screen.
"""

import atexit
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from assets.stages.runs import end_dead_runs, record_process

# In Dagster's home, for `make run`, which ends with it in turn.
FAILURE_FILE = "failure.txt"
_DAGSTER = dg.multi_or_in_process_executor


class RunExecutor(dg.Executor):
    """Runs the steps with another executor and watches them."""

    def __init__(self, inner: dg.Executor) -> None:
        self._inner = inner

    @property
    def retries(self) -> Any:
        """See `dagster.Executor`."""
        return self._inner.retries

    @property
    def step_dependency_config(self) -> Any:
        """See `dagster.Executor`."""
        return self._inner.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        """See `dagster.Executor`."""
        record_process(plan_context.instance, plan_context.run_id)
        end_dead_runs(plan_context.instance, plan_context.log.warning)
        failure = Path(plan_context.instance.root_directory) / FAILURE_FILE
        failure.unlink(missing_ok=True)
        for event in self._inner.execute(plan_context, execution_plan):
            if event.is_step_failure:
                sentence = failure_sentence(event)
                # After Dagster's own last line, which says that the run failed and not why.
                atexit.register(sys.stderr.write, f"\n{sentence}\n")
                failure.write_text(sentence)
            yield event


@dg.executor(
    name="executor",
    config_schema=_DAGSTER.config_schema,
    requirements=_DAGSTER.get_requirements,
)
def run_executor(context: dg.InitExecutorContext) -> RunExecutor:
    """Dagster's default executor (`multiprocess` or `in_process`), watched."""
    create = _DAGSTER.executor_creation_fn
    assert create is not None
    return RunExecutor(create(context))


def failure_sentence(event: dg.DagsterEvent) -> str:
    """What went wrong in a step, without the traceback."""
    failure = event.step_failure_data
    if failure.user_failure_data is not None and failure.user_failure_data.description:
        return f"{event.step_key} failed: {failure.user_failure_data.description}"
    error = failure.error
    # The cause of an error in a worker process is that process's traceback, as text.
    while error is not None and error.cause and error.cause.cls_name != "_RemoteTraceback":
        error = error.cause
    message = "no reason is known" if error is None else error.message.strip()
    # Our own errors are sentences; of all others the type is half of the message.
    kind, colon, sentence = message.partition(": ")
    ours = kind.split(".")[0] in {"assets", "segmodels", "kernels", "pipelines"}
    return f"{event.step_key} failed: {sentence if colon and ours else message}"
