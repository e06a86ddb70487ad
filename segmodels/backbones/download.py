"""Fetch one large file over HTTP, continuing where an earlier try broke off."""

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
    """What the server said of the file when its download began, to tell later whether it changed."""

    address: str
    size: int | None
    etag: str | None
    modified: str | None

    @property
    def validator(self) -> str | None:
        """What If-Range may name: a strong ETag, else the date; without one nothing is resumed."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.modified


def fetch(
    address: str, partial: Path, *, log: Log, log_every_s: float = 5.0, pause_s: float = 1.0
) -> None:
    """Fill a file from an address, continuing what is in it already.

    What the server said of the file is kept beside it (`<partial>.json`). An earlier part is
    continued only while address, size and ETag (or date) are still the same, and started anew
    otherwise or when the server knows no ranges. After a break the next try follows at once, as
    long as each brings the file further than all before.

    Args:
        address: http or https.
        partial: file to fill; its folder is there. Kept when this raises.
        log: takes a line of progress, at most one every `log_every_s` seconds.
        pause_s: wait before a next try.

    Raises:
        OSError, HTTPException: no connection, a refusal, a full disk, or a break that further
            tries did not get past.
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
    """Remove what `fetch` filled or left behind."""
    partial.unlink(missing_ok=True)
    _notes(partial).unlink(missing_ok=True)


def _attempt(address: str, partial: Path, progress: "_Progress") -> None:
    """Fetch what is missing over one connection."""
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
    """Open the file from a byte on, or whole where the server will; None: the part fits no more."""
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
        # Another file by now, and a server that did not look at If-Range.
        answer.close()
        return None
    return answer


class _Progress:
    """Lines of progress, far enough apart to be read."""

    def __init__(self, address: str, log: Log, every_s: float) -> None:
        self._name = address.rsplit("/", 1)[-1]
        self._log = log
        self._every_s = every_s
        self._last = time.monotonic()

    def show(self, done: int, size: int | None) -> None:
        """Log a line if the last one is long enough ago."""
        if time.monotonic() - self._last < self._every_s:
            return
        self._last = time.monotonic()
        whole = f" of {size / 1e6:.1f}" if size is not None else ""
        self._log(f"{self._name}: {done / 1e6:.1f}{whole} MB")


def _source(address: str, answer: Any) -> _Source:
    """Read an answer's headers; a part's whole size stands in Content-Range."""
    size = answer.headers.get("Content-Length")
    if answer.status == _PARTIAL_CONTENT:
        whole = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
        size = whole and whole[1]
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
