"""Faults for any test: a proxy that misbehaves, a killer that strikes at random, a disk that is small.

with FaultyProxy(registry, at_random(seed=7, rate=0.1)) as proxy:
    run(DRIVER_REGISTRY=proxy.place)        # through it all things go wrong now and then

All randomness comes from a seed, so that what failed once can be had again.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

Kind = Literal["delay", "refuse", "cut request", "cut answer", "lie about length", "corrupt", "status"]
_BLOCK: Final = 1 << 16


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    ``delay``: ``seconds`` pass first. ``refuse``: the connection ends without an answer, and nothing is asked of the
    server. ``cut request``: the server gets ``after`` bytes of the body, then both connections end. ``cut answer``: the
    client gets ``after`` bytes of the body. ``lie about length``: it gets ``after`` bytes too few and a length to match.
    ``corrupt``: one byte of the answer's body is another. ``status``: an answer of the proxy's own.
    """

    kind: Kind
    seconds: float = 0.0
    after: int = 0
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A request that the proxy saw: the how manieth, its method, path with query, and bytes of body."""

    number: int
    method: str
    path: str
    body: int


Decide = Callable[[Asked], Fault | None]


def at_random(seed: int, rate: float, *, kinds: tuple[Kind, ...] | None = None) -> Decide:
    """A fault of some kind for this share of the requests."""
    rng, lock = random.Random(seed), threading.Lock()

    def decide(asked: Asked) -> Fault | None:
        with lock:
            if rng.random() >= rate:
                return None
            kind = rng.choice(kinds or ("delay", "refuse", "cut request", "cut answer", "lie about length", "corrupt", "status"))
            seconds, after = rng.uniform(0.05, 0.3), rng.randrange(0, max(asked.body, 64))
            return Fault(kind, seconds, after, rng.choice((429, 500, 502, 503)), {"Retry-After": "0"})

    return decide


def nothing(asked: Asked) -> Fault | None:
    """No fault."""
    return None


class FaultyProxy:
    """An HTTP server on loopback in front of ``target`` (``host:port``). A context manager.

    ``decide`` may be exchanged at any time. ``asked`` and ``faults`` say what happened; ``place`` is its own host:port.
    """

    def __init__(self, target: str, decide: Decide = nothing) -> None:
        self.target, self.decide = target, decide
        self.asked: list[Asked] = []
        self.faults: list[tuple[Asked, Fault]] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.place = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def fault_for(self, method: str, path: str, body: int) -> Fault | None:
        """Note a request; what is to go wrong with it."""
        with self._lock:
            asked = Asked(len(self.asked), method, path, body)
            self.asked.append(asked)
        fault = self.decide(asked)
        if fault:
            with self._lock:
                self.faults.append((asked, fault))
        return fault

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        for connection in list(self._server.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    proxy: FaultyProxy

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed hangs up in the middle; that is what we are here for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        proxy = self.server.proxy
        length = int(self.headers.get("Content-Length") or 0)
        fault = proxy.fault_for(self.command, self.path, length)
        if fault and fault.kind == "delay":
            time.sleep(fault.seconds)
        if fault and fault.kind == "refuse":
            self._hang_up()
            return
        if fault and fault.kind == "status":
            self.rfile.read(length)
            self._own(fault)
            return
        body = self.rfile.read(length if not fault or fault.kind != "cut request" else min(fault.after, length))
        connection = HTTPConnection(proxy.target, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "keep-alive"):
                    connection.putheader(name, value)
            connection.putheader("Connection", "close")
            connection.endheaders(body)
            if fault and fault.kind == "cut request" and length:
                self._hang_up()
                return
            self._answer(connection.getresponse(), fault)
        except (OSError, HTTPException):  # the server behind is gone: so is the connection
            self._hang_up()
        finally:
            connection.close()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _answer(self, answer: HTTPResponse, fault: Fault | None) -> None:
        data = answer.read()
        kind = fault.kind if fault else None
        after = min(fault.after, len(data)) if fault else 0
        if kind == "corrupt" and data:
            place = after % len(data)
            data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        if kind == "lie about length" and data:
            data = data[: len(data) - 1 - after % len(data)]
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                self.send_header(name, value)
        length = answer.headers.get("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command == "HEAD":
            return
        if kind == "cut answer" and data:
            self.wfile.write(data[:after])
            self._hang_up()
            return
        self.wfile.write(data)

    def _own(self, fault: Fault) -> None:
        body = json.dumps({"errors": [{"code": "UNKNOWN", "message": "the proxy says no"}]}).encode()
        self.send_response_only(fault.status)
        for name, value in {**fault.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Killer:
    """Strikes processes at random: each after some events of its ``--json`` output and a part of a second.

    Counting events, not seconds alone, lets it strike in the middle of the work on slow machines too.
    """

    def __init__(self, seed: int, *, events: int = 5, seconds: float = 0.5) -> None:
        self._rng = random.Random(seed)
        self._events, self._seconds = events, seconds
        self.strikes: list[tuple[int, signal.Signals]] = []

    def strike(self, process: subprocess.Popen[str]) -> bool:
        """Wait for the moment and end the process's whole session; False where it had ended by itself."""
        events, pause = self._rng.randrange(self._events + 1), self._rng.uniform(0, self._seconds)
        how = signal.SIGTERM if self._rng.random() < 0.3 else signal.SIGKILL
        assert process.stdout is not None
        for _ in range(events):
            if not process.stdout.readline():
                break
        with suppress(subprocess.TimeoutExpired):
            process.wait(pause)
        struck = process.poll() is None
        if struck:
            os.killpg(process.pid, how)
            self.strikes.append((events, how))
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        process.communicate()
        return struck


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Callable[[int], None]]:
    """A file system of this size at ``place``, gone with the block; calling what it gives makes it that large.

    Only root may mount one.
    """
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)], check=True)
    try:
        yield lambda size: _remount(place, size)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _remount(place: Path, megabytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={megabytes}m", str(place)], check=True)
