"""Vendors' files that have no hash yet: got once by ``doit update``, measured, and kept in the store of pinned files.

So what update pins is what it looked into, and the build that follows finds it on this machine.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config.records import File, Trust, kept
from ..core.errors import DiskError, IntegrityError, NetworkError, NotFoundError
from .fetcher import AgainError, Fetcher
from .http_cache import DISK_HINT
from .response_headers import continues


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
        self._new: dict[str, Path] = {}

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

    def drop_unpinned(self, files: Iterable[File]) -> None:
        """Take out of the store what this run put there and ``files`` do not name: what was looked into and refused."""
        for digest in self._new.keys() - {file.sha256 for file in files}:
            self._new[digest].unlink(missing_ok=True)

    def _one(self, url: str, max_bytes: int) -> Taken:
        name = url.rpartition("/")[2]
        if not name or name in (".", ".."):
            raise NetworkError(f"{url} names no file", hint="give the file's own address")
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=self._scratch))
            part = folder / name
            begun = _Begun(part)
            self._fetcher.persist(url, lambda: self._go_on(url, begun, max_bytes))
            digest, size = begun.sha256.hexdigest(), begun.size
            store = kept(self._root, digest)
            store.parent.mkdir(parents=True, exist_ok=True)
            if not store.exists():
                os.replace(part, store)
                self._new[digest] = store
                store.chmod(0o444)
                part.hardlink_to(store)
        except OSError as error:
            raise DiskError(f"{error.filename or self._scratch}: {error.strerror}", hint=DISK_HINT) from error
        return Taken(url, part, digest, size)

    def _go_on(self, url: str, begun: _Begun, max_bytes: int) -> None:
        """One attempt: what is missing of the body, or all of it where the server cannot say that it is the same file."""
        fetcher = self._fetcher
        headers = {"Accept-Encoding": "identity"}
        if begun.size and begun.validator:
            headers |= {"Range": f"bytes={begun.size}-", "If-Range": begun.validator}
        with fetcher.open("GET", url, headers) as response:
            status = response.status_code
            goes_on = "Range" in headers and status == 206 and continues(response.headers, begun.size)
            if "Range" in headers and status in (206, 416) and not goes_on:
                begun.validator = ""
                raise AgainError(f"cannot go on at byte {begun.size}", at_once=True)
            if status == 200:
                begun.restart(response.headers)
            elif not goes_on:
                fetcher.refuse(url, response)
            with begun.part.open("ab") as out:
                for chunk in fetcher.chunks(response):
                    if begun.size + len(chunk) > max_bytes:
                        raise IntegrityError(f"{url} has more than {max_bytes} bytes", hint="is that the right address?")
                    out.write(chunk)
                    begun.add(chunk)


class _Begun:
    """What has come of one file so far, and how its server names this version of it ("" where it does not)."""

    def __init__(self, part: Path) -> None:
        self.part, self.size, self.sha256, self.validator = part, 0, hashlib.sha256(), ""

    def restart(self, headers: Mapping[str, str]) -> None:
        """Begin anew with the version that ``headers`` name: a strong ETag does, or else a time (RFC 9110, 13.1.5)."""
        self.part.write_bytes(b"")
        self.size, self.sha256 = 0, hashlib.sha256()
        etag = headers.get("ETag", "")
        self.validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")

    def add(self, chunk: bytes) -> None:
        """Count what was written."""
        self.size += len(chunk)
        self.sha256.update(chunk)
