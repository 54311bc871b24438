"""A tar's members, read as what somebody else made: the formats of POSIX (ustar, pax) and GNU, but no files with holes.

Not by tarfile, which keeps every member and every record of a pax header, reads maps of holes whatever their size, calls itself
for each header that stands before a member, and takes a damaged header for the archive's end: a few bytes of gzip make it take
gigabytes, or end in a traceback. Here a member costs what an honest one does, and what is no tar is an error.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import IO, Final, cast

MAX_HEADER: Final = 1 << 20
"""Bytes of a long name or of a pax header, which are in memory at once. Linux knows no path beyond 4096."""
_BLOCK: Final = tarfile.BLOCKSIZE
_CHUNK: Final = 1 << 20
_PAX: Final = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_LONG: Final = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_WITHOUT_DATA: Final = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)
"""Types whose size, where they have one, says nothing of what follows."""
_LENGTH: Final = re.compile(rb"([0-9]{1,7}) ")
_SIZE: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_HOLES: Final = "GNU.sparse."


class Member(tarfile.TarInfo):
    """One member. ``data`` has what follows its header, to be read before the next one is asked for."""

    data: IO[bytes]
    has_holes = False


def members(stream: IO[bytes]) -> Iterator[Member]:
    """Yield the members of the plain tar ``stream``. Raises tarfile.TarError where it is none, or is cut off."""
    every: dict[str, str] = {}
    own: dict[str, str] = {}
    first = True
    while block := stream.read(_BLOCK):
        if not block.strip(b"\0"):
            break
        info = Member.frombuf(block, "utf-8", "surrogateescape")
        first = False
        if info.type in _PAX:
            own |= _records(_header(stream, info.size))
        elif info.type == tarfile.XGLTYPE:
            every |= _records(_header(stream, info.size))
        elif info.type in _LONG:
            own[_LONG[info.type]] = _header(stream, info.size).partition(b"\0")[0].decode("utf-8", "surrogateescape")
        else:
            _apply(info, every | own)
            own = {}
            size = 0 if info.type in _WITHOUT_DATA else max(info.size, 0)
            data = _Data(stream, size)
            info.data = cast("IO[bytes]", data)
            yield info
            data.skip(-size % _BLOCK)
    if first and not block:
        raise tarfile.ReadError("empty file")
    if own:
        raise tarfile.ReadError("it ends before a member whose header it has")


def _apply(info: Member, said: Mapping[str, str]) -> None:
    """Give ``info`` what the headers before it say."""
    info.has_holes = info.type == tarfile.GNUTYPE_SPARSE or _HOLES in said
    if "path" in said:
        info.name = said["path"].rstrip("/")
    if "linkpath" in said:
        info.linkname = said["linkpath"]
    if "size" in said:
        if not _SIZE.fullmatch(said["size"]):
            raise tarfile.ReadError("a size that is no number")
        info.size = int(said["size"])


def _header(stream: IO[bytes], size: int) -> bytes:
    if not 0 <= size <= MAX_HEADER:
        raise tarfile.ReadError(f"a header of {size} bytes")
    padded = size + -size % _BLOCK
    data = stream.read(padded)
    if len(data) != padded:
        raise tarfile.ReadError("unexpected end of data")
    return data[:size]


def _records(data: bytes) -> dict[str, str]:
    """Return those of a pax header that count here: ``<length> <keyword>=<value>`` and a newline each."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at]:
        length = _LENGTH.match(data, at)
        end = at + int(length[1]) if length else 0
        if not length or end > len(data) or end <= length.end() or data[end - 1] != 0x0A:
            raise tarfile.ReadError("a pax header that is damaged")
        keyword, equals, value = data[length.end() : end - 1].partition(b"=")
        if not equals:
            raise tarfile.ReadError("a pax header that is damaged")
        if keyword in (b"path", b"linkpath", b"size"):
            found[keyword.decode()] = value.decode("utf-8", "surrogateescape")
        elif keyword.startswith(_HOLES.encode()):
            found[_HOLES] = ""
        at = end
    return found


class _Data(io.RawIOBase):
    """The next ``size`` bytes of a stream that cannot go back. Raises ReadError where it ends before."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._left = stream, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._stream.read(min(self._left, len(view)))
        if not data and self._left and view:
            raise tarfile.ReadError("unexpected end of data")
        self._left -= len(data)
        view[: len(data)] = data
        return len(data)

    def skip(self, further: int) -> None:
        """Leave what is left, and ``further`` bytes."""
        self._left += further
        while self._left:
            data = self._stream.read(min(self._left, _CHUNK))
            if not data:
                raise tarfile.ReadError("unexpected end of data")
            self._left -= len(data)
