"""A real HTTP server on loopback that answers each path as it is told to, and badly where it is told so.

with MisbehavingServer() as server:
    url = server.says("/feed.json", status(500), file(b"{}"))   # first a 500, from then on the file
    ...
    assert [r.method for r in server.requests] == ["GET", "GET"]
"""

from __future__ import annotations

import gzip
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Request:
    """What was asked; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


class Handler(BaseHTTPRequestHandler):
    """One connection. Answers write through ``send``."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Answer as told."""
        owner = self.server.owner
        asked = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        with suppress(ConnectionError):
            owner.next_answer(asked)(self)

    do_HEAD = do_GET  # noqa: N815

    def send(self, code: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Status, headers and, where the method has one, the body; nothing is added to ``headers``."""
        self.send_response_only(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hang_up(self) -> None:
        """Close the connection once this answer is out."""
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


Answer = Callable[[Handler], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    owner: MisbehavingServer

    def process_request(self, request: Any, client_address: Any) -> None:
        self.owner.connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that stop in the middle are what is tested; anything else is told."""
        if not isinstance(sys.exception(), ConnectionError | ssl.SSLError):
            super().handle_error(request, client_address)


class MisbehavingServer:
    """The server; a context manager. What was not told about is 404, or comes from ``tree``."""

    def __init__(self, certificate: Path | None = None) -> None:
        """With a ``certificate`` (PEM, its key in the same file) it speaks TLS."""
        self._scheme = "https" if certificate else "http"
        self.requests: list[Request] = []
        self.connections: list[socket.socket] = []
        self.tree: Path | None = None
        self._answers: dict[str, list[Answer]] = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.owner = self
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def base(self) -> str:
        """``http://127.0.0.1:<port>``."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}"

    def says(self, path: str, *answers: Answer) -> str:
        """Answer requests for ``path`` with each of ``answers`` in turn, the last one for ever. Returns the URL."""
        self._answers[path] = list(answers)
        return self.base + path

    def next_answer(self, asked: Request) -> Answer:
        """What to do with a request, which is noted."""
        with self._lock:
            self.requests.append(asked)
            queue = self._answers.get(asked.path)
            if queue:
                return queue.pop(0) if len(queue) > 1 else queue[0]
        inside = self.tree / asked.path.lstrip("/") if self.tree else None
        if inside and inside.is_file() and ".." not in asked.path:
            return file(inside.read_bytes(), etag=f'"{inside.stat().st_mtime_ns:x}"')
        return status(404)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        for connection in self.connections:  # those kept alive
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join()


def file(
    data: bytes,
    *,
    etag: str = "",
    last_modified: str = "",
    ranges: bool = True,
    zipped: bool = False,
    kind: str = "application/octet-stream",
) -> Answer:
    """``data``, as a good server gives it: 304 to a condition that holds, 206 to ``Range: bytes=N-`` or ``N-M``."""

    def answer(handler: Handler) -> None:
        asked = handler.headers
        validators = {k: v for k, v in (("ETag", etag), ("Last-Modified", last_modified)) if v}
        if (etag and asked["If-None-Match"] == etag) or (last_modified and asked["If-Modified-Since"] == last_modified):
            return handler.send(304, validators)
        headers = {"Content-Type": kind, **validators}
        body, code = data, 200
        wanted = asked["Range"]
        if ranges and wanted and wanted.startswith("bytes="):
            first, _, last = wanted[6:].partition("-")
            if int(first) >= len(data):
                return handler.send(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
            stop = min(int(last) + 1, len(data)) if last else len(data)
            body, code = data[int(first) : stop], 206
            headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(data)}"
        elif zipped and "gzip" in (asked["Accept-Encoding"] or ""):
            body = gzip.compress(data)
            headers["Content-Encoding"] = "gzip"
        return handler.send(code, {**headers, "Content-Length": str(len(body))}, body)

    return answer


def raw(code: int, headers: Mapping[str, str], body: bytes = b"") -> Answer:
    """Exactly these headers and this body, then the connection is closed: nothing makes them agree."""

    def answer(handler: Handler) -> None:
        handler.hang_up()
        handler.send(code, headers, body)

    return answer


def status(code: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
    """A well-formed answer with this status."""
    return lambda handler: handler.send(code, {"Content-Length": str(len(body)), **(headers or {})}, body)


def redirect(location: str, code: int = 302) -> Answer:
    """A redirect to ``location``."""
    return status(code, {"Location": location})


def cut(data: bytes, after: int, *, code: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """``data`` announced whole, but the connection closes ``after`` bytes."""
    return raw(code, {"Content-Length": str(len(data)), **(headers or {})}, data[:after])


def cut_chunked(data: bytes) -> Answer:
    """``data`` as one chunk of a chunked body, and the end never comes."""
    return raw(200, {"Transfer-Encoding": "chunked"}, b"%x\r\n%s\r\n" % (len(data), data))


def hangs_up() -> Answer:
    """No answer at all: the connection closes."""
    return lambda handler: handler.hang_up()


def zeros(count: int, *, announced: bool = True) -> Answer:
    """``count`` zero bytes; not ``announced``: without a Content-Length, until the connection closes."""

    def answer(handler: Handler) -> None:
        handler.hang_up()
        handler.send(200, {"Content-Length": str(count)} if announced else {"Connection": "close"})
        for _ in range(count >> 16):
            handler.wfile.write(bytes(1 << 16))
        handler.wfile.write(bytes(count & 0xFFFF))

    return answer


def html_page() -> Answer:
    """What a captive portal says to everything: 200 and a web page."""
    body = b"<!DOCTYPE html><html><body>Please log in</body></html>"
    return status(200, {"Content-Type": "text/html; charset=utf-8"}, body)


def drip(data: bytes, pause: float) -> Answer:
    """``data`` one byte at a time, ``pause`` seconds between them."""

    def answer(handler: Handler) -> None:
        handler.hang_up()
        handler.send(200, {"Content-Length": str(len(data))})
        for at in range(len(data)):
            handler.wfile.write(data[at : at + 1])
            time.sleep(pause)

    return answer
