"""What every archive reader shares: entries with checked names, a limit on what they unpack to, and two places to put them.

A reader yields ``Entry`` records in the archive's order and never writes. What is written goes into a tar of ours or
below one directory; either is there whole or not at all. An absolute link is one inside the archive's own root, as it
would be after an installation; a link that climbs out of that root is refused, as is a name that does.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import posixpath
import shutil
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final, Literal, cast

import zstandard

from ..core.errors import DiskError, IntegrityError
from ..core.files import MAX_NAME, MAX_NAMES, MAX_UNPACKED
from .tar_headers import members

HINT: Final = "it is damaged or made to be: nothing of it is kept; fetch it again"
DAMAGE: Final = (tarfile.TarError, lzma.LZMAError, zstandard.ZstdError, zlib.error, EOFError, struct.error)
"""What decoders raise for bytes that are not what they should be (bz2 raises OSError and ValueError)."""
MAX_DEPTH: Final = 100
"""Parts of one name. Kernel trees have 15; who makes and removes folders goes down by recursion, which ends at about 1000."""
_BLOCK: Final = 1 << 20
_MAGICS: Final = ((b"\x1f\x8b", "gz"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bz2"), (b"\x28\xb5\x2f\xfd", "zst"))


@dataclass(frozen=True)
class Entry:
    """One member. ``name`` is relative and checked; ``target`` is a link's text, or a hard link's name in the archive.

    ``data`` is there for files, must be read before the next entry is asked for, and has ``size`` bytes.
    """

    name: str
    mode: int
    kind: Literal["file", "directory", "link", "hardlink"]
    size: int = 0
    target: str = ""
    data: IO[bytes] | None = None


class Bounded(io.RawIOBase):
    """A stream that gives at most ``limit`` bytes; more is a bomb, and an IntegrityError."""

    def __init__(self, source: IO[bytes], limit: int, what: str) -> None:
        self._source, self._limit, self._what, self._count = source, limit, what, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: object) -> int:
        """The next bytes."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        try:
            data = self._source.read(len(view))
        except (*DAMAGE, ValueError) as error:
            raise IntegrityError(f"{self._what} is damaged or cut off ({error})", hint=HINT) from error
        except OSError as error:
            if error.errno is None:  # bz2's and gzip's word for damaged data
                raise IntegrityError(f"{self._what} is damaged ({error})", hint=HINT) from error
            raise
        self._count += len(data)
        if self._count > self._limit:
            raise _too_large(self._what, self._limit)
        view[: len(data)] = data
        return len(data)


class _Shared(io.RawIOBase):
    """A file that stays open when what reads from it is closed or dropped."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._file.read(len(view))
        view[: len(data)] = data
        return len(data)


class Window(io.RawIOBase):
    """Bytes ``start`` to ``start + size`` of a file as a file; a file that ends before is an IntegrityError."""

    def __init__(self, file: IO[bytes], start: int, size: int, what: str) -> None:
        self._file, self._left, self._what = file, size, what
        file.seek(start)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: object) -> int:
        """The next bytes."""
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self._file.read(min(self._left, len(view)))
        if not data and self._left and view:
            raise IntegrityError(f"{self._what} is cut off", hint=HINT)
        self._left -= len(data)
        view[: len(data)] = data
        return len(data)


def packing(head: bytes) -> str:
    """``gz``, ``xz``, ``bz2`` or ``zst`` by the first bytes; "" for what is not packed."""
    return next((name for magic, name in _MAGICS if head.startswith(magic)), "")


def unpacked(file: IO[bytes], what: str, limit: int = MAX_UNPACKED) -> IO[bytes]:
    """The plain bytes of a stream that may be packed; how, its first bytes say. More than ``limit`` raises IntegrityError."""
    buffered = io.BufferedReader(_Shared(file), _BLOCK)
    kind = packing(buffered.peek(8)[:8])
    source: IO[bytes] = buffered
    if kind == "gz":
        source = cast("IO[bytes]", gzip.GzipFile(fileobj=buffered))
    elif kind == "xz":
        source = cast("IO[bytes]", lzma.LZMAFile(buffered))  # noqa: SIM115 - the caller reads it and drops it
    elif kind == "bz2":
        source = cast("IO[bytes]", bz2.BZ2File(buffered))
    elif kind == "zst":
        decoder = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        source = cast("IO[bytes]", decoder.stream_reader(buffered, read_across_frames=True))
    return io.BufferedReader(Bounded(source, limit, what), _BLOCK)


def exactly(stream: IO[bytes], size: int, what: str) -> bytes:
    """``size`` bytes of ``stream``. Raises IntegrityError where it ends before."""
    data = stream.read(size)
    if len(data) != size:
        raise IntegrityError(f"{what} is cut off", hint=HINT)
    return data


def inside(name: str, what: str) -> str:
    """``name`` without ``./`` and doubled slashes; "" for the root itself. Raises IntegrityError for one that leaves it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise IntegrityError(f"{what} holds the name '{name}', which leaves the tree", hint=HINT)
    if len(parts) > MAX_DEPTH or len(name) > MAX_NAME:
        raise IntegrityError(f"{what} holds '{name[:60]}…', too long a name", hint=HINT)
    return "/".join(parts)


def relative(name: str, target: str, what: str) -> str:
    """A link's text as one that holds under any root. Raises IntegrityError where it climbs out of the archive's root."""
    folder = posixpath.dirname(name)
    if not 0 < len(target) <= MAX_NAME or "\0" in target:
        raise IntegrityError(f"{what} links '{name}' to '{target[:60]}', which is no name", hint=HINT)
    if target.startswith("/"):
        return posixpath.relpath(posixpath.normpath("/" + target.lstrip("/")), "/" + folder)
    if posixpath.normpath(f"{folder}/{target}" if folder else target).split("/")[0] == "..":
        raise IntegrityError(f"{what} links '{name}' to '{target}', outside the tree", hint=HINT)
    # A way up after a way down may follow another link first, and lead out then: it is kept as where the text leads.
    plain = posixpath.normpath(target)
    return target if plain.split("/").count("..") == target.split("/").count("..") else plain


def from_tar(stream: IO[bytes], what: str) -> Iterator[Entry]:
    """The entries of a plain tar. Raises IntegrityError for what is none, devices, holes, and names that leave it."""
    try:
        for info in members(stream):
            if not (name := inside(info.name, what)):
                continue
            mode = info.mode & 0o7777
            if info.size < 0:  # it would make room for as much below the limit
                raise IntegrityError(f"{what} holds '{info.name}' with a size of {info.size}", hint=HINT)
            if info.has_holes:
                raise IntegrityError(f"{what} holds '{info.name}' with holes in it, which is not read", hint=HINT)
            if info.isdir():
                yield Entry(name, mode, "directory")
            elif info.issym():
                yield Entry(name, mode, "link", target=relative(name, info.linkname, what))
            elif info.islnk() and inside(info.linkname, what) == name:
                continue  # what tar writes for a file that it was told twice: it is there already
            elif info.islnk():
                yield Entry(name, mode, "hardlink", target=inside(info.linkname, what))
            elif info.isreg():
                data = io.BufferedReader(Bounded(info.data, info.size, what), _BLOCK)  # who reads it is outside of this try
                yield Entry(name, mode, "file", info.size, data=data)
            else:
                raise IntegrityError(f"{what} holds '{info.name}', a device or a pipe", hint=HINT)
    except (*DAMAGE, ValueError) as error:
        raise IntegrityError(f"{what} cannot be read as an archive ({error})", hint=HINT) from error


def damaged(what: str, entries: Iterator[Entry]) -> Iterator[Entry]:
    """``entries``, with what a decoder says of damaged bytes as an IntegrityError of one line."""
    try:
        yield from entries
    except (*DAMAGE, ValueError) as error:
        raise IntegrityError(f"{what} is damaged ({error})", hint=HINT) from error
    except OSError as error:
        if error.errno is None:  # bz2's and gzip's word for damaged data
            raise IntegrityError(f"{what} is damaged ({error})", hint=HINT) from error
        raise DiskError(f"{error.filename or what}: {error.strerror}", hint="free some disk space") from error


def within(entries: Iterable[Entry], limit: int, what: str) -> Iterator[Entry]:
    """``entries``, which as a tar have at most about ``limit`` bytes, and ``MAX_NAMES`` of names; more raises IntegrityError.

    The bytes that were unpacked say too little: a hole in a file of a file system has none, and its directories can share one
    block of names.
    """
    count = names = 0
    for entry in entries:
        count += tarfile.BLOCKSIZE + entry.size
        if count > limit:
            raise _too_large(what, limit)
        if (names := names + 64 + len(entry.name) + len(entry.target)) > MAX_NAMES:
            raise IntegrityError(f"{what} holds more names than {MAX_NAMES} bytes have room for", hint=HINT)
        yield entry


def _too_large(what: str, limit: int) -> IntegrityError:
    return IntegrityError(
        f"{what} unpacks to more than {limit} bytes", hint="raise max_unpacked in versions.toml if that is right"
    )


def renamed(entries: Iterable[Entry], name: Callable[[str], str]) -> Iterator[Entry]:
    """``entries`` under other names; one whose new name is "" is left out.

    Raises IntegrityError for a hard link that stays to one that is left out.
    """
    for entry in entries:
        if new := name(entry.name):
            if entry.kind == "hardlink":
                if not (target := name(entry.target)):
                    raise IntegrityError(f"'{entry.name}' is another name of '{entry.target}', which is not taken", hint=HINT)
                yield replace(entry, name=new, target=target)
            else:
                yield replace(entry, name=new)


def to_tar(entries: Iterable[Entry], dest: Path) -> Path:
    """A tar at ``dest`` with ``entries`` in their order, owned by root, at time 0; whole or not at all.

    Directories are left out: unpacking makes them, and one over a link (merged /usr) would replace it. A hard link whose
    file is not in the tar before it is an IntegrityError: whoever unpacks it would link to a file of his own, or fail.
    """
    dest.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(dest) as scratch:
        with tarfile.open(scratch, mode="w", format=tarfile.PAX_FORMAT) as tar:
            files: set[str] = set()
            for entry in entries:
                info = tarfile.TarInfo(entry.name)
                info.mode = entry.mode
                if entry.kind == "hardlink" and entry.target not in files:
                    words = f"'{entry.name}' is another name of '{entry.target}', which does not come before it"
                    raise IntegrityError(f"what {dest.name} is made of is damaged: {words}", hint=HINT)
                if entry.kind in ("file", "hardlink"):
                    files.add(entry.name)
                else:
                    files.discard(entry.name)
                if entry.kind == "file":
                    info.size = entry.size
                    tar.addfile(info, entry.data)
                elif entry.kind != "directory":
                    info.type = tarfile.SYMTYPE if entry.kind == "link" else tarfile.LNKTYPE
                    info.linkname = entry.target
                    tar.addfile(info)
        os.replace(scratch, dest)
    return dest


class _scratch:  # noqa: N801 - a context manager that reads as a word
    """A file or directory beside ``dest`` that is gone when the block ends, unless it was moved."""

    def __init__(self, dest: Path, *, directory: bool = False) -> None:
        self._dest, self._directory = dest, directory

    def __enter__(self) -> Path:
        self._folder = Path(tempfile.mkdtemp(dir=self._dest.parent, prefix=f".{self._dest.name}."))
        self._place = self._folder / "part"
        if self._directory:
            self._place.mkdir()
        return self._place

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno is None:  # tarfile's word for a member that ends too early
            raise IntegrityError(f"what {self._dest.name} is made of is cut off ({error})", hint=HINT) from error
        if isinstance(error, OSError):
            where = error.filename or self._dest
            raise DiskError(f"{where}: {error.strerror or error}", hint="free some disk space") from error


def to_directory(entries: Iterable[Entry], dest: Path, what: str, select: Callable[[str], bool] = bool) -> Path:
    """What ``select`` takes of ``entries`` as the new directory ``dest``; whole or not at all. Never through a link."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(dest, directory=True) as root:
        for entry in entries:
            if select(entry.name):
                put(entry, root, what)
        os.replace(root, dest)
    return dest


def put(entry: Entry, root: Path, what: str) -> None:
    """Write ``entry`` below ``root``: never through a link, neither to where it lies nor to what a hard link names.

    It replaces a file or link of its name, and nobody but its owner may write to it. Raises IntegrityError, or OSError.
    """
    place = root / entry.name
    for parent in reversed(place.relative_to(root).parents[:-1]):
        if (root / parent).is_symlink() or ((root / parent).exists() and not (root / parent).is_dir()):
            raise IntegrityError(f"{what} holds '{entry.name}' below something that is no directory", hint=HINT)
    place.parent.mkdir(parents=True, exist_ok=True)
    if entry.kind == "directory":
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise IntegrityError(f"{what} holds '{entry.name}' twice", hint=HINT)
        place.mkdir(exist_ok=True)
        place.chmod(entry.mode & 0o755 | 0o700)
        return
    source = root / entry.target
    if entry.kind == "hardlink" and (
        os.path.realpath(source) != f"{os.path.realpath(root)}/{entry.target}" or not source.is_file()
    ):
        raise IntegrityError(f"{what} links '{entry.name}' to '{entry.target}', which it does not hold", hint=HINT)
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.exists():
        raise IntegrityError(f"{what} holds '{entry.name}' twice", hint=HINT)
    if entry.kind == "link":
        place.symlink_to(entry.target)
    elif entry.kind == "hardlink":
        os.link(source, place)
    else:
        assert entry.data is not None
        with place.open("xb") as out:
            shutil.copyfileobj(entry.data, out, _BLOCK)
        place.chmod(entry.mode & 0o755 | 0o600)
