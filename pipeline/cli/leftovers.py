"""What this machine keeps and the lock does not need any more: layers, downloads, feeds, logs. All of it can be had again.

Nothing here is needed for what is pinned now: a layer stays where its recipe is the lock's, a download where the lock names its
sha256, or where somebody used it not long ago: other checkouts share them. What an engine keeps is the engine's own affair.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from ..build.shared_layers import log_name
from ..core.errors import ROOM_HINT, DiskError, UsageError
from ..fetch import user_cache
from ..plan.pairs import Plan

FEED_DAYS: Final = 30
"""A feed that was read longer ago is of an index that was superseded, or costs one request."""
UNUSED_DAYS: Final = 30
"""A download that this lock does not pin may be pinned by another checkout's: it stays while somebody uses it."""
OLD_STORE: Final = "cache"
"""Below ``build``: where each checkout kept downloads of its own before all of a user had one store."""
_DAY: Final = 86400
SMALL: Final = 1 << 20
"""Bytes. A smaller layer without a recipe is the program's, which every pair makes anew."""
_SHA256: Final = re.compile(r"([0-9a-f]{64})(\.part)?")
_STAGES: Final = ("", "-probes", "-open", "-proprietary", "-unpack")
_LOGS: Final = re.compile(r"(?:toolchain|driver|base|[a-z0-9-]+_(?:amd64|arm64))_.+\.log")


class Leftover(Struct, frozen=True):
    """One file that may go, its size in bytes, and why."""

    path: Path
    bytes: int
    why: str


class Unused(Leftover, frozen=True):
    """A download that goes only if nobody has used it meanwhile."""


class Folder(Leftover, frozen=True):
    """A whole folder that may go."""


class Entry(Leftover, frozen=True):
    """What tests made, a whole folder; it goes unless somebody uses it."""


def leftovers(plan: Plan, build: Path, store: Path, entries: Path | None = None, now: float | None = None) -> list[Leftover]:
    """What may go below ``build``, in ``store``, the download cache, and in ``entries``, the tests'; ``now`` is Unix time.

    Raises UsageError for a lock that pins no kernel: by it nothing would be needed.
    """
    if not plan.lock.kernels:
        raise UsageError("versions.lock holds no kernel, so nothing tells what is needed", hint="run 'doit update'")
    now = time.time() if now is None else now
    found = [*_layers(plan, build / "layers"), *_logs(plan, build / "log"), *_feeds(store / "http", now)]
    found += [left for left, used in _unpinned(plan, store / "sha256") if now - used > UNUSED_DAYS * _DAY]
    found += _old_store(build / OLD_STORE, store)
    found += _entries(entries) if entries else ()
    return sorted(found, key=lambda left: left.path)


def others(plan: Plan, store: Path, now: float | None = None) -> tuple[int, int]:
    """How many downloads, and of how many bytes, stay that this lock does not pin: they were used not long ago."""
    now = time.time() if now is None else now
    found = [left.bytes for left, used in _unpinned(plan, store / "sha256") if now - used <= UNUSED_DAYS * _DAY]
    return len(found), sum(found)


def remove(left: Leftover) -> bool:
    """Remove it; False where it stays, since somebody uses or fills it this moment. Raises DiskError."""
    try:
        if isinstance(left, Entry):
            return user_cache.remove(left.path)
        if isinstance(left, Folder):
            shutil.rmtree(left.path)
            return True
        with left.path.open("rb") as file:
            if isinstance(left, Unused) and time.time() - user_cache.last_use(os.fstat(file.fileno())) <= UNUSED_DAYS * _DAY:
                return False
            if left.path.suffix == ".part":
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
            left.path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DiskError(f"{left.path}: {error.strerror}", hint=ROOM_HINT) from error
    return True


def _layers(plan: Plan, place: Path) -> Iterator[Leftover]:
    renderer, lock = plan.renderer, plan.lock
    needed = {renderer.base(base).recipe for base in lock.bases} | {renderer.userspace(driver).recipe for driver in lock.drivers}
    named: set[str] = set()
    for note in (place / "recipes").glob("*.json"):
        if note.stem in needed:
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
                named.add(json.loads(note.read_bytes())["digest"].removeprefix("sha256:"))
        else:
            yield from _left(note, "a recipe that is no longer the lock's")
    for blob in (place / "sha256").glob("*"):
        if blob.name not in named and (blob.suffix == ".part" or _size(blob) >= SMALL) and _SHA256.fullmatch(blob.name):
            yield from _left(blob, "a layer of no recipe of the lock")


def _unpinned(plan: Plan, place: Path) -> Iterator[tuple[Unused, float]]:
    """Downloads that the lock does not pin, and when each was last used."""
    pinned = {file.sha256 for file in plan.lock.files()}
    for file in place.glob("??/*"):
        if (found := _SHA256.fullmatch(file.name)) and found[1] not in pinned and (size := _size(file)) >= 0:
            with contextlib.suppress(OSError):
                used = user_cache.last_use(file.stat())
                yield Unused(file, size, f"a download that the lock does not pin; last used {_day(used)}"), used


def _old_store(place: Path, store: Path) -> Iterator[Leftover]:
    if place.is_dir() and not store.resolve().is_relative_to(place.resolve()):
        size = sum(max(_size(file), 0) for file in place.rglob("*"))
        yield Folder(place, size, f"downloads of an earlier version; they are kept in {store} now")


def _entries(place: Path) -> Iterator[Leftover]:
    for made in user_cache.entries(place):
        if not user_cache.in_use(made.path):
            yield Entry(made.path, made.bytes, f"made by tests; last used {_day(made.used)}")


def _day(when: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(when))


def _feeds(place: Path, now: float) -> Iterator[Leftover]:
    for file in place.glob("??/*"):
        with contextlib.suppress(OSError):
            if now - file.stat().st_mtime > FEED_DAYS * _DAY:
                yield from _left(file, f"a feed that was got more than {FEED_DAYS} days ago")


def _logs(plan: Plan, place: Path) -> Iterator[Leftover]:
    known = _log_names(plan)
    for file in place.glob("*.log"):
        if file.name not in known and _LOGS.fullmatch(file.name):
            yield from _left(file, "the log of nothing that the lock pins")


def _log_names(plan: Plan) -> Collection[str]:
    lock = plan.lock
    names = [pair.id for pair in plan.pairs]
    names += [f"toolchain:{toolchain.name}/{toolchain.arch}" for toolchain in lock.toolchains]
    names += [f"base:{base.arch}" for base in lock.bases]
    names += [f"driver:{driver.version}/{driver.arch}" for driver in lock.drivers]
    return {log_name(f"{name}{stage}") for name in names for stage in _STAGES}


def _left(path: Path, why: str) -> Iterator[Leftover]:
    size = _size(path)
    if size >= 0:
        yield Leftover(path, size, why)


def _size(path: Path) -> int:
    """Bytes of a regular file; -1 where there is none."""
    with contextlib.suppress(OSError):
        return path.stat().st_size if path.is_file() and not path.is_symlink() else -1
    return -1
