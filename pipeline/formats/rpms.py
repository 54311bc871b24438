"""RPM packages as files: lead, signature header, header, and a cpio archive in zstd, xz, gzip or bzip2.

Format: rpm's docs/manual/format_v4.md and format_header.md. Read in Python, as nothing of a package is ever run; an RPM
vouches for itself only as far as its header's digest and its payload's digest in that header go, so ``verify`` asks gpgv
about the header's signature where keys are given.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from ..core.errors import IntegrityError
from ..core.files import MAX_UNPACKED
from . import openpgp
from .unpacking import HINT, Entry, Window, damaged, exactly, inside, relative, unpacked

_LEAD: Final = b"\xed\xab\xee\xdb"
_HEADER: Final = b"\x8e\xad\xe8\x01"
_MAX_HEADER: Final = 256 << 20  # rpm's own limit (header.c, HEADER_DATA_MAX)
_MAX_ENTRIES: Final = 0xFFFF
_NAME, _VERSION, _RELEASE, _ARCH = 1000, 1001, 1002, 1022
_PAYLOAD_DIGEST, _PAYLOAD_FORMAT = 5092, 1124
_SIG_SHA256, _SIG_RSA, _SIG_DSA = 273, 268, 267
_READ: Final = {_NAME, _VERSION, _RELEASE, _ARCH, _PAYLOAD_DIGEST, _PAYLOAD_FORMAT, _SIG_SHA256, _SIG_RSA, _SIG_DSA}
"""Tags that are looked at here. A real header has a hundred; a made-up one 65,535, each of them the whole store."""
_STRINGS: Final = (6, 8, 9)
"""Types of a tag: one string, a list of strings, a list of translated strings; 7 is bytes."""
_CPIO: Final = (b"070701", b"070702")
_MAX_NAME: Final = 4096


class UnsignedError(IntegrityError):
    """A package that nobody signed, where keys are asked for."""


@dataclass(frozen=True)
class Rpm:
    """What one package says of itself. ``header`` are the bytes that ``signature`` is about; offsets are in the file."""

    name: str
    version: str
    release: str
    arch: str
    header: bytes
    signature: bytes
    header_sha256: str
    payload_sha256: str
    payload_at: int

    @property
    def nvra(self) -> str:
        """``kernel-devel-6.17.7-300.fc43.x86_64``."""
        return f"{self.name}-{self.version}-{self.release}.{self.arch}"


def read(path: Path) -> Rpm:
    """The package's headers.

    Raises IntegrityError for a file that is no RPM, is cut off, or whose header is not the one its digest is of.
    """
    what = path.name
    with path.open("rb") as file:
        lead = file.read(96)
        if len(lead) < 96 or lead[:4] != _LEAD:
            raise IntegrityError(f"{what} is not an RPM package", hint=HINT)
        signatures, _ = _header(file, what)
        file.seek(-file.tell() % 8, io.SEEK_CUR)
        tags, header = _header(file, what)
        payload_at = file.tell()
    texts = {tag: _text(tags, tag) for tag in (_NAME, _VERSION, _RELEASE, _ARCH)}
    if not all(texts.values()):
        raise IntegrityError(f"{what} does not say which package it is", hint=HINT)
    said = _text(signatures, _SIG_SHA256)
    if said and said != hashlib.sha256(header).hexdigest():
        raise IntegrityError(f"{what}: its header is not the one its digest is of", hint=HINT)
    if (form := _text(tags, _PAYLOAD_FORMAT)) not in ("", "cpio"):
        raise IntegrityError(f"{what} holds a payload of form '{form}', not cpio", hint=HINT)
    signature = signatures.get(_SIG_RSA) or signatures.get(_SIG_DSA)
    return Rpm(
        name=texts[_NAME],
        version=texts[_VERSION],
        release=texts[_RELEASE],
        arch=texts[_ARCH],
        header=header,
        signature=signature[1] if signature else b"",
        header_sha256=said,
        payload_sha256=_text(tags, _PAYLOAD_DIGEST),
        payload_at=payload_at,
    )


def installed(blob: bytes, what: str) -> tuple[str, str]:
    """(name, ``<version>-<release>.<arch>``) of an installed package, from its header as rpm's database keeps it.

    That is a header structure without its first eight bytes (rpm's lib/header.c, headerImport). Raises IntegrityError.
    """
    tags, _ = _header(io.BytesIO(_HEADER + bytes(4) + blob), what)
    name, version, release, arch = (_text(tags, tag) for tag in (_NAME, _VERSION, _RELEASE, _ARCH))
    return name, f"{version}-{release}.{arch}"


def verify(path: Path, keys: openpgp.Keys | None) -> Rpm:
    """The package, once its payload has the digest that its header says, and, with ``keys``, one of those signed the header.

    Raises IntegrityError where that is not so, UnsignedError of it where nobody signed. Packages without digests (before rpm
    4.14) are refused.
    """
    package = read(path)
    if not package.header_sha256 or not package.payload_sha256:
        raise IntegrityError(f"{path.name} carries no SHA-256 of its header and payload", hint="a package of 2018 or later does")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(package.payload_at)
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != package.payload_sha256:
        raise IntegrityError(f"{path.name}: its payload is not the one its header names", hint=HINT)
    if keys is not None:
        if not package.signature:
            raise UnsignedError(
                f"{path.name} is not signed", hint="Koji keeps unsigned builds too; another place has the signed one"
            )
        openpgp.verify(package.header, package.signature, keys, path.name)
    return package


def entries(path: Path, limit: int = MAX_UNPACKED) -> Iterator[Entry]:
    """Every file of the package in its order.

    Raises IntegrityError for a package that is damaged or cut off, unpacks to more than ``limit`` bytes, or whose names
    or links leave the tree.
    """
    package = read(path)
    with path.open("rb") as file:
        size = path.stat().st_size - package.payload_at
        payload = unpacked(cast("IO[bytes]", Window(file, package.payload_at, size, path.name)), path.name, limit)
        yield from damaged(path.name, _cpio(payload, path.name))


def _header(file: IO[bytes], what: str) -> tuple[Mapping[int, tuple[int, bytes]], bytes]:
    """Tags of one header structure (tag to type and bytes), and the structure's own bytes."""
    intro = exactly(file, 16, what)
    count, size = struct.unpack(">II", intro[8:])
    if intro[:4] != _HEADER or count > _MAX_ENTRIES or size > _MAX_HEADER:
        raise IntegrityError(f"{what} is not an RPM package: its header cannot be read", hint=HINT)
    index, store = exactly(file, 16 * count, what), exactly(file, size, what)
    places: dict[int, tuple[int, int, int]] = {}
    for tag, kind, offset, number in struct.iter_unpack(">IIII", index):
        if offset > size:
            raise IntegrityError(f"{what}: tag {tag} of its header lies outside of it", hint=HINT)
        if tag in _READ and (kind in _STRINGS or kind == 7):
            places[tag] = (kind, offset, number)
    tags = {}
    for tag, (kind, offset, number) in places.items():
        end = offset + number if kind == 7 else store.find(b"\0", offset)
        tags[tag] = (kind, store[offset : size if end < 0 else end])
    return tags, intro + index + store


def _text(tags: Mapping[int, tuple[int, bytes]], tag: int) -> str:
    kind, data = tags.get(tag, (0, b""))
    return data.decode("utf-8", "replace") if kind in _STRINGS else ""


def _cpio(stream: IO[bytes], what: str) -> Iterator[Entry]:
    """cpio "newc". Of files with several names only the last carries the bytes; the others come after it as hard links."""
    waiting: dict[tuple[int, int, int], list[str]] = {}
    while True:
        head = exactly(stream, 110, what)
        if head[:6] not in _CPIO:
            more = " (files of 4 GB and more)" if head[:6] == b"07070X" else ""
            raise IntegrityError(f"{what} holds an archive that is not cpio newc{more}", hint=HINT)
        if not head.isalnum():  # int() reads signs and spaces too
            raise IntegrityError(f"{what} is damaged: an entry of its archive cannot be read", hint=HINT)
        fields = [int(head[n : n + 8], 16) for n in range(6, 110, 8)]
        inode, mode, links, size = fields[0], fields[1], fields[4], fields[6]
        major, minor, length = fields[7], fields[8], fields[11]
        if not 1 <= length <= _MAX_NAME:
            raise IntegrityError(f"{what} holds a name of {length} bytes", hint=HINT)
        raw = exactly(stream, length + -(110 + length) % 4, what)[:length].rstrip(b"\0").decode("utf-8", "surrogateescape")
        if raw == "TRAILER!!!":
            break
        name = inside(raw, what)
        if not name:
            exactly(stream, size + -size % 4, what)
            continue
        key, permissions = (inode, major, minor), stat.S_IMODE(mode)
        if stat.S_ISREG(mode) and links > 1 and size == 0:
            waiting.setdefault(key, []).append(name)
            continue
        if stat.S_ISREG(mode):
            data = _Part(stream, size, what)
            yield Entry(name, permissions, "file", size, data=cast("IO[bytes]", data))
            data.skip()
            for other in waiting.pop(key, ()) if links > 1 else ():
                yield Entry(other, permissions, "hardlink", target=name)
        elif stat.S_ISDIR(mode):
            yield Entry(name, permissions, "directory")
        elif stat.S_ISLNK(mode) and size <= _MAX_NAME:
            text = exactly(stream, size + -size % 4, what)[:size].decode("utf-8", "surrogateescape")
            yield Entry(name, permissions, "link", target=relative(name, text, what))
        else:
            raise IntegrityError(f"{what} holds '{name}', a device or a pipe", hint=HINT)
    for names in waiting.values():  # empty files with several names
        for name in names:
            yield Entry(name, 0o644, "file", 0, data=io.BytesIO())
    with contextlib.suppress(EOFError):
        while stream.read(1 << 16):  # a bomb may hide behind the end, and a decoder checks its sums there
            pass


class _Part(io.RawIOBase):
    """``size`` bytes of a stream, padded to four, that must all be passed before the next header."""

    def __init__(self, stream: IO[bytes], size: int, what: str) -> None:
        self._stream, self._left, self._padding, self._what = stream, size, -size % 4, what

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._stream.read(min(self._left, len(view)))
        if not data and self._left and view:
            raise IntegrityError(f"{self._what} is cut off", hint=HINT)
        self._left -= len(data)
        view[: len(data)] = data
        return len(data)

    def skip(self) -> None:
        while self._left:
            self._left -= len(exactly(self._stream, min(self._left, 1 << 20), self._what))
        exactly(self._stream, self._padding, self._what)
