"""Folders below ``build`` that a command makes for itself and removes at its end; what a killed one left is swept.

A folder is locked for as long as it is in use, so that one of a command that still runs is told from one that was left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .errors import ROOM_HINT, DiskError

UPDATE: Final = ".update."
"""How the name of an update's folder begins: updates do not hold the checkout as runs do."""


@contextlib.contextmanager
def folder(below: Path, prefix: str) -> Iterator[Path]:
    """A new folder, removed at the end; what killed commands left of the same ``prefix`` goes first.

    Raises DiskError where it cannot be made.
    """
    sweep(below, prefix)
    place, handle = _new(below, prefix)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(handle)


def sweep(below: Path, prefix: str) -> None:
    """Remove folders of ``prefix`` that nobody uses any more."""
    for place in below.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # in use, or another one sweeps too
            handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place, ignore_errors=True)
            finally:
                os.close(handle)


def in_use(below: Path, prefix: str) -> bool:
    """True where somebody uses a folder of ``prefix``."""
    for place in below.glob(f"{prefix}*"):
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(handle)
    return False


def _new(below: Path, prefix: str) -> tuple[Path, int]:
    while True:
        try:
            below.mkdir(parents=True, exist_ok=True)
            place = Path(tempfile.mkdtemp(dir=below, prefix=prefix))
        except OSError as error:
            raise DiskError(f"{below}: {error.strerror}", hint=ROOM_HINT) from error
        with contextlib.suppress(FileNotFoundError):  # swept by another before it was locked
            handle = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if place.exists():
                return place, handle
            os.close(handle)
