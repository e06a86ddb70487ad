"""How an unsharded stage runs: keep the finished answer, or compute it and make it visible."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from assets.stages.locks import gpu_locked
from assets.stages.manifest import is_finished
from assets.stages.settings import remember
from assets.stages.store import SUMMARY, StageFolder, Version
from segmodels.formats.atomic import write_json


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
        summary = _finished(stage, digest, log)
        if summary is not None:
            log(f"{stage.name}: nothing changed, keeping {stage.path / f'v-{digest}'}")
        else:
            open_version = stage.resumable_version if resumable else stage.new_version
            with gpu_locked(on_gpu(), stage.run, log), open_version(digest) as folder:
                summary = dict(compute(folder))
                write_json(folder / SUMMARY, summary)
        # Only settings that led to a result are worth repeating.
        return stage.point_to(
            digest, settings=remember(stage, settings), summary=summary, made_from=made_from
        )


def _finished(stage: StageFolder, digest: str, log: Callable[[str], None]) -> dict[str, Any] | None:
    """The summary of a finished version, even if it has lost its pointer; None where there is none."""
    folder = stage.path / f"v-{digest}"
    if not is_finished(folder, stage.name, log) or not (folder / SUMMARY).exists():
        return None
    return dict(json.loads((folder / SUMMARY).read_text()))
