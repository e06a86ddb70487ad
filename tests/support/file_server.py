"""A web server on this machine that holds files, and misbehaves as told."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class FileServer:
    """Behaviour and protocol of a file server.

    Attributes:
        files: contents by path.
        etag: sent with every answer; empty sends none.
        ranges: whether parts are served.
        looks_at_if_range: whether a part of a changed file is refused.
        announced: Content-Length of whole files, when it is to differ from the truth.
        cuts: bytes to send before hanging up, one for each of the next requests; 0 is an error.
        broken: answers nothing but errors.
        sent: bytes of content sent, by request.
        port: where it listens.
    """

    files: dict[str, bytes]
    etag: str = '"first"'
    ranges: bool = True
    looks_at_if_range: bool = True
    announced: int | None = None
    cuts: list[int] = field(default_factory=list)
    broken: bool = False
    sent: list[int] = field(default_factory=list)
    port: int = 0

    @property
    def address(self) -> str:
        """Where it is reached, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Serve one GET."""
        content = self.files.get(request.path.lstrip("/"))
        cut = self.cuts.pop(0) if self.cuts else None
        if self.broken or cut == 0 or content is None:
            request.send_error(404 if content is None else 503)
            return
        start = self._start(request)
        if start >= len(content):
            request.send_error(416)
            return
        if start:
            request.send_response(206)
            ends = f"{len(content) - 1}/{len(content)}"
            request.send_header("Content-Range", f"bytes {start}-{ends}")
        else:
            request.send_response(200)
        length = len(content) - start if start or self.announced is None else self.announced
        request.send_header("Content-Length", str(length))
        if self.etag:
            request.send_header("ETag", self.etag)
        request.end_headers()
        part = content[start:][:cut]
        self.sent.append(len(part))
        request.wfile.write(part)

    def _start(self, request: BaseHTTPRequestHandler) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        changed = self.looks_at_if_range and request.headers.get("If-Range") != self.etag
        return int(asked[1]) if asked and self.ranges and not changed else 0


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FileServer]:
    """Serve files on a free port of this machine until the block ends."""
    behaviour = FileServer(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            behaviour.answer(self)

        def log_message(self, *_arguments: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        behaviour.port = server.server_port
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield behaviour
        finally:
            server.shutdown()
            thread.join()
