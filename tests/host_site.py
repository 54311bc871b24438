"""What a virtual machine sees of the outside: a registry behind a wire that can fail, and a place to ask this side for something.

``Wire``: a TCP port on loopback that leads to the registry, refuses, says nothing, or stops in the middle of a pull.
``Site``: the registry of one test, its images (the real ones, or stand-ins), its index, and the words that a script in the
machine may ask for with ``tell WORD``.
"""

from __future__ import annotations

import hashlib
import json
import selectors
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self

from pipeline.build.assemble import MANIFEST_TYPE, Layer, Store, tree
from pipeline.outcomes import index as indexes
from pipeline.outcomes.index import Entry, Index
from pipeline.publish.signing import KEY_FILE, signer
from pipeline.registry.client import Registry
from tests import host_vm
from tests.host_machine import A
from tests.host_vm import GATEWAY
from tests.registry_process import running_registry

Mode = Literal["open", "refusing", "silent"]


class Wire:
    """A port on loopback that leads to ``target``; a context manager."""

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = str(self._listener.getsockname()[1])
        self.mode: Mode = "open"
        self.passed = 0
        """Bytes that came from the registry."""
        self.limit: int | None = None
        """Where the wire goes dead: bytes from the registry after which nothing more passes."""
        self.stuck = threading.Event()
        """Set once the limit was reached."""
        self._closing = threading.Event()
        self._held: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def set(self, mode: Mode) -> None:
        """From now on: as it should be, ``refusing`` (nobody listens), ``silent`` (taken, and never answered)."""
        if mode == self.mode:
            return
        if mode == "refusing":
            self._stop()
        elif self.mode == "refusing":
            self._listener = socket.create_server(("127.0.0.1", int(self.port)))
            self._start()
        self.mode = mode

    def dies_after(self, count: int | None) -> None:
        """Let ``count`` more bytes through, then nothing; None: everything."""
        self.stuck.clear()
        self.limit = None if count is None else self.passed + count

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        if self.mode != "refusing":
            self._stop()
        for held in self._held:
            held.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self) -> None:
        thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        thread.start()
        self._threads.append(thread)

    def _stop(self) -> None:
        with suppress(OSError):  # wakes who waits in accept
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if self.mode == "silent":
                self._held.append(connection)
                continue
            thread = threading.Thread(target=self._carry, args=(connection,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _carry(self, near: socket.socket) -> None:
        with near, socket.create_connection(self._target) as far, selectors.DefaultSelector() as ready:
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            while not self._closing.is_set():
                for key, _ in ready.select(0.5):
                    if self.limit is not None and key.fileobj is far and self.passed >= self.limit:
                        self.stuck.set()
                        self._closing.wait(0.2)
                        continue
                    source, sink = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    try:
                        data = source.recv(65536)
                        sink.sendall(data)
                    except OSError:
                        return
                    if not data:
                        return
                    if source is far:
                        self.passed += len(data)


class _Words(BaseHTTPRequestHandler):
    server: _WordServer

    def do_GET(self) -> None:
        """Do what the word says, and answer when it is done."""
        deed = self.server.words.get(self.path.lstrip("/"))
        answer = (deed() or "") if deed else f"no word {self.path}"
        self.send_response(200 if deed else 404)
        self.end_headers()
        self.wfile.write(f"{answer}\n".encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _WordServer(ThreadingHTTPServer):
    words: dict[str, Callable[[], str | None]]


class Site:
    """A registry of one test behind a ``Wire``, and the words of its machine."""

    def __init__(self, root: Path, address: str, wire: Wire, server: _WordServer) -> None:
        self.registry, self.store = Registry(address, environ={}), Store(root / "layers")
        self.wire, self._server = wire, server
        self.words = server.words
        self.words |= {
            "up": lambda: wire.set("open"),
            "down": lambda: wire.set("refusing"),
            "silence": lambda: wire.set("silent"),
        }

    @property
    def control(self) -> str:
        """The port of ``tell``."""
        return str(self._server.server_address[1])

    def settings(self, **more: str) -> dict[str, str]:
        """What stands in the machine's driver.env."""
        return {
            "DRIVER_REGISTRY": f"http://{GATEWAY}:{self.wire.port}", "DRIVER_VERSION": A, "DRIVER_INSECURE": "1",
            "DRIVER_RUNTIME": "podman", "NVIDIA_DRIVER_TRY": "1", "DRIVER_BOOT_DEADLINE": "300", **more,
        }  # fmt: skip

    def publish_index(self, *entries: Entry, serial: int = 7, key: Path | None = None, forged: bool = False) -> None:
        """``driver:index`` of these, signed where there is a key; ``forged``: with another index's signature."""
        data = indexes.dump(Index(serial=serial, generated="2026-11-24T12:00:00Z", pairs=entries))
        files = {"index.json": data}
        if key:
            made = signer({KEY_FILE: str(key)})
            assert made is not None
            files["index.json.sig"] = made.sign(data + b" " if forged else data)
        host_vm.push_files(self.registry, self.store, files, "index")

    def push(
        self,
        source: Registry,
        tag: str,
        target: list[str],
        *,
        files: Mapping[str, bytes] | None = None,
        driver: str = "",
        note: str = "",
    ) -> str:
        """The real image ``tag`` without its userspace, or with ``files`` in place of its modules too; its digest.

        ``driver``: another version for its label. ``note`` goes into its configuration, so that two pushes have two digests.
        """
        manifest = source.manifest(tag)
        assert manifest is not None, tag
        document = json.loads(manifest.data)
        config: dict[str, Any] = json.loads(source.blob(document["config"]["digest"]))
        base, _, modules, program = document["layers"]
        ids = config["rootfs"]["diff_ids"]
        if files is None:
            layers, diffs = [base, modules, program], [ids[0], *ids[2:]]
        else:
            own: Layer = self.store.add(tree({name: (0o755, data) for name, data in files.items()}), 0)
            self.registry.push_blob(self.store.blob(own.digest), own.digest, own.size)
            layers, diffs = [base, own.descriptor, program], [ids[0], own.diff_id, ids[3]]
        for layer in layers:
            if not self.registry.has_blob(layer["digest"]):
                self.registry.push_blob(source.blob(layer["digest"], max_bytes=200 << 20), layer["digest"], layer["size"])
        document["layers"], config["rootfs"]["diff_ids"] = layers, diffs
        config["history"] = [{"created": config["created"], "created_by": f"a test {note}"}] * 3
        if driver:
            config["config"]["Labels"]["io.coreos-nvidia.driver"] = driver
        data = json.dumps(config).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.registry.push_blob(data, digest, len(data))
        document["config"] |= {"digest": digest, "size": len(data)}
        return self.registry.push_manifest(json.dumps(document).encode(), MANIFEST_TYPE, target)


@contextmanager
def running_site(root: Path) -> Iterator[Site]:
    """A site; its registry and its ports go with the block."""
    with running_registry(root / "registry") as address, Wire(address) as wire:
        server = _WordServer(("127.0.0.1", 0), _Words)
        server.words = {}
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield Site(root, address, wire, server)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
