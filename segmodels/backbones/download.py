"""Fetch one large file over HTTP, resuming interrupted downloads."""

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from segmodels.formats.atomic import write_json

Log = Callable[[str], None]

_CHUNK = 1 << 20
_TIMEOUT_S = 30
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True)
class _Source:
    """A file's address and headers when its download began, to notice a change on the server."""

    address: str
    size: int | None
    etag: str | None
    modified: str | None

    @property
    def validator(self) -> str | None:
        """Value of If-Range: a strong ETag, else the date; without either nothing is resumed."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.modified


def fetch(
    address: str, partial: Path, *, log: Log, log_every_s: float = 5.0, pause_s: float = 1.0
) -> None:
    """Download into a file, resuming what it already contains.

    The server's headers are kept in `<partial>.json`. A download is resumed only while address,
    size and ETag (or date) are unchanged and the server supports ranges; else it starts again.
    Interruptions are retried as long as every attempt makes progress.

    Args:
        address: http or https.
        partial: file to fill, in an existing folder. Kept when this raises.
        log: receives a line of progress, at most one every `log_every_s` seconds.
        pause_s: wait before the next attempt.

    Raises:
        OSError, HTTPException: no connection, a refusal, a full disk, or an attempt without
            progress.
    """
    furthest = _length(partial)
    while True:
        try:
            _attempt(address, partial, _Progress(address, log, log_every_s))
        except (OSError, HTTPException):
            if _length(partial) <= furthest:
                raise
            furthest = _length(partial)
            log(f"the connection broke after {furthest} bytes of {address}: going on from there")
            time.sleep(pause_s)
        else:
            return


def discard(partial: Path) -> None:
    """Remove a partial download and its notes."""
    partial.unlink(missing_ok=True)
    _notes(partial).unlink(missing_ok=True)


def _attempt(address: str, partial: Path, progress: "_Progress") -> None:
    """Download the missing part over one connection."""
    known = _read_source(partial)
    answer: Any = None
    if known is not None and known.address == address and known.validator is not None:
        if _length(partial) == known.size:
            return
        answer = _open_rest(known, _length(partial))
    if answer is None:
        answer = urllib.request.urlopen(address, timeout=_TIMEOUT_S)
    with answer:
        source = _source(address, answer)
        if answer.status != _PARTIAL_CONTENT:
            discard(partial)
            write_json(_notes(partial), asdict(source))
        with partial.open("ab") as target:
            while block := answer.read1(_CHUNK):
                target.write(block)
                progress.show(target.tell(), source.size)
    if source.size is not None and _length(partial) != source.size:
        raise OSError(f"got {_length(partial)} of {source.size} bytes")


def _open_rest(known: _Source, start: int) -> Any | None:
    """Request the file from a byte on; None if the part on disk no longer fits the server's."""
    headers = {"Range": f"bytes={start}-", "If-Range": str(known.validator)}
    request = urllib.request.Request(known.address, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE:
            return None
        raise
    begins = answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    if answer.status == _PARTIAL_CONTENT and not (
        begins and _source(known.address, answer) == known
    ):
        # The file has changed, and the server ignores If-Range.
        answer.close()
        return None
    return answer


class _Progress:
    """Logs progress at most every few seconds."""

    def __init__(self, address: str, log: Log, every_s: float) -> None:
        self._name = address.rsplit("/", 1)[-1]
        self._log = log
        self._every_s = every_s
        self._last = time.monotonic()

    def show(self, done: int, size: int | None) -> None:
        """Log a line unless the last one is recent."""
        if time.monotonic() - self._last < self._every_s:
            return
        self._last = time.monotonic()
        total = f" of {size / 1e6:.1f}" if size is not None else ""
        self._log(f"{self._name}: {done / 1e6:.1f}{total} MB")


def _source(address: str, answer: Any) -> _Source:
    """Read a response's headers; the size of the whole file is in Content-Range."""
    size = answer.headers.get("Content-Length")
    if answer.status == _PARTIAL_CONTENT:
        total = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
        size = total and total[1]
    etag, modified = answer.headers.get("ETag"), answer.headers.get("Last-Modified")
    return _Source(address, int(size) if size else None, etag, modified)


def _read_source(partial: Path) -> _Source | None:
    try:
        return _Source(**json.loads(_notes(partial).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _notes(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
