"""Files of this machine as pinned ones: copied into the store, measured, named by where they lie."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..config.records import FILE_NAME, File, kept
from ..core.errors import BadFileError, DiskError, UsageError
from .http_cache import DISK_HINT

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Own:
    """``origin``: where it lies; ``path``: the copy in the store, named by its sha256."""

    origin: Path
    path: Path
    sha256: str
    size: int

    def pin(self, name: str, version: str) -> File:
        """The lock's entry of it.

        Raises UsageError where its name could not stand in a build.
        """
        if (
            not FILE_NAME.fullmatch(self.origin.name.lstrip("."))
            or not str(self.origin).isprintable()
            or not str(self.origin).isascii()
        ):
            raise UsageError(f"'{self.origin}' cannot be pinned by that name", hint="letters, digits and ._+~:%@=- are possible")
        return File(name=name, version=version, sha256=self.sha256, size=self.size, trust="this-machine", local=str(self.origin))


def keep(origin: Path, root: Path, max_bytes: int) -> Own:
    """``origin`` copied into ``root``, the store that Inputs reads.

    Raises BadFileError where it cannot be read, is empty, or has more than ``max_bytes``; DiskError.
    """
    digest, size = hashlib.sha256(), 0
    try:
        source = origin.open("rb")
    except OSError as error:
        raise BadFileError(f"{origin}: {error.strerror}", hint="it has to be a file that this user can read") from error
    part: Path | None = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=root, prefix=".own.")
        part = Path(name)
        with source, os.fdopen(handle, "wb") as out:
            while block := _read(source.fileno(), origin):
                size += len(block)
                if size > max_bytes:
                    raise BadFileError(f"{origin} has more than {max_bytes} bytes", hint="is that the right file?")
                digest.update(block)
                out.write(block)
        if not size:
            raise BadFileError(f"{origin} is empty", hint="is that the right file?")
        place = kept(root, digest.hexdigest())
        place.parent.mkdir(parents=True, exist_ok=True)
        part.chmod(0o444)
        os.replace(part, place)
    except OSError as error:
        raise DiskError(f"{error.filename or root}: {error.strerror}", hint=DISK_HINT) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return Own(origin, place, digest.hexdigest(), size)


def _read(handle: int, origin: Path) -> bytes:
    try:
        return os.read(handle, _BLOCK)
    except OSError as error:
        raise BadFileError(f"{origin}: {error.strerror}", hint="it has to be a file that this user can read") from error
