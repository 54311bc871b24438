"""A container engine over TCP: a port on loopback that hands connections on to the engine's own socket, and keeps what it got.

With certificates (``certificates``) it speaks TLS and wants the client's too, as an engine on another machine does.

with Wire("unix:///run/docker.sock") as wire:
    project.doit(DOCKER_HOST=f"tcp://{wire.place}")
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from types import TracebackType

_CHUNK = 1 << 16


class Wire:
    """``sent``: every byte that went to the engine; ``place`` is ``host:port``."""

    def __init__(self, engine: str, folder: Path | None = None) -> None:
        """``folder``: where ``certificates`` lie."""
        self._engine = engine.removeprefix("unix://")
        self._tls = None
        if folder is not None:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
            self._tls.verify_mode = ssl.CERT_REQUIRED
            self._tls.load_cert_chain(folder / "cert.pem", folder / "key.pem")
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
            if self._tls is not None:
                with contextlib.suppress(OSError):  # a client that has no certificate
                    self._in_turn(self._tls.wrap_socket(client, server_side=True), engine)
                return
            back = threading.Thread(target=self._pump, args=(engine, client, False))
            back.start()
            self._pump(client, engine, True)
            back.join()

    def _in_turn(self, client: ssl.SSLSocket, engine: socket.socket) -> None:
        """Both ways in one thread: two may not use one TLS connection."""
        with client:
            while True:
                ready, _, _ = select.select([client, engine], [], []) if not client.pending() else ([client], [], [])
                for source in ready:
                    data = source.recv(_CHUNK)
                    if not data:
                        return
                    if source is client:
                        self.sent += data
                    (engine if source is client else client).sendall(data)

    def _pump(self, source: socket.socket, sink: socket.socket, keep: bool) -> None:
        with contextlib.suppress(OSError):  # either side may go at any moment
            while data := source.recv(_CHUNK):
                if keep:
                    self.sent += data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def certificates(folder: Path) -> Path:
    """ca.pem, cert.pem and key.pem in ``folder``, as docker's client has them: one certificate for 127.0.0.1, all three."""
    folder.mkdir(parents=True, exist_ok=True)
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=engine"
    words += f" -addext subjectAltName=IP:127.0.0.1 -keyout {folder / 'key.pem'} -out {folder / 'ca.pem'}"
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True)
    (folder / "cert.pem").write_bytes((folder / "ca.pem").read_bytes())
    return folder
