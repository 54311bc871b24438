"""The store of pinned files: ``<root>/sha256/<first two>/<sha256>``, each checked once when it comes in.

A file stands under its name only when its bytes are right, so what is there is taken at its name (after a look at its
size) and a run over a thousand inputs hashes nothing.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ..config.records import File, kept
from ..core.errors import BadFileError, DiskError, IntegrityError, NetworkError, NotFoundError
from ..core.files import MAX_UNPACKED
from . import local_files, user_cache
from .fetcher import Fetcher
from .http_cache import DISK_HINT

_NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
"""Another device, a file system without hard links, too many of them: a copy does as well."""


class Inputs:
    """Gives pinned files as local ones. ``bases("debian")`` are the base addresses of that archive, best first."""

    def __init__(
        self, root: Path, fetcher: Fetcher, bases: Callable[[str], Sequence[str]], *, max_unpacked: int = MAX_UNPACKED
    ) -> None:
        """``max_unpacked``: bytes that one of them may unpack to."""
        self.max_unpacked = max_unpacked
        self._root = root
        self._fetcher = fetcher
        self._bases = bases

    def path(self, file: File) -> Path:
        """The local file with the bytes of ``file``; got first where it is not there.

        Raises NotFoundError where it left its archive, NetworkError, IntegrityError, DiskError.
        """
        path = kept(self._root, file.sha256)
        if _size(path) == file.size:
            user_cache.note_use(path)
            return path
        if file.local is not None:
            return self._own(file, file.local, path)
        try:
            self._fetcher.download(self._urls(file), path, sha256=file.sha256, size=file.size)
        except NotFoundError as error:
            if file.archive is None:
                raise
            raise NotFoundError(
                f"{file.name} {file.version} left the archive '{file.archive}': no base has {file.path}",
                hint="give another base, such as a snapshot service, in [archives] of versions.toml or DRIVER_ARCHIVES",
            ) from error
        try:
            path.chmod(0o444)  # hard links of it lie in build contexts; nothing may write through them
        except OSError as error:
            raise DiskError(f"{path}: {error.strerror}", hint=DISK_HINT) from error
        return path

    def _own(self, file: File, local: str, path: Path) -> Path:
        """A file of this machine that the store has lost, from where it was pinned."""
        taken = local_files.keep(Path(local), self._root, file.size)
        if (taken.sha256, taken.size) != (file.sha256, file.size):
            raise IntegrityError(f"{local} is not what versions.host.lock pins", hint="run 'doit update --host' again")
        return path

    def lay(self, file: File, directory: Path) -> Path:
        """``file`` in ``directory`` under its own name: a hard link, or a copy where there can be none.

        Raises what ``path`` raises, and BadFileError for a file without a name of its own.
        """
        name = file.file_name
        if name in ("", ".", ".."):
            raise BadFileError(f"{file.name} {file.version}: its address has no file name", hint="run 'doit update'")
        source, dest = self.path(file), directory / name
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if dest.exists() and dest.samefile(source):
                return dest
            scratch = Path(tempfile.mkdtemp(dir=directory, prefix=".lay."))
            try:
                link(source, scratch / "file")
                os.replace(scratch / "file", dest)
            finally:
                shutil.rmtree(scratch)
        except OSError as error:
            raise DiskError(f"{dest}: {error.strerror}", hint=DISK_HINT) from error
        return dest

    def _urls(self, file: File) -> list[str]:
        if file.archive is None:
            return list(file.urls)
        bases = self._bases(file.archive)
        if not bases:
            raise NetworkError(
                f"{file.name} {file.version}: no base address for the archive '{file.archive}'",
                hint="give one in [archives] of versions.toml or in DRIVER_ARCHIVES",
            )
        return [f"{base.rstrip('/')}/{file.path}" for base in bases]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}", hint=DISK_HINT) from error


def link(source: Path, dest: Path) -> None:
    """``dest`` as a hard link to ``source``, or a copy where there can be none. Raises OSError."""
    try:
        os.link(source, dest)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        shutil.copyfile(source, dest)
