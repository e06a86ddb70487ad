"""Where stages keep their results: versioned folders, made visible by one atomic step.

Layout under `<root>/<dataset>/`:

    <stage>/[<partition>/]current.json      the pointer: digest, folder, settings, summary
    <stage>/[<partition>/]v-<digest>/       one finished version, never changed afterwards
    <stage>/shards/<id>-<digest>/           one finished shard of a sharded stage

A version's digest is that of its inputs, settings and code version, so the same question finds
its old answer, and a killed run leaves only a `.tmp-` folder that nobody reads.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from kernels.errors import ExNihiloError

DIGEST_CHARS = 16


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
    """One finished result of a stage."""

    digest: str
    folder: Path
    settings: dict[str, Any]
    summary: dict[str, Any]


@dataclass(frozen=True)
class StageFolder:
    """The place of one stage (and one partition of it) in the store."""

    name: str
    dataset: str
    path: Path

    @property
    def pointer(self) -> Path:
        """The file that names the current version."""
        return self.path / "current.json"

    def current(self) -> Version | None:
        """The current version, or None where the stage has never finished."""
        if not self.pointer.exists():
            return None
        record = json.loads(self.pointer.read_text())
        folder = self.path / record["folder"]
        if not folder.exists():
            return None
        return Version(record["digest"], folder, record["settings"], record["summary"])

    def require(self) -> Version:
        """The current version.

        Raises:
            MissingStageError: the stage has not been materialised; the message says what to do.
        """
        version = self.current()
        if version is None:
            raise MissingStageError(
                f"{self.name} has no result for dataset {self.dataset!r} under {self.path}: "
                f"materialise {self.name} (or run the job u2seg) first"
            )
        return version

    @contextmanager
    def new_version(self, digest: str) -> Iterator[Path]:
        """A temporary folder that becomes `v-<digest>` when the block ends without an error."""
        temporary = self.path / f".tmp-{digest}-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._finish(temporary, digest)

    @contextmanager
    def resumable_version(self, digest: str) -> Iterator[Path]:
        """Like `new_version`, but what an interrupted run left is found by the next one.

        For stages that keep checkpoints of their own in the folder.
        """
        unfinished = self.path / f".unfinished-{digest}"
        unfinished.mkdir(parents=True, exist_ok=True)
        yield unfinished
        self._finish(unfinished, digest)

    def _finish(self, temporary: Path, digest: str) -> None:
        final = self.path / f"v-{digest}"
        # A folder of this name can only be a finished version that lost its pointer.
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)

    def point_to(
        self,
        digest: str,
        *,
        settings: Mapping[str, Any],
        summary: Mapping[str, Any],
        folder: str | None = None,
    ) -> Version:
        """Make a finished version the current one, then remove what it replaces."""
        name = folder if folder is not None else f"v-{digest}"
        record = {
            "digest": digest,
            "folder": name,
            "settings": dict(settings),
            "summary": dict(summary),
        }
        write_atomically(self.pointer, json.dumps(record, indent=1, sort_keys=True))
        for other in [*self.path.glob("v-*"), *self.path.glob(".unfinished-*")]:
            if other.name != name:
                shutil.rmtree(other, ignore_errors=True)
        return Version(digest, self.path / name, dict(settings), dict(summary))


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


class Dataset(dg.ConfigurableResource):
    """The dataset that a run works on; a resource of its own, so that a run config names it alone."""

    name: str


class Store(dg.ConfigurableResource):
    """The root folder of all results."""

    root: str
    dataset: dg.ResourceDependency[Dataset]

    def stage(self, name: str, partition: str | None = None) -> StageFolder:
        """The folder of a stage, of one clustering where the stage is partitioned."""
        path = Path(self.root).expanduser().resolve() / self.dataset.name / name
        return StageFolder(name, self.dataset.name, path / partition if partition else path)
