"""The way to write into the registry that ``doit.sh`` starts, whose port is for reading alone (bootstrap/registry.sh)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..core.errors import BadFileError
from .credentials import Credentials

WRITER_FILE: Final = Path("build/registry.env")
_HERE: Final = ("localhost", "127.0.0.1")
_HINT: Final = "run ./doit.sh, which starts the registry anew"


@dataclass(frozen=True)
class Writer:
    """Where the same storage takes what is pushed and deleted, ``host:port``, and the login it wants."""

    address: str
    login: Credentials


def find(place: str, file: Path) -> Writer | None:
    """The writer of the registry at ``place``; None where that is another than ``file`` is of, or the file is not ours to read.

    Who cannot read it can pull, and is refused where he pushes. A record outlives a restart of the machine, after which another
    registry may be at that place: so it counts while its process runs. Raises BadFileError where it is damaged.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BadFileError(f"{file}: {getattr(error, 'strerror', '') or 'not text'}", hint=_HINT) from error
    said = dict(line.split("=", 1) for line in lines if "=" in line)
    names = ("REGISTRY", "WRITER", "USER", "PASSWORD", "PID")
    if absent := [name for name in names if not said.get(name)]:
        raise BadFileError(f"{file} does not say {absent[0]}", hint=_HINT)
    registry, address, user, password, process = (said[name] for name in names)
    host, _, port = place.partition("/")[0].rpartition(":")
    if host not in _HERE or port != registry.rpartition(":")[2] or not _runs(process):
        return None
    near, _, number = address.partition(":")
    if near not in _HERE or not (number.isascii() and number.isdigit() and 0 < int(number[:6]) < 1 << 16):
        raise BadFileError(f"{file}: {address} is no port of this machine", hint=_HINT)
    return Writer(address, Credentials(user, password, str(file)))


def _runs(process: str) -> bool:
    if not (process.isascii() and process.isdigit()):
        return False
    try:
        return b"docker-registry" in Path("/proc", process, "cmdline").read_bytes().split(b"\0")[:1]
    except OSError:
        return False
