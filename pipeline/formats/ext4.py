"""Reads an ext2, ext3 or ext4 file system out of a file: no mount, no root, nothing of it is run.

Layout: Linux Documentation/filesystems/ext4. Only what reading needs; checksums and the journal are left alone, as a
vendor's image is cleanly unmounted and its own hash is pinned. (debugfs could dump a tree as well, but writes each name
of a directory entry to the disk as it stands.)
"""

from __future__ import annotations

import io
import posixpath
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final, cast

from ..core.errors import IntegrityError
from .unpacking import HINT, Entry, relative

SUPERBLOCK_AT: Final = 1024
_MAGIC: Final = 0xEF53
_ROOT: Final = 2
_FARTHEST: Final = 1 << 48
"""Bytes from the start at which nothing lies: a damaged number, which seek() would refuse in its own words."""
_EXTENTS, _INLINE, _ENCRYPTED = 0x80000, 0x10000000, 0x800
_INCOMPAT_64BIT, _INCOMPAT_META_BG, _INCOMPAT_JOURNAL_DEV = 0x80, 0x10, 0x8
_MAX_DEPTH: Final = 5
_MAX_FOLDERS: Final = 64
_MAX_LINKS: Final = 16


@dataclass(frozen=True)
class _Inode:
    mode: int
    size: int
    flags: int
    block: bytes


class Ext4:
    """One file system in ``file``, from byte ``start`` on. Raises IntegrityError where it is none, or damaged."""

    def __init__(self, file: IO[bytes], start: int, what: str) -> None:
        self._file, self._start, self._what = file, start, what
        head = self._read(SUPERBLOCK_AT, 1024)
        if struct.unpack_from("<H", head, 56)[0] != _MAGIC:
            raise IntegrityError(f"{what} holds no ext4 file system at byte {start}", hint=HINT)
        log_size, per_group, self._per_group = (struct.unpack_from("<I", head, at)[0] for at in (24, 32, 40))
        incompatible = struct.unpack_from("<I", head, 96)[0]
        revision = struct.unpack_from("<I", head, 76)[0]
        self._inode_size = struct.unpack_from("<H", head, 88)[0] if revision else 128
        if log_size > 6 or not per_group or not self._per_group or not 128 <= self._inode_size <= 4096:
            raise self._bad("its superblock cannot be")
        if incompatible & (_INCOMPAT_META_BG | _INCOMPAT_JOURNAL_DEV):
            raise self._bad("it uses a layout that is not read here (meta_bg)")
        self._block = 1024 << log_size
        self._inodes = struct.unpack_from("<I", head, 0)[0]
        self._wide = bool(incompatible & _INCOMPAT_64BIT)
        self._descriptor = max(32, struct.unpack_from("<H", head, 254)[0]) if self._wide else 32
        self._table = (struct.unpack_from("<I", head, 20)[0] + 1) * self._block
        self.label = head[120:136].split(b"\0", 1)[0].decode("utf-8", "replace")

    def _bad(self, why: str) -> IntegrityError:
        return IntegrityError(f"{self._what}: {why}", hint=HINT)

    def _read(self, at: int, size: int) -> bytes:
        data = b""
        if at < _FARTHEST:
            self._file.seek(self._start + at)
            data = self._file.read(size)
        if len(data) != size:
            raise IntegrityError(f"{self._what} is cut off", hint=HINT)
        return data

    def _inode(self, number: int) -> _Inode:
        if not 0 < number <= self._inodes:
            raise self._bad(f"inode {number} is not in it")
        group, index = divmod(number - 1, self._per_group)
        descriptor = self._read(self._table + group * self._descriptor, self._descriptor)
        table = struct.unpack_from("<I", descriptor, 8)[0]
        if self._wide and self._descriptor >= 64:
            table |= struct.unpack_from("<I", descriptor, 40)[0] << 32
        raw = self._read(table * self._block + index * self._inode_size, 128)
        mode, low, flags, high = (
            struct.unpack_from(form, raw, at)[0] for form, at in (("<H", 0), ("<I", 4), ("<I", 32), ("<I", 108))
        )
        if flags & (_INLINE | _ENCRYPTED):
            raise self._bad("it uses inline data or encryption, which is not read here")
        return _Inode(mode, low | (high << 32 if stat.S_ISREG(mode) else 0), flags, raw[40:100])

    def _runs(self, inode: _Inode) -> Iterator[tuple[int, int, int]]:
        """(first block of the file, count, block of the disk or 0 for a hole), in order."""
        blocks = -(-inode.size // self._block)
        found = self._extents(inode.block, _MAX_DEPTH) if inode.flags & _EXTENTS else self._mapped(inode.block, blocks)
        at = 0
        for first, count, place in found:
            if first < at:
                raise self._bad("a file's blocks overlap")
            if first >= blocks:
                break
            if first > at:
                yield at, first - at, 0
            count = min(count, blocks - first)  # noqa: PLW2901 - blocks may be kept beyond a file's end
            yield first, count, place
            at = first + count
        if at < blocks:
            yield at, blocks - at, 0

    def _extents(self, node: bytes, depth: int) -> Iterator[tuple[int, int, int]]:
        magic, count, _, level = struct.unpack_from("<HHHH", node, 0)
        if magic != 0xF30A or level > depth or (count + 1) * 12 > len(node):
            raise self._bad("a file's extents cannot be read")
        if not count and depth < _MAX_DEPTH:  # a tree of empty tables has no end that anyone lives to see
            raise self._bad("a file's extents cannot be read")
        for number in range(1, count + 1):
            entry = node[number * 12 : number * 12 + 12]
            if level:
                low, high = struct.unpack_from("<IH", entry, 4)
                yield from self._extents(self._read((low | high << 32) * self._block, self._block), level - 1)
            else:
                first, length, high, low = struct.unpack("<IHHI", entry)
                if not length:
                    raise self._bad("a file's extents cannot be read")
                unwritten = length > 0x8000
                yield first, length - 0x8000 if unwritten else length, 0 if unwritten else low | high << 32

    def _mapped(self, table: bytes, blocks: int) -> Iterator[tuple[int, int, int]]:
        """ext2's block map: twelve blocks, then one, two and three levels of tables; those behind the file's end are not read."""
        places = struct.unpack("<15I", table)
        width = self._block // 4
        for number, place in enumerate(places[:12]):
            if place:
                yield number, 1, place
        first = 12
        for level in (1, 2, 3):
            yield from self._indirect(places[11 + level], level, first, blocks)
            first += width**level

    def _indirect(self, place: int, level: int, first: int, blocks: int) -> Iterator[tuple[int, int, int]]:
        if not place or first >= blocks:
            return
        width = self._block // 4
        for number, inner in enumerate(struct.unpack(f"<{width}I", self._read(place * self._block, self._block))):
            if inner and level == 1:
                yield first + number, 1, inner
            elif inner:
                yield from self._indirect(inner, level - 1, first + number * width ** (level - 1), blocks)

    def _content(self, inode: _Inode) -> Iterator[bytes]:
        left = inode.size
        for _, count, place in self._runs(inode):
            for done in range(0, count, 256):
                size = min(left, min(256, count - done) * self._block)
                yield self._read((place + done) * self._block, size) if place else bytes(size)
                left -= size

    def _folder(self, inode: _Inode) -> dict[str, int]:
        """Names and inodes of a directory; a hashed one reads like a plain one, its index lies in unused entries."""
        if inode.size > 64 << 20:
            raise self._bad("a directory of more than 64 MiB")
        data = b"".join(self._content(inode))
        names: dict[str, int] = {}
        at = 0
        while at + 8 <= len(data):
            number, length, name_length = struct.unpack_from("<IHB", data, at)
            if length < 8 or length % 4 or at + length > len(data) or name_length > length - 8:
                raise self._bad("a directory cannot be read")
            name = data[at + 8 : at + 8 + name_length].decode("utf-8", "surrogateescape")
            if number and name not in (".", ".."):
                if not name or "/" in name or "\0" in name:
                    raise self._bad(f"a directory holds the name '{name}', which leaves the tree")
                names[name] = number
            at += length
        return names

    def _target(self, inode: _Inode) -> str:
        if inode.size > 4096:
            raise self._bad("a link of more than 4096 bytes")
        fast = inode.size < 60 and not inode.flags & _EXTENTS
        data = inode.block[: inode.size] if fast else b"".join(self._content(inode))
        return data.decode("utf-8", "surrogateescape")

    def resolve(self, path: str) -> tuple[str, int] | None:
        """The real path of ``path`` and its inode, links followed within the file system; None where it is not there."""
        todo, done, links = [part for part in path.split("/") if part], [("", _ROOT)], 0
        while todo:
            part = todo.pop(0)
            if part in (".", ".."):
                done = done[:-1] if part == ".." and len(done) > 1 else done
                continue
            folder = self._inode(done[-1][1])
            number = self._folder(folder).get(part) if stat.S_ISDIR(folder.mode) else None
            if number is None:
                return None
            inode = self._inode(number)
            if stat.S_ISLNK(inode.mode):
                links += 1
                if links > _MAX_LINKS:
                    raise self._bad(f"links lead in a circle at '{path}'")
                target = self._target(inode)
                todo = [p for p in target.split("/") if p] + todo
                done = done[:1] if target.startswith("/") else done
                continue
            done.append((part, number))
        return "/".join(name for name, _ in done[1:]), done[-1][1]

    def names(self, path: str) -> list[str]:
        """The names in directory ``path``, sorted; none where it is no directory."""
        found = self.resolve(path)
        inode = self._inode(found[1]) if found else None
        return sorted(self._folder(inode)) if inode and stat.S_ISDIR(inode.mode) else []

    def walk(self, path: str) -> Iterator[Entry]:
        """Everything in directory ``path`` and below, sorted, under its real name. Raises IntegrityError."""
        found = self.resolve(path)
        if found is not None:
            yield from self._walk(*found, 1, {found[1]}, {})

    def _walk(self, path: str, number: int, depth: int, folders: set[int], files: dict[int, str]) -> Iterator[Entry]:
        """``folders`` and ``files``: the inodes that were there before; a directory has one place, a file may have several."""
        if depth > _MAX_FOLDERS:
            raise self._bad(f"directories more than {_MAX_FOLDERS} deep")
        for name, inner in sorted(self._folder(self._inode(number)).items()):
            whole, inode = posixpath.join(path, name), self._inode(inner)
            mode = stat.S_IMODE(inode.mode)
            if stat.S_ISDIR(inode.mode):
                if inner in folders:
                    raise self._bad(f"directory '{whole}' has another place too, or holds itself")
                folders.add(inner)
                yield Entry(whole, mode, "directory")
                yield from self._walk(whole, inner, depth + 1, folders, files)
            elif stat.S_ISLNK(inode.mode):
                yield Entry(whole, mode, "link", target=relative(whole, self._target(inode), self._what))
            elif not stat.S_ISREG(inode.mode):
                raise self._bad(f"'{whole}' is a device or a pipe")
            elif inner in files:
                yield Entry(whole, mode, "hardlink", target=files[inner])
            else:
                files[inner] = whole
                stream = io.BufferedReader(_Chunks(self._content(inode)), 1 << 20)
                yield Entry(whole, mode, "file", inode.size, data=cast("IO[bytes]", stream))


class _Chunks(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        if not self._rest:
            self._rest = next(self._chunks, b"")
        size = min(len(view), len(self._rest))
        view[:size], self._rest = self._rest[:size], self._rest[size:]
        return size
