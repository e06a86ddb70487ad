"""Files and folders that are either complete or absent, however a run ends."""

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to `path` if the block succeeds.

    Parent folders are created. If the block raises, the old file stays.
    """
    temporary = _temporary(Path(path))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path, *, keep_existing: bool = False) -> Iterator[Path]:
    """Yield a new temporary folder beside `path`, renamed to `path` if the block succeeds.

    If the block raises, an old folder at `path` stays. A killed process leaves a folder `.tmp-*`.

    Args:
        path: The folder to create.
        keep_existing: A folder that is at `path` when the block ends stays, and the new one is
            discarded; otherwise the new one replaces it.
    """
    target = Path(path)
    temporary = _temporary(target)
    temporary.mkdir()
    try:
        yield temporary
        if not (keep_existing and target.exists()):
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not mkstemp: its private permissions would lock colleagues out of a shared store.
    return target.with_name(f".tmp-{target.name}-{os.getpid()}-{secrets.token_hex(4)}")


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, document: Any) -> None:
    """Write one small JSON document atomically, keys in their given order."""
    write_text(path, json.dumps(document))


def write_json_object(
    path: str | Path, members: Mapping[str, Mapping[str, Any] | Iterable[Any]]
) -> None:
    """Write a JSON object atomically, its iterables as lists, item by item.

    The annotations of a million images are thus never in memory at once.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for position, (key, value) in enumerate(members.items()):
            file.write("{" if position == 0 else ",\n")
            file.write(f"{json.dumps(key)}: ")
            if isinstance(value, Mapping):
                file.write(json.dumps(value))
            else:
                _write_list(file, value)
        file.write("}\n")


def write_json_list(path: str | Path, items: Iterable[Any]) -> None:
    """Write a JSON list atomically, item by item."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        _write_list(file, items)
        file.write("\n")


def _write_list(file: TextIO, items: Iterable[Any]) -> None:
    file.write("[")
    for position, item in enumerate(items):
        file.write(",\n" if position else "\n")
        file.write(json.dumps(item))
    file.write("]")
