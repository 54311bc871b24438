"""Debian packages as files: an ``ar`` archive (deb(5)) that holds ``data.tar`` in xz, zstd, gzip or nothing.

Read in Python, so that one route serves every machine, with or without dpkg; nothing of a package is ever run here.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Final

import zstandard

from ..core.errors import DiskError, IntegrityError

_MAGIC: Final = b"!<arch>\n"
_HINT: Final = "it is damaged or made to be; remove it from the cache and run again"
Member = tuple[tarfile.TarInfo, IO[bytes] | None]


def members(deb: Path) -> Iterator[Member]:
    """Every entry of the package's data archive, in its order; names as they stand.

    Raises IntegrityError for a file that is no package.
    """
    try:
        with deb.open("rb") as file, _data(file, deb) as data, tarfile.open(fileobj=data, mode="r|") as tar:
            for info in tar:
                yield info, tar.extractfile(info) if info.isreg() else None
    except (tarfile.TarError, lzma.LZMAError, zstandard.ZstdError, zlib.error, EOFError, ValueError) as error:
        raise IntegrityError(f"{deb.name} cannot be read as a Debian package ({error})", hint=_HINT) from error


@contextlib.contextmanager
def _data(file: IO[bytes], deb: Path) -> Iterator[IO[bytes]]:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise IntegrityError(f"{deb.name} is not a Debian package", hint=_HINT)
    while header := file.read(60):
        if len(header) < 60 or header[58:] != b"`\n":
            break
        name, size = header[:16].decode("latin-1").strip().rstrip("/"), int(header[48:58])
        start = file.tell()
        if start + size > deb.stat().st_size:
            raise IntegrityError(f"{deb.name} is cut off", hint=_HINT)
        if name.startswith("data.tar"):
            part = _Window(file, start, size)
            kind = name.removeprefix("data.tar")
            if kind == ".xz":
                with lzma.LZMAFile(part) as data:  # type: ignore[arg-type]
                    yield data
            elif kind == ".zst":
                yield zstandard.ZstdDecompressor().stream_reader(part)  # type: ignore[arg-type]
            elif kind == ".gz":
                import gzip

                with gzip.GzipFile(fileobj=part) as unzipped:
                    yield unzipped  # type: ignore[misc]
            elif kind == "":
                yield part  # type: ignore[misc]
            else:
                break
            return
        file.seek(start + size + size % 2)
    raise IntegrityError(f"{deb.name} holds no data archive that can be read", hint=_HINT)


class _Window(io.RawIOBase):
    """Bytes ``start`` to ``start + size`` of a file as a file."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._left = file, size
        file.seek(start)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data

    def readinto(self, buffer: object) -> int:
        data = self.read(len(buffer))  # type: ignore[arg-type]
        buffer[: len(data)] = data  # type: ignore[index]
        return len(data)


def unpack(deb: Path, dest: Path, select: Callable[[str], bool] | None = None) -> list[Path]:
    """Put the package's files below ``dest``: modes, links and hard links as they are; owner and time are not kept.

    ``select`` gets each name without a leading ``./``. A directory that is a link in ``dest`` (merged /usr) is followed
    where it stays inside. Returns the paths written. Raises IntegrityError for a name or link target that leaves
    ``dest``, DiskError where the disk refuses.
    """
    dest.mkdir(parents=True, exist_ok=True)
    root = dest.resolve()
    written: list[Path] = []
    try:
        for info, data in members(deb):
            name = _inside(info.name, deb)
            if name and (select is None or info.isdir() or select(name)) and not (select and info.isdir()):
                written.append(_put(info, data, name, root, deb))
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        where = Path(error.filename or dest).name
        raise IntegrityError(f"{deb.name} holds '{where}' where another kind of file is", hint=_HINT) from error
    except RuntimeError as error:  # pathlib's word for links that lead to each other
        raise IntegrityError(f"{deb.name} holds a link that leads to itself", hint=_HINT) from error
    except OSError as error:
        raise DiskError(f"{error.filename or dest}: {error.strerror}", hint="free some disk space") from error
    return written


def _inside(name: str, deb: Path) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise IntegrityError(f"{deb.name} holds the name '{name}', which leaves the tree", hint=_HINT)
    return "/".join(parts)


def _folder(name: str, root: Path, deb: Path) -> Path:
    """The directory in which ``name`` is to lie, made where it is not there; never one outside ``root``."""
    place = root
    for part in name.split("/")[:-1]:
        place /= part
        if place.is_symlink():
            place = place.resolve()
            if not place.is_relative_to(root):
                raise IntegrityError(f"{deb.name} holds '{name}', which leaves the tree through a link", hint=_HINT)
        place.mkdir(parents=True, exist_ok=True)
    return place


def _put(info: tarfile.TarInfo, data: IO[bytes] | None, name: str, root: Path, deb: Path) -> Path:
    place = _folder(name, root, deb) / Path(name).name
    if info.isdir():
        if not place.is_dir():
            place.mkdir()
            place.chmod(info.mode & 0o7777)
        return place
    if place.is_symlink() or place.exists():
        place.unlink()
    if info.issym():
        if os.path.normpath(f"{Path(name).parent}/{info.linkname}").startswith("../"):
            raise IntegrityError(f"{deb.name} links '{name}' to '{info.linkname}', outside the tree", hint=_HINT)
        place.symlink_to(info.linkname)
    elif info.islnk():
        inner = _inside(info.linkname, deb)
        target = _folder(inner, root, deb) / Path(inner).name
        if target.is_dir() or not (target.is_symlink() or target.exists()):
            raise IntegrityError(f"{deb.name} links '{name}' to '{info.linkname}', which it does not hold", hint=_HINT)
        os.link(target, place, follow_symlinks=False)
    elif info.isreg() and data is not None:
        with place.open("wb") as out:
            shutil.copyfileobj(data, out, 1 << 20)
        place.chmod(info.mode & 0o7777)
    else:
        raise IntegrityError(f"{deb.name} holds '{info.name}', a device or a pipe", hint=_HINT)
    return place
