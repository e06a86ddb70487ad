"""How an unsharded stage runs: keep the finished answer, or compute it and make it visible."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from assets.stages.locks import gpu_locked
from assets.stages.manifest import DamagedResultError, verify
from assets.stages.settings import remember
from assets.stages.store import StageFolder, Version


def never() -> bool:
    """For stages that compute on the CPU alone."""
    return False


def materialise(
    stage: StageFolder,
    digest: str,
    settings: object,
    compute: Callable[[Path], Mapping[str, Any]],
    log: Callable[[str], None],
    *,
    made_from: Mapping[str, str] | None = None,
    resumable: bool = False,
    on_gpu: Callable[[], bool] = never,
) -> Version:
    """Run `compute(folder)` unless the store already holds the answer to the same question.

    Args:
        digest: of code version, settings and inputs.
        settings: the stage's settings dataclass, kept for the stage's next run.
        compute: fills the folder and returns a JSON-able summary (counts).
        made_from: digests of the versions that were read, by stage.
        resumable: `compute` finds in its folder what an interrupted run left there.
        on_gpu: whether `compute` needs the GPU to itself; asked only where something is computed.
    """
    with stage.locked(log):
        current = stage.current()
        if current is not None and current.digest == digest:
            try:
                verify(current.folder, stage.name)
            except DamagedResultError as error:
                log(f"{error} (which this run does)")
            else:
                log(f"{stage.name}: nothing changed, keeping {current.folder}")
                return stage.point_to(
                    digest,
                    settings=remember(stage, settings),
                    summary=current.summary,
                    made_from=made_from,
                )
        open_version = stage.resumable_version if resumable else stage.new_version
        with gpu_locked(on_gpu(), stage.run, log), open_version(digest) as folder:
            summary = compute(folder)
        # Only settings that led to a result are worth repeating.
        return stage.point_to(
            digest, settings=remember(stage, settings), summary=summary, made_from=made_from
        )
