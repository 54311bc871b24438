"""What this machine keeps and the lock does not need any more: layers, downloads, feeds, logs. All of it can be had again.

Nothing here is needed for what is pinned now: a layer stays where its recipe is the lock's, a download where the lock names its
sha256. What an engine keeps is the engine's own affair.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from .errors import ROOM_HINT, DiskError, UsageError
from .parts import log_name
from .plan import Plan

FEED_DAYS: Final = 30
"""A feed that was read longer ago is of an index that was superseded, or costs one request."""
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


def leftovers(plan: Plan, build: Path, store: Path, now: float | None = None) -> list[Leftover]:
    """What may go below ``build`` and in ``store``, the download cache; ``now`` is Unix time.

    Raises UsageError for a lock that pins no kernel: by it nothing would be needed.
    """
    if not plan.lock.kernels:
        raise UsageError("versions.lock holds no kernel, so nothing tells what is needed", hint="run 'doit update'")
    found = [*_layers(plan, build / "layers"), *_downloads(plan, store / "sha256"), *_logs(plan, build / "log")]
    found += _feeds(store / "http", time.time() if now is None else now)
    return sorted(found, key=lambda left: left.path)


def remove(left: Leftover) -> None:
    """Remove its file, unless somebody fills it this moment; nothing where it is gone. Raises DiskError."""
    try:
        with left.path.open("rb") as file:
            if left.path.suffix == ".part":
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    left.path.unlink()
            else:
                left.path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise DiskError(f"{left.path}: {error.strerror}", hint=ROOM_HINT) from error


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


def _downloads(plan: Plan, place: Path) -> Iterator[Leftover]:
    pinned = {file.sha256 for file in plan.lock.files()}
    for file in place.glob("??/*"):
        if (found := _SHA256.fullmatch(file.name)) and found[1] not in pinned:
            yield from _left(file, "a download that the lock does not pin")


def _feeds(place: Path, now: float) -> Iterator[Leftover]:
    for file in place.glob("??/*"):
        with contextlib.suppress(OSError):
            if now - file.stat().st_mtime > FEED_DAYS * 86400:
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
