"""Bodies of earlier answers on disk, for conditional requests.

One file an address: a line of JSON (address, sha256 and size of the body, ETag, Last-Modified), then the body. A file
is written whole or not at all; one whose body is not what its first line says is dropped, never served.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from ..core.errors import DiskError

DISK_HINT: Final = "free some disk space or mend the directory's rights, then run it again"


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of one address. ``source`` is a digest of the address asked: a mirror has ETags of its own."""

    url: str
    source: str
    sha256: str
    size: int
    etag: str
    last_modified: str

    def came_from(self, address: str) -> bool:
        """True where it came from ``address``: another mirror may hold another file, or an older one."""
        return self.source == digest(address.encode())

    def conditions(self, address: str) -> dict[str, str]:
        """Headers that ask ``address`` for the body only where it has changed."""
        found = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified} if self.came_from(address) else {}
        return {name: value for name, value in found.items() if value}


class Cache:
    """The directory of entries. Any number of threads and processes may share it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _file(self, url: str) -> Path:
        key = digest(url.encode())
        return self._root / key[:2] / key

    def read(self, url: str) -> tuple[Entry, bytes] | None:
        """The entry of ``url`` and its body; None where there is none that is whole."""
        path = self._file(url)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DiskError(f"{path}: {error.strerror}", hint=DISK_HINT) from error
        head, _, body = data.partition(b"\n")
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            entry = msgspec.json.decode(head, type=Entry)
            if entry.url == url and entry.size == len(body) and entry.sha256 == digest(body):
                return entry, body
        self.drop(url)
        return None

    def write(self, url: str, source: str, body: bytes, *, etag: str, last_modified: str) -> None:
        """Keep ``body`` for ``url``.

        Raises DiskError.
        """
        entry = Entry(url, digest(source.encode()), digest(body), len(body), etag, last_modified)
        path = self._file(url)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new.")
            try:
                with os.fdopen(handle, "wb") as out:
                    out.write(msgspec.json.encode(entry) + b"\n")
                    out.write(body)
                os.replace(name, path)
            except BaseException:
                os.unlink(name)
                raise
        except OSError as error:
            raise DiskError(f"{path}: {error.strerror}", hint=DISK_HINT) from error

    def drop(self, url: str) -> None:
        """Forget ``url``; nothing happens where it is not known."""
        path = self._file(url)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise DiskError(f"{path}: {error.strerror}", hint=DISK_HINT) from error


def digest(data: bytes) -> str:
    """The sha256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
