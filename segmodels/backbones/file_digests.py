"""SHA-256 of cached files: recorded at the first use, verified at every later one.

The user's own hash counts first, else the recorded one. Every use reads the whole file, about a
second a gigabyte: size and date would not reveal a damaged disk.
"""

import hashlib
import json
import re
from pathlib import Path

from kernels.errors import ExNihiloError
from segmodels.formats.atomic import write_json

# torchvision ends its files' names with the first digits of their SHA-256.
_DIGITS_IN_NAME = re.compile(r"-([0-9a-f]{8})\.pth")


class WeightsMismatchError(ExNihiloError, RuntimeError):
    """Weights are not those that were asked for or recorded."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_of(path: Path) -> Path:
    """Path of the JSON document beside a file that its SHA-256 is recorded in."""
    return path.with_name(f"{path.name}.json")


def recorded_sha256(path: Path) -> str | None:
    """Read the SHA-256 that was recorded for a file; None without a record.

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
    """Record a file's SHA-256 and its origin, an address or a short note."""
    write_json(record_of(path), {"sha256": sha256, "origin": origin})


def check_sha256(path: Path, actual: str, asked: str | None, recorded: str | None) -> None:
    """Compare a file's SHA-256 with the one that the user asked for, else with the recorded one.

    Raises:
        WeightsMismatchError: they differ.
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


def check_file_name(path: Path, actual: str) -> None:
    """Compare a file's SHA-256 with the digits in its name, where the name ends in `-<8 digits>.pth`.

    Raises:
        WeightsMismatchError: they differ.
    """
    match = _DIGITS_IN_NAME.search(path.name)
    if match and not actual.startswith(match[1]):
        raise WeightsMismatchError(
            f"{path.name} must have a SHA-256 that begins with {match[1]}, got {actual}: fetch it "
            "from its publisher again"
        )
