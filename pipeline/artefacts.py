"""Vendors' files that have no hash yet: got once by ``doit update``, measured, and kept in the store of pinned files.

So what update pins is what it looked into, and the build that follows finds it on this machine.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import DiskError, IntegrityError, NetworkError, NotFoundError
from .fetch import Fetcher
from .httpcache import DISK_HINT
from .pinned import File, Trust


@dataclass(frozen=True)
class Taken:
    """One file on this machine: where it came from, where it lies under its own name, what it hashes to."""

    url: str
    path: Path
    sha256: str
    size: int

    def pin(self, name: str, version: str, trust: Trust, urls: Sequence[str] = ()) -> File:
        """The lock's entry of it. ``urls``: every place that may have it, in the order to try."""
        return File(name=name, version=version, sha256=self.sha256, size=self.size, trust=trust, urls=tuple(urls) or (self.url,))


Take = Callable[[Sequence[str], int], Taken]
"""``take(urls, max_bytes)``: the file at the first of ``urls`` that is there. Raises NotFoundError where none is."""


class Artefacts:
    """Takes files into ``root``, the store that Inputs reads; names for this run lie below ``scratch``."""

    def __init__(self, fetcher: Fetcher, root: Path, scratch: Path) -> None:
        self._fetcher, self._root, self._scratch = fetcher, root, scratch

    def take(self, urls: Sequence[str], max_bytes: int) -> Taken:
        """The file at the first of ``urls`` that is there, streamed to disk.

        Raises NotFoundError where all answer 404 or 410, NetworkError otherwise, IntegrityError for one of more than
        ``max_bytes``, DiskError.
        """
        gone: list[NotFoundError] = []
        for url in urls:
            try:
                return self._one(url, max_bytes)
            except NotFoundError as error:
                gone.append(error)
        message = "; ".join(error.message for error in gone) or "no address to get it from"
        raise NotFoundError(message, hint="see whether the vendor has moved it")

    def _one(self, url: str, max_bytes: int) -> Taken:
        name = url.rpartition("/")[2]
        if not name or name in (".", ".."):
            raise NetworkError(f"{url} names no file", hint="give the file's own address")
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=self._scratch))
            part = folder / name
            digest, size = self._fetcher._persist(url, lambda: self._once(url, part, max_bytes))
            store = self._root / "sha256" / digest[:2] / digest
            store.parent.mkdir(parents=True, exist_ok=True)
            if not store.exists():
                os.replace(part, store)
                store.chmod(0o444)
                part.hardlink_to(store)
        except OSError as error:
            raise DiskError(f"{error.filename or self._scratch}: {error.strerror}", hint=DISK_HINT) from error
        return Taken(url, part, digest, size)

    def _once(self, url: str, part: Path, max_bytes: int) -> tuple[str, int]:
        """One attempt: the body into ``part``; its sha256 and size. A body that breaks off is asked for anew, from its start."""
        fetcher, digest, size = self._fetcher, hashlib.sha256(), 0
        with fetcher._open("GET", url, {"Accept-Encoding": "identity"}) as response, part.open("wb") as out:
            if response.status_code != 200:
                fetcher._refuse(url, response)
            for chunk in fetcher._chunks(response):
                size += len(chunk)
                if size > max_bytes:
                    raise IntegrityError(f"{url} has more than {max_bytes} bytes", hint="is that the right address?")
                digest.update(chunk)
                out.write(chunk)
        return digest.hexdigest(), size
