"""What answers on this machine: ``python probe.py CHECKOUT`` prints ``name=value`` lines that doit.sh reads.

``python probe.py CHECKOUT HOST`` only ends 0 where an engine answers at HOST, else 1.

Needs no package and no Python newer than 3.11, so that it can run before the Python environment exists.

- ``engine``: address of the container engine that answers, or empty
- ``engine_from``: who named it: ``DOCKER_HOST``, ``versions.toml``, ``private`` (by doit.sh), ``system`` or nobody
- ``engine_problem``: why a named engine, or the system's, does not answer
- ``registry_port``: the port of loopback where a registry is wanted from doit.sh; empty where another registry is named
- ``registry_answers``: ``yes`` where something listens on that port
"""

from __future__ import annotations

import os
import re
import socket
import ssl
import sys
import tomllib
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

SYSTEM_SOCKET: Final = Path("/var/run/docker.sock")
SECONDS: Final = 10.0
NO_ADDRESS: Final = "it is not the address of an engine, such as unix:///run/docker.sock"
_LOCAL_REGISTRY = re.compile(r"localhost:([1-9][0-9]{0,4})")


class _OverSocket(HTTPConnection):
    """HTTP over a socket of the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self.path)


def tls(environ: Mapping[str, str]) -> ssl.SSLContext | None:
    """How docker's own client would speak TLS to an engine over TCP; None where nothing asks for it. Raises OSError."""
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    if not verify and not environ.get("DOCKER_CERT_PATH"):
        return None
    folder = Path(environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    context = ssl.create_default_context(cafile=str(folder / "ca.pem") if verify else None)
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def ask_engine(host: str, environ: Mapping[str, str] = os.environ) -> str:
    """Why no engine answers ``GET /_ping`` at ``host``; empty where one does, or where only a client can tell (ssh)."""
    connection: HTTPConnection
    try:
        parts = urlsplit(host)
        if parts.scheme == "unix":
            connection = _OverSocket(parts.path)
        elif parts.scheme == "tcp" and (context := tls(environ)):
            connection = HTTPSConnection(parts.hostname or "localhost", parts.port or 2376, timeout=SECONDS, context=context)
        elif parts.scheme in {"tcp", "http"}:
            connection = HTTPConnection(parts.hostname or "localhost", parts.port or 2375, timeout=SECONDS)
        elif parts.scheme in {"ssh", "https"}:
            return ""
        else:
            return NO_ADDRESS
    except OSError as error:
        return f"its certificates: {error.strerror or error}"
    except ValueError as error:
        return f"{NO_ADDRESS}: {error}"
    try:
        connection.request("GET", "/_ping")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return getattr(error, "strerror", "") or str(error) or type(error).__name__
    finally:
        connection.close()
    return "" if status == 200 else f"it answers HTTP {status}"


def find_engine(named: Mapping[str, str], private: str, environ: Mapping[str, str] = os.environ) -> tuple[str, str, str]:
    """(address, who named it, problem) of the first engine in the order that the pipeline has.

    ``named``: addresses that somebody chose, by who did; the first one must answer, there is no going on to the next.
    """
    for who, host in named.items():
        if host:
            return host, who, ask_engine(host, environ)
    if private and not ask_engine(private):
        return private, "private", ""
    problem = ask_engine(f"unix://{SYSTEM_SOCKET}") if SYSTEM_SOCKET.exists() else "there is none"
    return ("", "", problem) if problem else (f"unix://{SYSTEM_SOCKET}", "system", "")


def private_engine(path: Path) -> str:
    """The address in ``build/engine.env``; empty where there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.removeprefix("DOCKER_HOST=") for line in lines if line.startswith("DOCKER_HOST=")), "")


def listens(port: int) -> bool:
    """True where something accepts connections on loopback at ``port``."""
    try:
        socket.create_connection(("127.0.0.1", port), SECONDS).close()
    except OSError:
        return False
    return True


def settings(path: Path) -> Mapping[str, str]:
    """Table ``[settings]`` of versions.toml; empty where it cannot be read, which the pipeline reports itself."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("settings", {})
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in table.items() if isinstance(value, str)} if isinstance(table, dict) else {}


def main(root: Path, environ: Mapping[str, str]) -> str:
    """The lines, for the checkout ``root``."""
    wished = settings(root / "versions.toml")
    named = {"DOCKER_HOST": environ.get("DOCKER_HOST", ""), "versions.toml": wished.get("docker_host", "")}
    engine, origin, problem = find_engine(named, private_engine(root / "build/engine.env"), environ)
    local = _LOCAL_REGISTRY.fullmatch("" if environ.get("DRIVER_REGISTRY") else wished.get("registry", "localhost:5000"))
    port = local[1] if local else ""
    found = {
        "engine": engine,
        "engine_from": origin,
        "engine_problem": problem,
        "registry_port": port,
        "registry_answers": "yes" if port and listens(int(port)) else "",
    }
    return "".join(f"{name}={' '.join(value.split())}\n" for name, value in found.items())


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(bool(ask_engine(sys.argv[2])))
    sys.stdout.write(main(Path(sys.argv[1]), os.environ))
