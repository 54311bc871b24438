"""NVIDIA's redist archives: packed tars with all members below one directory, which is named like the archive.

``nvidia_driver-linux-x86_64-580.95.05-archive.tar.xz`` holds ``nvidia_driver-linux-x86_64-580.95.05-archive/bin/…``; so the
version that an archive is of stands in each of its names, and is held against the archive's own.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Final, cast

from ..core.errors import IntegrityError
from ..core.files import MAX_UNPACKED
from .unpacking import HINT, Entry, damaged, from_tar, unpacked, within

_NAME: Final = re.compile(r"((?:nvidia_driver|fabricmanager)-linux-[a-z0-9_]+-([0-9.]+)-archive)\.tar\.xz")


def version(name: str) -> str:
    """The version in an archive's name. Raises IntegrityError for a name that is none."""
    return _parts(name)[1]


def _parts(name: str) -> tuple[str, str]:
    match = _NAME.fullmatch(name)
    if not match:
        raise IntegrityError(f"{name} is not named like a redist archive", hint="is it one?")
    return match[1], match[2]


def entries(path: Path, limit: int = MAX_UNPACKED) -> Iterator[Entry]:
    """Every member without the directory that all lie in.

    Raises IntegrityError for an archive that is damaged or cut off, unpacks to more than ``limit`` bytes, whose names or
    links leave the tree, or that holds anything outside of its directory, such as another version.
    """
    top = _parts(path.name)[0]
    with path.open("rb") as file:
        stream = unpacked(cast("IO[bytes]", file), path.name, limit)
        for entry in damaged(path.name, within(from_tar(stream, path.name), limit, path.name)):
            if entry.name == top:
                continue
            name = _below(entry.name, top, path.name)
            if entry.kind == "link":
                _below(posixpath.normpath(posixpath.join(posixpath.dirname(entry.name), entry.target)), top, path.name)
            target = _below(entry.target, top, path.name) if entry.kind == "hardlink" else entry.target
            yield replace(entry, name=name, target=target)


def _below(name: str, top: str, what: str) -> str:
    folder, _, rest = name.partition("/")
    if folder != top or not rest:
        raise IntegrityError(f"{what} holds '{name}', which is not below {top}", hint=HINT)
    return rest


def read(path: Path, limit: int = MAX_UNPACKED) -> dict[str, int]:
    """The size of every file there is, by name. One pass; raises as ``entries`` does."""
    return {entry.name: entry.size for entry in entries(path, limit) if entry.kind == "file"}
