"""Files that are either whole or absent, however a run ends."""

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place when the block ends well.

    Parent folders are made. A block that raises leaves the old file as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not mkstemp: its private permissions would lock colleagues out of a shared store.
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, document: Any) -> None:
    """Write one small JSON document atomically, in the order of its keys."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document), encoding="utf-8")


def write_json_object(
    path: str | Path, members: Mapping[str, Mapping[str, Any] | Iterable[Any]]
) -> None:
    """Write a JSON object atomically, its lists item by item.

    Annotations of a million images are never held as Python objects all at once.
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
    """Write a bare list atomically, item by item."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        _write_list(file, items)
        file.write("\n")


def _write_list(file: TextIO, items: Iterable[Any]) -> None:
    file.write("[")
    for position, item in enumerate(items):
        file.write(",\n" if position else "\n")
        file.write(json.dumps(item))
    file.write("]")
