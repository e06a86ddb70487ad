"""SHA-256 of cached files: recorded at first sight, verified ever after.

None is built in or made up: a user's own counts first, else the one that was recorded when the
file was first seen. Every use reads the whole file again: that takes about a second a gigabyte,
less than loading it, and size and date would not tell of a damaged disk.
"""

import hashlib
import json
from pathlib import Path

from kernels.errors import ExNihiloError
from segmodels.formats.atomic import write_json


class WeightsMismatchError(ExNihiloError, RuntimeError):
    """A file is not the one that was asked for or recorded."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_of(path: Path) -> Path:
    """Where a file's SHA-256 is kept: a small JSON document beside it."""
    return path.with_name(f"{path.name}.json")


def recorded_sha256(path: Path) -> str | None:
    """SHA-256 that was recorded for a file, None where there is no record yet.

    Raises:
        WeightsMismatchError: the record is damaged.
    """
    record = record_of(path)
    if not record.is_file():
        return None
    try:
        return str(json.loads(record.read_text(encoding="utf-8"))["sha256"])
    except (ValueError, LookupError, TypeError) as error:
        raise WeightsMismatchError(
            f"{record} is damaged: delete it to accept {path.name} as it is"
        ) from error


def record_sha256(path: Path, sha256: str, origin: str) -> None:
    """Record a file's SHA-256 and where the file is from."""
    write_json(record_of(path), {"sha256": sha256, "origin": origin})


def check_sha256(path: Path, actual: str, asked: str | None, recorded: str | None) -> None:
    """Compare a file's SHA-256 with the one a user asked for, else with the recorded one.

    Raises:
        WeightsMismatchError: says in one sentence what to do.
    """
    if asked is not None and actual != asked:
        raise WeightsMismatchError(
            f"{path} has SHA-256 {actual}, and {asked} was asked for: correct the hash after "
            "@sha256:, or replace the file"
        )
    if asked is None and recorded is not None and actual != recorded:
        raise WeightsMismatchError(
            f"{path} is damaged or another file than before (SHA-256 {actual}, recorded "
            f"{recorded}): delete it to have it fetched again, or delete {record_of(path).name} "
            "beside it to accept it as it is"
        )
