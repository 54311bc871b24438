"""A real HTTP server on loopback that plays a registry and does as it is told: any method, any answer, any breakage.

with Told(in_turn(says(500), says(200, {"tags": ["a"]}))) as server:
    assert client(server.place).tags() == ["a"]
    assert len(server.seen) == 2
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from pipeline.registry.client import Registry

TAGS = {"name": "driver", "tags": ["a", "b"]}


@dataclass(frozen=True)
class Seen:
    """A request; header names in lower case."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: bytes


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Note the request, then answer as told."""
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        cut = self.server.owner.read_only.pop((self.command, parts.path), None)
        length = int(headers.get("content-length", "0"))
        with suppress(ConnectionError):
            body = self.rfile.read(length if cut is None else cut)
            self.server.owner.seen.append(Seen(self.command, parts.path, parse_qs(parts.query), headers, body))
            if cut is not None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.server.owner.answer(self.server.owner.seen[-1], self)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def say(self, status: int, body: bytes = b"", cut: int = 0, **headers: str) -> None:
        """Send an answer. ``cut``: so many bytes of the body that are promised and not sent."""
        self.send_response_only(status)
        named = {"Content-Length": str(len(body)), **{k.replace("_", "-"): v for k, v in headers.items()}}
        for name, value in named.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) - cut])
        self.close_connection = self.close_connection or bool(cut)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = False
    owner: Told

    def process_request(self, request: Any, client_address: Any) -> None:
        self.owner.connections.append(request)
        super().process_request(request, client_address)


class Told:
    """The server; a context manager. ``seen`` is what was asked.

    ``answer`` decides on every request; ``read_only`` names bodies of which so many bytes are read before it hangs up.
    """

    def __init__(self, answer: Callable[[Seen, Handler], None]) -> None:
        self.answer = answer
        self.seen: list[Seen] = []
        self.read_only: dict[tuple[str, str], int] = {}
        self.connections: list[socket.socket] = []
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.owner = self
        self.place = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def asked(self, method: str, path: str = "") -> list[Seen]:
        """Requests of this method whose path holds ``path``."""
        return [seen for seen in self.seen if seen.method == method and path in seen.path]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.server_close()


def in_turn(*answers: Callable[[Handler], None]) -> Callable[[Seen, Handler], None]:
    """Each of ``answers`` once, the last one for ever."""
    left = list(answers)

    def answer(seen: Seen, handler: Handler) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(handler)

    return answer


def says(status: int, body: bytes | dict[str, Any] = b"", cut: int = 0, **headers: str) -> Callable[[Handler], None]:
    """An answer; ``cut`` bytes of its body are promised and not sent."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda handler: handler.say(status, data, cut, **headers)


def refusal(code: str, message: str) -> dict[str, Any]:
    """An error as distribution-spec has it."""
    return {"errors": [{"code": code, "message": message}]}


class Asleep:
    """Notes how long somebody wanted to sleep."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)


def client(place: str, environ: Mapping[str, str] | None = None, *, sleep: Asleep | None = None) -> Registry:
    """A registry client that never really sleeps and knows no login but ``environ``'s."""
    return Registry(place, environ=environ or {}, sleep=sleep or Asleep(), attempts=3, timeout=(5, 5))


def sha256(data: bytes) -> str:
    """As a digest is written."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
