"""Sharded stages: finished shards are skipped, the rest is computed by the chosen engine."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import pyarrow as pa

from assets.stages.locks import gpu_locked, remove_unless_read
from assets.stages.manifest import is_finished, verify
from assets.stages.run import never
from assets.stages.settings import remember
from assets.stages.store import (
    SUMMARY,
    MissingStageError,
    StageFolder,
    Version,
    digest_of,
    finished_folder,
)
from segmodels.engine.lifetime import end_with_parent
from segmodels.formats.arrow import read_table

Summary = dict[str, float]
Engine = Literal["serial", "processes"]


@dataclass(frozen=True)
class ShardTask:
    """One shard to compute: `function(arguments, folder)` fills the folder, returns counts."""

    shard: int
    digest: str
    function: Callable[[Any, Path], Summary]
    arguments: Any


@dataclass(frozen=True)
class ShardSet:
    """The finished shards of a stage: folder and input digest by shard number, rising."""

    folders: dict[int, Path]
    digests: dict[int, str]

    @property
    def in_order(self) -> list[Path]:
        """The folders by rising shard number."""
        return list(self.folders.values())

    def table(self, file_name: str) -> pa.Table:
        """One table of the Arrow files of this name, by rising shard number."""
        return pa.concat_tables([read_table(folder / file_name) for folder in self.in_order])

    def require(self, shards: Iterable[int], stage_name: str) -> None:
        """Make sure that a stage has these shards.

        Raises:
            MissingStageError: images were added since the stage was last materialised.
        """
        missing = sorted(set(shards) - self.folders.keys())
        if missing:
            raise MissingStageError(
                f"{stage_name} lacks the shards {missing}, which hold images added since: "
                f"materialise {stage_name} again"
            )


Reduce = Callable[[ShardSet, Path], None]
"""Fills a folder from all shards of a stage: what needs them all, as a table of neighbours."""


def finished_shards(version: Version) -> ShardSet:
    """The shards that a version of a sharded stage is made of, their files verified.

    Raises:
        DamagedResultError: a shard has lost a file; the message names it.
    """
    shards = _shard_set(version.folder, version.summary["shards"])
    for folder in shards.in_order:
        verify(folder, version.stage)
    return shards


def reduced_folder(version: Version) -> Path:
    """What a sharded stage reduced its shards to, its files verified.

    Raises:
        DamagedResultError: it has lost a file; the message names it.
    """
    folder = version.folder.parent / f"reduced-{version.digest}"
    verify(folder, version.stage)
    return folder


def _shard_set(root: Path, names: Mapping[str, str]) -> ShardSet:
    # A pointer that was read back has its keys in the order of their text: 0, 1, 10, 2.
    folders = {shard: root / names[str(shard)] for shard in sorted(map(int, names))}
    digests = {shard: folder.name.split("-")[1] for shard, folder in folders.items()}
    return ShardSet(folders, digests)


class ShardRunner(dg.ConfigurableResource):
    """How shards are computed: one after the other, or in worker processes."""

    engine: Engine = "serial"
    workers: int = 0

    def run(self, tasks: Sequence[ShardTask], root: Path) -> Iterator[tuple[ShardTask, Summary]]:
        """Compute shards into `root`, yielding each as it becomes visible."""
        if self.engine == "serial" or len(tasks) < 2:
            for task in tasks:
                yield task, compute_shard(task, root)
            return
        workers = self.workers or os.cpu_count() or 1
        # Spawn, as a fork after CUDA or OpenMP has started is not safe.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            min(workers, len(tasks)),
            mp_context=context,
            initializer=_start_worker,
            initargs=(os.getpid(),),
        ) as pool:
            futures = {pool.submit(compute_shard, task, root): task for task in tasks}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _start_worker(parent: int) -> None:
    end_with_parent(parent)
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)


def shard_name(task: ShardTask) -> str:
    """Folder name of a finished shard."""
    return f"{task.shard:05d}-{task.digest}"


def compute_shard(task: ShardTask, root: Path) -> Summary:
    """Compute one shard under a temporary name and make it visible by one rename."""
    with finished_folder(root / shard_name(task)) as folder:
        summary = task.function(task.arguments, folder)
        (folder / SUMMARY).write_text(json.dumps(summary, sort_keys=True))
    return summary


def materialise_shards(
    stage: StageFolder,
    tasks: Sequence[ShardTask],
    runner: ShardRunner,
    *,
    settings: object,
    log: Callable[[str], None],
    facts: Mapping[str, Any] | None = None,
    reduce: Reduce | None = None,
    made_from: Mapping[str, str] | None = None,
    on_gpu: Callable[[], bool] = never,
) -> tuple[Version, int]:
    """Bring a sharded stage up to date.

    Shards whose input digest is already there, with all their files, are kept; the others are
    computed; shards of an older question are removed once the new set is complete. `facts` join
    the version's summary. `reduce` is done before the version becomes current. `on_gpu` says
    whether shards need the GPU to themselves.

    Returns:
        The current version and the number of shards that were computed.
    """
    root = stage.path / "shards"
    root.mkdir(parents=True, exist_ok=True)
    with stage.locked(log):
        missing = [
            task for task in tasks if not is_finished(root / shard_name(task), stage.name, log)
        ]
        kept = len(tasks) - len(missing)
        log(f"{stage.name}: {len(tasks)} shards, {kept} already there, {len(missing)} to compute")
        if missing:
            with gpu_locked(on_gpu(), stage.run, log):
                _compute(stage, missing, runner, log)
        names = {str(task.shard): shard_name(task) for task in tasks}
        digest = digest_of(sorted(names.items()))
        shards = _shard_set(root, names)
        reduced = stage.path / f"reduced-{digest}"
        if reduce is not None and not is_finished(reduced, stage.name, log):
            with finished_folder(reduced) as folder:
                reduce(shards, folder)
        version = stage.point_to(
            digest,
            settings=remember(stage, settings),
            summary={"shards": names, "totals": _totals(shards.in_order), **(facts or {})},
            made_from=made_from,
            folder="shards",
        )
        current = {*shards.in_order, reduced}
        for folder in [*root.iterdir(), *stage.path.glob("reduced-*")]:
            if folder not in current:
                remove_unless_read(folder, guard=root)
    return version, len(missing)


def _compute(
    stage: StageFolder, tasks: Sequence[ShardTask], runner: ShardRunner, log: Callable[[str], None]
) -> None:
    started = time.monotonic()
    for done, (task, summary) in enumerate(runner.run(tasks, stage.path / "shards"), start=1):
        left = (time.monotonic() - started) / done * (len(tasks) - done)
        counts = ", ".join(f"{name} {value:g}" for name, value in summary.items())
        log(
            f"{stage.name}: shard {task.shard} finished ({done} of {len(tasks)}; {counts}); "
            f"about {left:.0f} s left"
        )


def _totals(folders: Sequence[Path]) -> Summary:
    totals: Summary = {}
    for folder in folders:
        for name, value in json.loads((folder / SUMMARY).read_text()).items():
            totals[name] = totals.get(name, 0) + value
    return totals
