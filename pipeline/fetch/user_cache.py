"""This user's cache folder, which all checkouts share; when a file was last used; and what tests make once and keep there.

An entry of the tests is a folder named by the digest of what decides it.

``tests/support/cache.py`` makes entries; here they are listed and removed, which ``doit prune --local`` does too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from ..core.errors import DiskError

SCRATCH: Final = ".new."
"""How the name of a folder begins that is on its way in or out."""
_LOCKS: Final = ".locks"
_DAY: Final = 86400
_LOCK_DAYS: Final = 30


class Made(Struct, frozen=True):
    """One entry: where it is, the bytes that it takes, and when it was last used (Unix time)."""

    path: Path
    bytes: int
    used: float


def cache_home(environ: Mapping[str, str]) -> Path:
    """The folder of this project among the user's caches: ``$XDG_CACHE_HOME/coreos-nvidia``, else ``~/.cache/coreos-nvidia``.

    Raises DiskError where neither variable names a folder.
    """
    if (given := environ.get("XDG_CACHE_HOME", "")).startswith("/"):  # a relative one is to be ignored, says its standard
        return Path(given) / "coreos-nvidia"
    if (home := environ.get("HOME", "")).startswith("/"):
        return Path(home) / ".cache/coreos-nvidia"
    raise DiskError(
        "no folder to keep downloads in: HOME is not set, nor is XDG_CACHE_HOME", hint="name a folder in DRIVER_CACHE or set HOME"
    )


def note_use(path: Path) -> None:
    """Have ``path`` remember that it was used, in its time of access; its time of change stays."""
    with contextlib.suppress(OSError):  # another user's, or a file system that is read-only
        found = path.stat()
        if time.time() - found.st_atime > _DAY:
            os.utime(path, ns=(time.time_ns(), found.st_mtime_ns))


def last_use(found: os.stat_result) -> float:
    """When a file was last used, or came (Unix time)."""
    return max(found.st_atime, found.st_mtime)


def entries_folder(environ: Mapping[str, str]) -> Path:
    """Where the entries are. Raises DiskError as ``cache_home`` does."""
    return cache_home(environ) / "tests"


def lock_file(root: Path, name: str) -> Path:
    """What is locked exclusively by whoever makes, checks or removes the entry ``name`` of ``root``."""
    return root / _LOCKS / f"{name}.lock"


def entries(root: Path) -> list[Made]:
    """Every entry, that used longest ago first; one whose size cannot be read counts as none."""
    found = []
    for place in root.glob("[!.]*"):
        with contextlib.suppress(OSError):
            used = place.lstat().st_mtime
            found.append(Made(place, _bytes(place), used))
    return sorted(found, key=lambda made: (made.used, made.path))


def _bytes(place: Path) -> int:
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        return int(json.loads((place / "entry.json").read_bytes())["bytes"])
    return 0


def in_use(place: Path) -> bool:
    """True where somebody uses the entry at ``place``, or makes it anew."""
    with contextlib.suppress(FileNotFoundError), _alone(place) as alone:
        return not alone
    return False


def remove(place: Path) -> bool:
    """Remove the entry at ``place``, or what remains of it; False where it is in use. Raises OSError."""
    with contextlib.suppress(FileNotFoundError), _alone(place) as alone:
        if not alone:
            return False
        discard(place)
    return True


def discard(place: Path) -> None:
    """Remove the entry at ``place``; whoever calls this holds its lock. Raises OSError."""
    going = place.with_name(f"{SCRATCH}{place.name}.{os.getpid()}.{time.monotonic_ns()}")
    place.rename(going)  # so that half an entry is never seen under its name
    if going.is_symlink() or not going.is_dir():  # nobody of ours made it; where a link leads is none of ours either
        going.unlink()
    else:
        shutil.rmtree(going, ignore_errors=True)  # what stays is swept later


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[bool]:
    """Hold the entry's lock and its folder's for the block; False where somebody else holds one."""
    lock = lock_file(place.parent, place.name)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        if not _taken(file.fileno()):
            yield False
            return
        try:
            folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except NotADirectoryError:  # a file or a link under an entry's name, which nobody can use
            yield True
            return
        try:
            yield _taken(folder)
        finally:
            os.close(folder)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sweep_locks(root: Path) -> None:
    """Remove the lock files of entries that are gone since long."""
    for lock in (root / _LOCKS).glob("*.lock"):
        with contextlib.suppress(OSError):
            if time.time() - lock.stat().st_mtime < _LOCK_DAYS * _DAY or (root / lock.stem).exists():
                continue
            with lock.open("a") as file:
                if _taken(file.fileno()):
                    lock.unlink()
