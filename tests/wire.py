"""A container engine over TCP: a port on loopback that hands connections on to the engine's own socket, and keeps what it got.

with Wire("unix:///run/docker.sock") as wire:
    project.doit(DOCKER_HOST=f"tcp://{wire.place}")
"""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

_CHUNK = 1 << 16


class Wire:
    """``sent``: every byte that went to the engine; ``place`` is ``host:port``."""

    def __init__(self, engine: str) -> None:
        self._engine = engine.removeprefix("unix://")
        self.sent = bytearray()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Wire:
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # close() alone would leave accept() waiting
        self._accepting.join()
        self._listening.close()

    def _accept(self) -> None:
        joined: list[threading.Thread] = []
        with contextlib.suppress(OSError):  # shut down: that is the end
            while True:
                client, _ = self._listening.accept()
                joined.append(threading.Thread(target=self._join, args=(client,)))
                joined[-1].start()
        for thread in joined:
            thread.join()

    def _join(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as engine:
            engine.connect(self._engine)
            back = threading.Thread(target=self._pump, args=(engine, client, False))
            back.start()
            self._pump(client, engine, True)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, keep: bool) -> None:
        with contextlib.suppress(OSError):  # either side may go at any moment
            while data := source.recv(_CHUNK):
                if keep:
                    self.sent += data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
