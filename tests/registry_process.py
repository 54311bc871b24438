"""A real registry for tests: Debian's docker-registry (distribution 2.8) on loopback, its storage under a folder."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

REGISTRY = "docker-registry"
MISSING = f"{REGISTRY} is not installed (apt-get install docker-registry)"
_READY_SECONDS = 30.0
_NAME = "X-Test-Registry"
"""A header of every answer: a port that was free may be another test's by now."""


def installed() -> bool:
    """True where a registry can be run here."""
    return shutil.which(REGISTRY) is not None


@contextmanager
def running_registry(
    root: Path, *, port: int = 0, delete: bool = True, htpasswd: str = "", storage: Path | None = None, read_only: bool = False
) -> Iterator[str]:
    """``127.0.0.1:<port>`` of a registry that answers; it is ended with the block.

    ``root`` holds its configuration and log, and its storage where ``storage`` names no other place. ``htpasswd``: lines
    ``user:bcrypt`` for those who may use it.
    """
    root.mkdir(parents=True, exist_ok=True)
    place, deletes, refuses = storage or root / "storage", str(delete).lower(), str(read_only).lower()
    maintenance = f"maintenance: {{readonly: {{enabled: {refuses}}}}}"
    config, log, name = root / "config.yml", root / "registry.log", secrets.token_hex(8)
    for left in reversed(range(1 if port else 5)):
        address = f"127.0.0.1:{port or _free_port()}"
        lines = [
            "version: 0.1",
            f"storage: {{filesystem: {{rootdirectory: {place}}}, delete: {{enabled: {deletes}}}, {maintenance}}}",
            f"http: {{addr: '{address}', headers: {{{_NAME}: [{name}]}}}}",
        ]
        if htpasswd:
            (root / "htpasswd").write_text(htpasswd)
            lines.append(f"auth: {{htpasswd: {{realm: test, path: {root / 'htpasswd'}}}}}")
        config.write_text("\n".join(lines) + "\n")
        with log.open("ab") as output:
            process = subprocess.Popen([REGISTRY, "serve", str(config)], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        if _answers(address, name, process):
            break
        process.kill()
        process.wait()
        if not left:
            raise RuntimeError(f"{REGISTRY} does not answer at {address}:\n{log.read_text(errors='replace')[-2000:]}")
    try:
        yield address
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(address: str, name: str, process: subprocess.Popen[bytes]) -> bool:
    """True as soon as this process answers there, False where it has ended or says nothing for long."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = HTTPConnection(address, timeout=5)
        try:
            connection.request("GET", "/v2/")
            answer = connection.getresponse()
            if answer.status in (200, 401) and answer.getheader(_NAME) == name:
                return True
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.02)
    return False
