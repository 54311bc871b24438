"""The files of a layer, ours or a registry's: whoever may push there chose what it holds, so it is read as a vendor's archive is.

No name and no link leaves the tree, nothing is written through a link, there is no device, and no name stands there twice.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..core.errors import DiskError, IntegrityError
from ..core.files import MAX_UNPACKED
from .unpacking import HINT, Entry, damaged, from_tar, packing, put, unpacked, within


def entries(blob: Path, what: str, limit: int = MAX_UNPACKED) -> Iterator[Entry]:
    """What the layer at ``blob`` holds, in its order. Raises IntegrityError where it is not what a layer may be."""
    with _advised(blob), blob.open("rb") as file:
        yield from read(file, what, limit)


def read(file: IO[bytes], what: str, limit: int) -> Iterator[Entry]:
    """The same of an open one, from its beginning."""
    if kind := packing(file.read(8)).removeprefix("gz"):  # others' decoders take what memory the packed bytes ask for
        raise IntegrityError(f"{what} is packed by {kind}: a layer here is gzip", hint=HINT)
    file.seek(0)
    return damaged(what, _once(within(from_tar(unpacked(file, what, limit), what), limit, what), what))


def unpack(blob: Path, dest: Path, what: str, limit: int = MAX_UNPACKED) -> None:
    """Write the files of the layer at ``blob`` below ``dest``, over those of layers below it.

    Raises IntegrityError where it is not what a layer may be: nothing outside of ``dest`` was touched then.
    """
    try:
        dest.mkdir(parents=True, exist_ok=True)
        for entry in entries(blob, what, limit):
            with _advised(blob):
                _put(entry, dest, what)
    except OSError as error:
        raise DiskError(f"{error.filename or dest}: {error.strerror or error}", hint="free some disk space") from error


@contextmanager
def _advised(blob: Path) -> Iterator[None]:
    """Say of a layer, which nobody can fetch again, what to do where it is not what it may be."""
    try:
        yield
    except IntegrityError as error:
        hint = f"delete {blob} and, if it was pulled, the image with that layer in the registry, and run again"
        raise IntegrityError(error.message, hint=hint if error.hint == HINT else error.hint) from error


def _put(entry: Entry, dest: Path, what: str) -> None:
    try:
        put(entry, dest, what)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise IntegrityError(f"{what} holds '{entry.name[:60]}…', too long a name", hint=HINT) from error


def _once(found: Iterable[Entry], what: str) -> Iterator[Entry]:
    """``found``, with a name that stands there twice, or a hard link to no file before it, as an IntegrityError."""
    names: set[str] = set()
    files: set[str] = set()
    for entry in found:
        if entry.name in names:
            raise IntegrityError(f"{what} holds '{entry.name}' twice", hint=HINT)
        if entry.kind == "hardlink" and entry.target not in files:
            raise IntegrityError(f"{what} links '{entry.name}' to '{entry.target}', which it does not hold", hint=HINT)
        names.add(entry.name)
        if entry.kind in ("file", "hardlink"):
            files.add(entry.name)
        yield entry
