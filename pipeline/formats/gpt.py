"""Disk images, such as Flatcar's developer container: a GPT disk, packed with bzip2, whose root is one ext4 file system.

Read without a mount and without root: unpacked to a sparse file, then the table (UEFI specification, 5.3), then ext4.
The image has one partition, ROOT (flatcar/scripts, build_library/disk_layout.json, layout "container").
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from ..core.errors import DiskError, IntegrityError
from ..core.files import MAX_UNPACKED
from .ext4 import SUPERBLOCK_AT, Ext4
from .unpacking import DAMAGE, HINT, Entry, unpacked, within

_SECTOR: Final = 512
_BLOCK: Final = 1 << 20
_MAX_PARTITIONS: Final = 1024


@dataclass(frozen=True)
class Partition:
    """One partition: its name, and its place in bytes."""

    name: str
    start: int
    size: int


def partitions(file: IO[bytes], what: str) -> list[Partition]:
    """What the disk's GUID partition table lists. Raises IntegrityError where there is none, or it is damaged."""
    file.seek(0, os.SEEK_END)
    end = file.tell()
    file.seek(_SECTOR)
    header = file.read(92)
    if len(header) < 92 or header[:8] != b"EFI PART":
        raise IntegrityError(f"{what} is not a disk image with a GUID partition table", hint=HINT)
    length, checksum = struct.unpack_from("<II", header, 12)
    plain = header[:16] + bytes(4) + header[20:length]
    if not 92 <= length <= _SECTOR or (length == 92 and zlib.crc32(plain) != checksum):
        raise IntegrityError(f"{what}: its partition table is damaged", hint=HINT)
    at, count, width = struct.unpack_from("<QII", header, 72)
    if count > _MAX_PARTITIONS or not 128 <= width <= 4096 or at * _SECTOR > end:
        raise IntegrityError(f"{what}: its partition table is damaged", hint=HINT)
    file.seek(at * _SECTOR)
    table = file.read(count * width)
    found = []
    for number in range(len(table) // width):
        entry = table[number * width : number * width + 128]
        first, last = struct.unpack_from("<QQ", entry, 32)
        if entry[:16] == bytes(16):
            continue
        name = entry[56:128].decode("utf-16-le", "replace").split("\0", 1)[0]
        if last < first or (last + 1) * _SECTOR > end:
            raise IntegrityError(f"{what} is cut off: partition '{name}' ends after it", hint=HINT)
        found.append(Partition(name, first * _SECTOR, (last + 1 - first) * _SECTOR))
    return found


@contextlib.contextmanager
def opened(path: Path, scratch: Path, limit: int = MAX_UNPACKED) -> Iterator[Ext4]:
    """The root file system of the disk image ``path``, packed or not; it is unpacked into ``scratch`` for that time.

    Raises IntegrityError for what is no such image or unpacks to more than ``limit`` bytes, DiskError.
    """
    what = path.name
    try:
        with path.open("rb") as packed, tempfile.TemporaryFile(dir=scratch) as disk:
            _unpack(packed, disk, what, limit)
            yield _root(disk, what)
    except (*DAMAGE, ValueError, struct.error) as error:
        raise IntegrityError(f"{what} is damaged ({error})", hint=HINT) from error
    except OSError as error:
        if error.errno is None:
            raise IntegrityError(f"{what} is damaged ({error})", hint=HINT) from error
        raise DiskError(f"{error.filename or scratch}: {error.strerror}", hint="free some disk space") from error


def _unpack(packed: IO[bytes], disk: IO[bytes], what: str, limit: int) -> None:
    stream = unpacked(packed, what, limit)
    while block := stream.read(_BLOCK):
        if block.count(0) == len(block):
            disk.seek(len(block), os.SEEK_CUR)  # most of it is empty: holes cost nothing
        else:
            disk.write(block)
    disk.truncate()


def _root(disk: IO[bytes], what: str) -> Ext4:
    """The file system named ROOT, else the only one."""
    candidates = []
    for partition in partitions(disk, what):
        disk.seek(partition.start + SUPERBLOCK_AT + 56)
        if disk.read(2) == b"\x53\xef":
            candidates.append((partition.name, Ext4(disk, partition.start, what)))
    named = [system for name, system in candidates if name == "ROOT" or system.label == "ROOT"]
    chosen = named or [system for _, system in candidates]
    if len(chosen) != 1:
        raise IntegrityError(f"{what} has {len(chosen)} ext4 partitions that may be its root, not one", hint=HINT)
    return chosen[0]


def entries(path: Path, directories: list[str], scratch: Path, limit: int = MAX_UNPACKED) -> Iterator[Entry]:
    """Everything below ``directories`` of the image's root, each once, under real names. Raises as ``opened`` does."""
    with opened(path, scratch, limit) as root:
        yield from within((entry for directory in directories for entry in root.walk(directory)), limit, path.name)
