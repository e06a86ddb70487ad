"""Where stages keep their results: versioned folders, made visible by one atomic step.

Layout under `<root>/<dataset>/`:

    <stage>/[<partition>/]current.json      the pointer: digest, folder, settings, summary
    <stage>/[<partition>/]v-<digest>/       one finished version, never changed afterwards
    <stage>/shards/<id>-<digest>/           one finished shard of a sharded stage

A version's digest is that of its inputs, settings and code version, so the same question finds
its old answer. A finished folder lists its files in `manifest.txt`. A killed run leaves only a
`.tmp-` folder, which the stage's next run removes.
"""

import dataclasses
import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field, PrivateAttr, create_model

from assets.stages.locks import locked, remove_unless_read
from assets.stages.manifest import DamagedResultError, verify, write_manifest
from kernels.errors import ExNihiloError
from segmodels.engine.lifetime import end_with_parent
from segmodels.formats.atomic import replacing_folder, write_text

DIGEST_CHARS = 16
SUMMARY = "summary.json"
"""File of a finished folder: its counts, and what else is wanted without opening the others."""


class MissingStageError(ExNihiloError, RuntimeError):
    """A stage was asked for whose result is not in the store yet."""


def digest_of(*parts: object) -> str:
    """Hexadecimal digest of JSON-able values; equal values give equal digests on any machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_jsonable)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_CHARS]


def _jsonable(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a digest needs JSON-able values, got {type(value).__name__}")


@dataclass(frozen=True)
class Version:
    """One finished result of a stage.

    Attributes:
        stage: name of the stage.
        digest: of what it was made from.
        folder: its files.
        settings: those it was made with.
        summary: counts, and what else later stages and the UI want to know without opening files.
        made_from: digests of the versions behind it, by stage, however far up.
    """

    stage: str
    digest: str
    folder: Path
    settings: dict[str, Any]
    summary: dict[str, Any]
    made_from: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StageFolder:
    """The folder of one stage (and one partition of it) in the store.

    Attributes:
        name: of the stage.
        dataset: whose results it holds.
        path: the folder.
        given: settings that the run config names for this stage.
        run: who works here, for those who wait.
    """

    name: str
    dataset: str
    path: Path
    given: Mapping[str, Any] = field(default_factory=dict)
    run: str = "a run"

    @property
    def pointer(self) -> Path:
        """The file that names the current version."""
        return self.path / "current.json"

    def current(self) -> Version | None:
        """The current version as its pointer says, None where the stage has never finished.

        Raises:
            DamagedResultError: the pointer cannot be read.
        """
        if not self.pointer.exists():
            return None
        try:
            record = json.loads(self.pointer.read_text())
            folder = self.path / record["folder"]
            version = Version(
                self.name,
                record["digest"],
                folder,
                record["settings"],
                record["summary"],
                record.get("made_from", {}),
            )
        except (ValueError, LookupError, TypeError) as error:
            raise DamagedResultError(
                f"{self.pointer} is damaged: delete it and materialise {self.name} again; finished "
                "shards are kept"
            ) from error
        return version if folder.exists() else None

    def require(self) -> Version:
        """The current version, its files verified.

        Raises:
            MissingStageError: the stage has not been materialised; the message says what to do.
            DamagedResultError: it has lost a file; the message names it.
        """
        version = self.current()
        if version is None:
            raise MissingStageError(
                f"{self.name} has no result for dataset {self.dataset!r} under {self.path}: "
                f"materialise {self.name} (or run the job u2seg) first"
            )
        # A sharded stage's folder holds its shards, each with a manifest of its own.
        if version.folder.name == f"v-{version.digest}":
            verify(version.folder, self.name)
        return version

    @contextmanager
    def locked(self, log: Callable[[str], None]) -> Iterator[None]:
        """Hold this folder against other runs, and remove what dead ones left in it."""
        what = f"{self.path.relative_to(self.path.parents[1])} of dataset {self.dataset}"
        with locked(self.path / ".lock", what, self.run, log):
            for left in [*self.path.glob(".tmp-*"), *self.path.glob("shards/.tmp-*")]:
                shutil.rmtree(left, ignore_errors=True)
            yield

    @contextmanager
    def new_version(self, digest: str) -> Iterator[Path]:
        """A temporary folder that becomes `v-<digest>` when the block ends without an error."""
        with finished_folder(self.path / f"v-{digest}") as temporary:
            yield temporary

    @contextmanager
    def resumable_version(self, digest: str) -> Iterator[Path]:
        """Like `new_version`, but what an interrupted run left is found by the next one.

        For stages that keep checkpoints of their own in the folder.
        """
        unfinished = self.path / f".unfinished-{digest}"
        unfinished.mkdir(parents=True, exist_ok=True)
        yield unfinished
        write_manifest(unfinished)
        final = self.path / f"v-{digest}"
        # A folder of this name is damaged, or a finished version that lost its pointer.
        shutil.rmtree(final, ignore_errors=True)
        unfinished.rename(final)

    def point_to(
        self,
        digest: str,
        *,
        settings: Mapping[str, Any],
        summary: Mapping[str, Any],
        made_from: Mapping[str, str] | None = None,
        folder: str | None = None,
    ) -> Version:
        """Make a finished version the current one, then remove what it replaces and nobody reads."""
        name = folder if folder is not None else f"v-{digest}"
        origins = dict(made_from or {})
        record = {
            "digest": digest,
            "folder": name,
            "settings": dict(settings),
            "summary": dict(summary),
            "made_from": origins,
        }
        write_atomically(self.pointer, json.dumps(record, indent=1, sort_keys=True))
        for other in [*self.path.glob("v-*"), *self.path.glob(".unfinished-*")]:
            if other.name != name:
                remove_unless_read(other)
        return Version(self.name, digest, self.path / name, dict(settings), dict(summary), origins)


@contextmanager
def finished_folder(final: Path) -> Iterator[Path]:
    """A temporary folder that becomes `final`, with its manifest, when the block ends well."""
    with replacing_folder(final) as temporary:
        yield temporary
        write_manifest(temporary)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file atomically; one that holds this text already is left alone."""
    if not path.exists() or path.read_text() != text:
        write_text(path, text)


class Dataset(dg.ConfigurableResource):
    """The dataset that a run works on.

    Attributes:
        name: a folder of the store.
        stages: settings by stage. Unlike `ops`, they serve every job: each reads its own stages'.
    """

    name: str
    stages: dict[str, Any] = Field(default={})


def dataset_of_stages(names: list[str]) -> type[Dataset]:
    """The dataset resource whose `stages` may name these stages and no others."""
    fields: dict[str, Any] = {name: (dict[str, Any], Field(default={})) for name in names}
    settings = create_model("StageSettings", __base__=dg.Config, **fields)
    return create_model("Dataset", __base__=Dataset, stages=(settings, settings()))


class Store(dg.ConfigurableResource):
    """The root folder of all results."""

    root: str
    dataset: dg.ResourceDependency[Dataset]
    _run: str = PrivateAttr(default="a run")

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Learn which run this is; a step's own process ends with the process of its run."""
        if multiprocessing.parent_process() is not None:
            end_with_parent()
        if context.run is not None:
            self._run = f"run {context.run.run_id[:8]} ({context.run.job_name})"

    def stage(self, name: str, partition: str | None = None) -> StageFolder:
        """The folder of any stage by name, for jobs and sensors; stages read by `StageRun.input`.

        It is that of one partition where the stage is partitioned.

        Raises:
            ValueError: the dataset's name is no plain folder name.
        """
        dataset = self.dataset.name
        if Path(dataset).name != dataset or dataset in {"", ".", ".."}:
            raise ValueError(f"a dataset's name is a folder in the store, got {dataset!r}")
        path = Path(self.root).expanduser().resolve() / dataset / name
        given = dict(self.dataset.stages).get(name, {})
        return StageFolder(name, dataset, path / partition if partition else path, given, self._run)
