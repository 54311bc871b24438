"""The headers of a tar, none of which takes more memory than an honest one: a few bytes of gzip can stand for gigabytes."""

from __future__ import annotations

import tarfile
from typing import Final, Self

MAX_HEADER: Final = 1 << 20
"""Bytes of a long name or of a pax header, which tarfile reads into memory at once. Linux knows no path beyond 4096."""
_READ_AT_ONCE: Final = frozenset(
    (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
)


class Info(tarfile.TarInfo):
    """What tarfile is told to read each header as."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """As tarfile does. Raises ReadError for one that takes too much memory."""
        info = super().frombuf(buf, encoding, errors)
        if info.type in _READ_AT_ONCE and not 0 <= info.size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header of {info.size} bytes")
        return info
