"""What is slow to make and the same for many tests: made once, kept in a folder named by the digest of all that decides it.

    cache = Cache.of_this_user()
    parts = {"source": deb, "configuration": text, "compiler": versions_of("gcc-12"), "code": code_of(kernel)}
    tree = cache.entry("standin-kernel", parts, lambda folder: kernel.make(folder))

An entry stands under its name whole or not at all, and any number of runs in any number of checkouts may share one folder:
whoever makes an entry holds its lock, whoever uses one holds its folder (a shared flock) until the cache is closed, and
what is held is never removed. A maker must leave nothing in its folder that names the folder's own path: it is renamed.
What the product makes must not be taken from here by a test that shows that the product makes it; other keys that hold
something of the product have ``product()`` among their parts.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from filelock import FileLock, Timeout

from pipeline.core import scratch_dirs
from pipeline.core.errors import DiskError
from pipeline.fetch import user_cache
from tests.support.digests import Part, code_of, digest_of, file_sha256, product, sha256, versions_of

__all__ = ["Cache", "CacheBusy", "code_of", "digest_of", "product", "versions_of"]

LIMIT: Final = 20_000_000_000
"""Bytes of all entries together; those used longest ago go beyond it."""
WAIT: Final = 45 * 60.0
"""Seconds to wait for another run that makes the same entry."""
_FORMAT: Final = 1
_KIND: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_NO_ROOM: Final = 32 << 20
"""A maker that fails on a file system with fewer free bytes has failed for want of them, whatever it says."""
_REFUSED: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})

Make = Callable[[Path], object]


class CacheBusy(Exception):
    """Another run has been making an entry for too long."""


class _Refused(Exception):
    """The cache's folder cannot be written, or is full: nothing that the maker could mend."""


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Cache:
    """The entries below ``root``. A context manager; ``close`` lets go of what it uses.

    ``fallback`` is used where ``root`` cannot be written or is full (None: a temporary folder of this process); ``say`` is
    told in one line what a person should know. ``thorough``: read every byte of an entry before it is used, not only
    names, modes, sizes and times.
    """

    def __init__(
        self,
        root: Path,
        limit: int = LIMIT,
        *,
        fallback: Path | None = None,
        say: Callable[[str], None] = _to_stderr,
        wait: float = WAIT,
        thorough: bool = False,
    ) -> None:
        self.root = root
        self._limit, self._fallback, self._say, self._wait, self._thorough = limit, fallback, say, wait, thorough
        self._held: dict[str, int] = {}
        self._spare: Cache | None = None
        self._is_spare = False
        with suppress(OSError):  # who makes an entry will say it
            scratch_dirs.sweep(root, user_cache.SCRATCH)

    @classmethod
    def of_this_user(cls, environ: Mapping[str, str] = os.environ, **options: Any) -> Self:
        """The cache of whoever runs the tests; one for this process alone where no folder can be told."""
        try:
            return cls(user_cache.entries_folder(environ), **options)
        except DiskError:
            return cls(_of_this_process(), **options)

    def entry(self, kind: str, parts: Mapping[str, Part], make: Make) -> Path:
        """The folder that ``make`` fills, for reading only: the one that is kept where ``parts`` are the same, else a new one.

        Raises CacheBusy where another run makes it and does not end, and what ``make`` raises.
        """
        if not _KIND.fullmatch(kind):
            raise ValueError(f"'{kind}' is no kind of entry: lower case letters, digits and single hyphens")
        decided = {name: digest_of(part) for name, part in sorted(parts.items())}
        name = f"{kind}-{sha256(json.dumps([_FORMAT, kind, decided]).encode())}"
        if self._spare and name in self._spare._held:
            return self._spare._entry(name, decided, make)
        try:
            return self._entry(name, decided, make)
        except _Refused as refused:
            if self._is_spare:
                raise
            if self._spare is None:
                self._spare = Cache(self._fallback or _of_this_process(), self._limit, say=self._say, wait=self._wait)
                self._spare._is_spare = True
                self._say(f"tests: {refused}: what is made anew is kept in {self._spare.root}, for this run alone")
            return self._spare._entry(name, decided, make)

    def _entry(self, name: str, decided: Mapping[str, str], make: Make) -> Path:
        place = self.root / name
        if name in self._held and (place / "entry.json").is_file():
            return place / "files"
        with self._locked(name):
            damage = self._damage(place)
            if damage and os.path.lexists(place):
                self._say(f"tests: {place} is damaged ({damage}) and made again")
                with _own_files(self.root):
                    user_cache.discard(place)
            if damage:
                self._make(place, decided, make)
            with _own_files(self.root):
                self._hold(place)
        self._trim()
        return place / "files"

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        file = user_cache.lock_file(self.root, name)
        with _own_files(self.root):
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(file)
            if not _acquired(lock, 1.0):
                self._say(f"tests: waiting for another run that makes {name} (at most {self._wait / 60:g} minutes)")
                if not _acquired(lock, self._wait):
                    raise CacheBusy(
                        f"{name}: another run has made it for more than {self._wait / 60:g} minutes: end it ('fuser {file}' "
                        "tells which), or set XDG_CACHE_HOME to another folder"
                    )
        try:
            yield
        finally:
            lock.release()

    def _damage(self, place: Path) -> str:
        """What is wrong with the entry at ``place``; empty where it is whole."""
        if any(path.is_symlink() for path in (place, place / "files")):
            return "a link is in its place"
        try:
            listed = (place / "files.json").read_bytes()
            if json.loads((place / "entry.json").read_bytes())["listed"] != sha256(listed):
                return "files.json is another"
            wanted = json.loads(listed)
            found = _listing(place / "files", contents=self._thorough)
        except (OSError, ValueError, LookupError, TypeError) as error:
            return str(error) or type(error).__name__
        for name in sorted(wanted.keys() | found.keys()):
            if name not in found or name not in wanted:
                return f"{name} is {'missing' if name in wanted else 'not its own'}"
            if wanted[name][: len(found[name])] != found[name]:
                return f"{name} has changed"
        return ""

    def _make(self, place: Path, decided: Mapping[str, str], make: Make) -> None:
        with ExitStack() as stack:
            try:
                scratch = stack.enter_context(scratch_dirs.folder(self.root, f"{user_cache.SCRATCH}{place.name}."))
            except DiskError as error:
                raise _Refused(error.message) from error
            self._fill(scratch, place, decided, make)

    def _fill(self, scratch: Path, place: Path, decided: Mapping[str, str], make: Make) -> None:
        files = scratch / "files"
        with _own_files(self.root):
            files.mkdir()
        try:
            make(files)
        except Exception as error:
            if full := _no_room(self.root, error):
                raise _Refused(f"{self.root}: {full}") from error
            raise
        with _own_files(self.root):
            for path in files.rglob("*"):
                if not path.is_symlink() and path.is_file():
                    path.chmod(path.stat().st_mode & ~0o222)
            found = _listing(files, contents=True)
            if not found:
                raise ValueError(f"{place.name}: its maker made nothing")
            listed = json.dumps(found).encode()
            taken = sum(path.lstat().st_blocks for path in files.rglob("*")) * 512 + len(listed)
            (scratch / "files.json").write_bytes(listed)
            with (scratch / "entry.json").open("xb") as file:  # what is listed there is checked: only this has to be on disk
                file.write(json.dumps({"bytes": taken, "listed": sha256(listed), "parts": decided}).encode())
                file.flush()
                os.fsync(file.fileno())
            try:
                scratch.rename(place)
            except OSError as error:  # the lock's file was removed under somebody who made it too: theirs is as good
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise

    def _hold(self, place: Path) -> None:
        handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # who removes it holds the entry's lock, as this one does now
        os.utime(handle)
        if (before := self._held.pop(place.name, None)) is not None:
            os.close(before)
        self._held[place.name] = handle

    def _trim(self) -> None:
        """Remove entries used longest ago while all are more than the limit, or than half of what the disk has for them."""
        with suppress(OSError):
            kept = user_cache.entries(self.root)
            total = sum(made.bytes for made in kept)
            limit = min(self._limit, (total + shutil.disk_usage(self.root).free) // 2)
            for made in kept:
                if total <= limit:
                    break
                with suppress(OSError):  # another user's
                    total -= made.bytes if user_cache.remove(made.path) else 0
            user_cache.sweep_locks(self.root)

    def close(self) -> None:
        """Let go of every entry: from now on it may be removed."""
        while self._held:
            os.close(self._held.popitem()[1])
        if self._spare:
            self._spare.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@contextmanager
def _own_files(root: Path) -> Iterator[None]:
    """Raise _Refused for a file or folder of the cache's own that cannot be written."""
    try:
        yield
    except OSError as error:
        raise _Refused(f"{error.filename or root}: {error.strerror or error}") from error


def _acquired(lock: FileLock, seconds: float) -> bool:
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    return True


def _no_room(root: Path, error: Exception) -> str:
    """Why ``error`` is the disk's and not the maker's; empty where it is the maker's."""
    if isinstance(error, OSError) and error.errno in _REFUSED:
        return error.strerror or "no room"
    with suppress(OSError):
        if shutil.disk_usage(root).free < _NO_ROOM:
            return "almost no space left on device"
    return ""


def _of_this_process() -> Path:
    """A temporary folder that goes when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="coreos-nvidia-tests."))
    weakref.finalize(_of_this_process, shutil.rmtree, folder, ignore_errors=True)
    return folder


def _listing(folder: Path, *, contents: bool) -> dict[str, list[Any]]:
    """Path below ``folder`` → mode, size, time of change in seconds, and with ``contents`` the sha256 or a link's target."""
    if not folder.is_dir():
        raise FileNotFoundError("its folder is missing")
    found: dict[str, list[Any]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        row: list[Any] = [status.st_mode]
        if stat.S_ISREG(status.st_mode):
            row += [status.st_size, int(status.st_mtime), *([file_sha256(path)] if contents else [])]
        elif stat.S_ISLNK(status.st_mode):
            row.append(str(path.readlink()))
        found[str(path.relative_to(folder))] = row
    return found
