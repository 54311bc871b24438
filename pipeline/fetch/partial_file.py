"""A file on its way in: ``<name>.part`` beside the place where it will stand, hashed while it is written.

It is locked (flock) by whoever fills it, so two threads or processes that want one file make one: the second waits and
finds it there, be it another checkout's. What a killed run left is taken up again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from ..core.errors import DiskError
from .http_cache import DISK_HINT

STANDSTILL = 30 * 60.0
"""Seconds without a byte more, after which who fills a file is taken for stopped: each of its tries ends long before."""
_BLOCK: Final = 1 << 20


class PartFile:
    """The ``.part`` of ``dest``, which is to have ``size`` bytes with this ``sha256``. A context manager.

    ``length`` is how many bytes it has. ``origin`` is the URL they all came from, None where an earlier run left them.
    Every method raises DiskError where the disk refuses.
    """

    def __init__(self, dest: Path, sha256: str, size: int) -> None:
        self.dest = dest
        self.path = dest.with_name(dest.name + ".part")
        self.sha256 = sha256
        self.size = size
        self.length = 0
        self.origin: str | None = None
        self._hash = hashlib.sha256()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.dest.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._locked()
            self._take_up(self._file)
        except OSError as error:
            self._close()
            raise self._refused(error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.length == 0 and self._file is not None:  # nothing worth taking up again
            self.discard()
        self._close()

    def _locked(self) -> IO[bytes]:
        """The file, open and locked, being the one that has the name now."""
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            file = os.fdopen(handle, "r+b", buffering=0)
            try:
                self._wait_for(handle)
                if os.path.samestat(os.fstat(handle), os.stat(self.path)):
                    return file
            except FileNotFoundError:
                pass
            except BaseException:
                file.close()
                raise
            file.close()  # the other one finished or gave up, and the name went with it

    def _wait_for(self, handle: int) -> None:
        """Lock the open file. Who else fills it is waited for while it grows; raises DiskError where it stands still."""
        size, since = -1, time.monotonic()
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            if (now := os.fstat(handle).st_size) != size:
                size, since = now, time.monotonic()
            elif time.monotonic() - since > STANDSTILL:
                raise DiskError(
                    f"{self.path}: another run has filled it no further for {STANDSTILL / 60:g} minutes",
                    hint=f"end that run ('fuser {self.path}' tells which), then run it again",
                )
            time.sleep(0.05)

    def _take_up(self, file: IO[bytes]) -> None:
        if os.fstat(file.fileno()).st_size > self.size:
            file.truncate(0)
        while block := file.read(_BLOCK):
            self._hash.update(block)
            self.length += len(block)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _refused(self, error: OSError) -> DiskError:
        return DiskError(f"{self.path}: {error.strerror}", hint=DISK_HINT)

    @property
    def got(self) -> str:
        """The sha256 of the bytes so far."""
        return self._hash.hexdigest()

    @property
    def right(self) -> bool:
        """True where all bytes are here and are the right ones."""
        return self.length == self.size and self.got == self.sha256

    def there(self) -> bool:
        """True where ``dest`` itself already has the right bytes."""
        try:
            with self.dest.open("rb") as file:
                if os.fstat(file.fileno()).st_size != self.size:
                    return False
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except FileNotFoundError:
            return False
        except OSError as error:
            raise DiskError(f"{self.dest}: {error.strerror}", hint=DISK_HINT) from error

    def restart(self, origin: str | None) -> None:
        """Begin again with no byte; those to come are from ``origin``."""
        assert self._file is not None
        try:
            self._file.seek(0)
            self._file.truncate(0)
        except OSError as error:
            raise self._refused(error) from error
        self.length, self.origin, self._hash = 0, origin, hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Add ``data``. A full disk gets back what it gave: the ``.part`` is emptied before the error is raised."""
        assert self._file is not None
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            self.restart(None)
            raise self._refused(error) from error
        self._hash.update(data)
        self.length += len(data)

    def finish(self) -> None:
        """Give the file its name: on disk first, so that a power cut leaves the whole file or none."""
        assert self._file is not None
        try:
            os.fsync(self._file.fileno())
            os.replace(self.path, self.dest)
            folder = os.open(self.dest.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            self.restart(None)
            raise self._refused(error) from error
        self._close()

    def discard(self) -> None:
        """Remove the ``.part``, still locked, so that whoever waits for it begins with one of its own."""
        self.restart(None)
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise self._refused(error) from error
