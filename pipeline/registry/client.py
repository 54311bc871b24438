"""The only module that talks to a container registry: tags, manifests, blobs (distribution-spec 1.1).

"Not there" is a 404 and nothing else: 401, 403, 429, 5xx and a dead connection mean unknown and are raised. All that
arrives is hashed. How one exchange goes is the concern of registry_http.py (retries, redirects, words of errors),
registry_login.py (tokens) and credentials.py (who we are).
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

import msgspec

from ..core.errors import DeleteRefusedError, DiskError, RegistryError, UsageError
from ..core.tags import check_tag
from ..fetch.partial_file import PartFile
from .local_writer import Writer
from .transport import ANSWER_HINT, NETWORK_HINT, AgainError, Answer, Call, RegistryHttp, codes, own_words

MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
INDEX_TYPES: Final = (MANIFEST_TYPES[1], MANIFEST_TYPES[3])
"""Manifests of manifests."""
MAX_PAGES: Final = 10_000
_WORD: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_WORD}(?:/{_WORD})*")
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]{{1,5}})?")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_NEXT: Final = re.compile(r'<([^>]*)>[^,<]*;\s*rel="?next"?', re.IGNORECASE)
_DISK_HINT: Final = "remove 'build' and run it again"


@dataclass(frozen=True)
class Manifest:
    """A manifest as the registry holds it, byte for byte; ``digest`` is ``sha256:<hex64>`` of ``data``."""

    data: bytes
    media_type: str
    digest: str


class _TagList(msgspec.Struct):
    tags: list[str] | None


_tag_list: Final = msgspec.json.Decoder(_TagList)


class Registry:
    """One repository, ``<place>/<name>``. Threads may share it.

    ``timeout`` is (connect, read) in seconds; what is only read is waited for at most READ_SILENCE, since no registry needs
    minutes for it, while one that moves an upload into place does. ``attempts`` is how often a thing is tried. Every method
    raises RegistryError where the registry gave no clear answer, and what credentials.find raises where a login is asked for.

    ``writer``: where its storage is written to, if not at ``place``. An upload is begun, looked for and ended there; all else
    that is read is read at ``place``, also what has just been pushed, since that is what everybody else gets to see.
    """

    def __init__(
        self,
        place: str,
        *,
        name: str = "driver",
        writer: Writer | None = None,
        environ: Mapping[str, str] = os.environ,
        sleep: Callable[[float], None] = time.sleep,
        attempts: int = 5,
        timeout: tuple[float, float] = (10, 300),
    ) -> None:
        """``place`` is ``host[:port][/path]``. Raises UsageError where that is no place of a registry."""
        self.host, self.repository = _checked(place, name)
        self._http = self._writes = RegistryHttp(self.host, self.repository, environ, sleep, attempts, timeout)
        if writer:
            self._writes = RegistryHttp(self.host, self.repository, environ, sleep, attempts, timeout, writer=writer)
        self._base, self._error = self._http.base, self._http.login.error

    @property
    def requests(self) -> int:
        """HTTP requests made so far, those for tokens too."""
        return sum(http.requests for http in {self._http, self._writes})

    def reference(self, ref: str) -> str:
        """``host/repository:tag`` or ``host/repository@sha256:…``: what docker and podman call it."""
        return f"{self.host}/{self.repository}{'@' if ':' in ref else ':'}{ref}"

    def tags(self) -> list[str]:
        """All tags, in the registry's order; none where it says that it knows no such repository (404 NAME_UNKNOWN)."""
        url, seen, found = f"{self._base}tags/list?n=1000", set[str](), dict[str, None]()
        while url not in seen and len(seen) < MAX_PAGES:
            seen.add(url)
            answer = self._http.request(Call("tag list", "GET", url, ok=(200, 404)))
            if answer.status == 404:
                if len(seen) == 1 and "NAME_UNKNOWN" in codes(answer.body):
                    return []
                raise self._error(f"tag list: 404 {own_words(answer.body)}", ANSWER_HINT)
            try:
                names = _tag_list.decode(answer.body).tags or ()  # null: every tag was deleted
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                raise self._error("tag list: the answer is no list of tags", ANSWER_HINT) from error
            found |= dict.fromkeys(names)
            following = _NEXT.search(answer.headers.get("Link", ""))
            if following is None:
                return list(found)
            # Only path and query: behind a proxy a registry may not know its own host, and others get no login.
            target = urlsplit(urljoin(url, following[1]))
            url = urlunsplit(urlsplit(self._base)._replace(path=target.path, query=target.query))
        raise self._error("tag list: its pages do not end", ANSWER_HINT)

    def manifest(self, ref: str) -> Manifest | None:
        """The manifest under a tag or digest, its hash compared with what was asked and said; None on a 404."""
        answer = self._http.request(self._manifest_call("GET", ref))
        if answer.status == 404:
            return None
        media_type = _media_type(answer)
        if media_type not in MANIFEST_TYPES:
            raise self._error(f"{ref} is no image manifest but '{media_type}'", ANSWER_HINT)
        digest = _sha256(answer.body)
        for wanted in (ref, answer.headers.get("Docker-Content-Digest", "")):
            if _DIGEST.fullmatch(wanted) and wanted != digest:
                raise self._error(f"manifest {ref} has digest {digest}, not {wanted}", ANSWER_HINT)
        return Manifest(answer.body, media_type, digest)

    def digest(self, ref: str) -> str | None:
        """The digest of the manifest under ``ref``; None on a 404."""
        answer = self._http.request(self._manifest_call("HEAD", ref))
        if answer.status == 404:
            return None
        said = answer.headers.get("Docker-Content-Digest", "")
        if _DIGEST.fullmatch(said):
            return said
        manifest = self.manifest(ref)
        return manifest.digest if manifest else None

    def described(self, ref: str) -> tuple[str, str] | None:
        """(digest, media type) of the manifest under ``ref``; None on a 404."""
        answer = self._http.request(self._manifest_call("HEAD", ref))
        if answer.status == 404:
            return None
        said, media_type = answer.headers.get("Docker-Content-Digest", ""), _media_type(answer)
        if _DIGEST.fullmatch(said) and media_type in MANIFEST_TYPES:
            return said, media_type
        manifest = self.manifest(ref)
        return (manifest.digest, manifest.media_type) if manifest else None

    def has_blob(self, digest: str) -> bool:
        """True where the repository has the blob, False on a 404."""
        return self._http.request(self._blob_call("HEAD", digest)).status == 200

    def blob(self, digest: str, *, max_bytes: int = 16 << 20) -> bytes:
        """A small blob, verified."""
        data = self._http.request(self._blob_call("GET", digest, limit=max_bytes)).body
        if _sha256(data) != digest:
            raise self._error(f"blob {digest} has digest {_sha256(data)}", ANSWER_HINT)
        return data

    def download_blob(self, digest: str, size: int, dest: Path) -> None:
        """Put the blob of ``size`` bytes in ``dest``, whole and verified or not at all. Raises DiskError too."""
        call = self._blob_call("GET", digest, limit=size)

        def once() -> None:
            part.restart(call.url)
            self._http.once(call, part.write)
            if part.length < size:
                raise AgainError(f"{call.what}: ended after {part.length} of {size} bytes", NETWORK_HINT)

        with PartFile(dest, digest.removeprefix("sha256:"), size) as part:
            if part.there():
                return
            try:
                if not part.right:
                    self._http.persist(once)
                if not part.right:
                    raise self._error(f"{call.what} has digest sha256:{part.got}", ANSWER_HINT)
            except RegistryError:
                part.restart(None)
                raise
            part.finish()

    def push_blob(self, source: Path | bytes, digest: str, size: int, *, mount_from: str = "") -> bool:
        """Upload a blob, from memory or streamed from disk; False where the registry had it already.

        ``mount_from``: a repository of the same registry that may have it, so that nothing need be sent. Raises
        DiskError where ``source`` cannot be read or has not ``size`` bytes.
        """
        _check_size(source, digest, size)
        begun = False

        def once() -> bool:
            nonlocal begun
            if self._writes.once(self._blob_call("HEAD", digest, base=self._writes.base)).status == 200:
                return begun  # an upload whose answer was lost may have arrived
            begun = True
            location = self._open_upload(digest, mount_from)
            if location:
                url = f"{location}{'&' if urlsplit(location).query else '?'}{urlencode({'digest': digest})}"
                headers = {"Content-Type": "application/octet-stream"}
                what = f"push of blob {digest}"
                self._writes.once(Call(what, "PUT", url, (201,), headers, source if size else b""))
            return True

        return self._writes.persist(once)

    def push_manifest(self, data: bytes, media_type: str, refs: Sequence[str], *, shared: bool = False) -> str:
        """Store ``data`` under each tag (by its digest where there is none), then read each back; its digest.

        ``shared``: others move these tags too, at any moment; then it must be there, under its digest.
        """
        digest = _sha256(data)
        targets = list(refs) or [digest]
        for ref in targets:
            url, headers = self._manifest_call("PUT", ref, base=self._writes.base).url, {"Content-Type": media_type}
            self._writes.request(Call(f"push of manifest {ref}", "PUT", url, (200, 201, 202), headers, data))
        for ref in [digest] if shared else targets:
            if (found := self.digest(ref)) != digest:
                hint = "see that nothing else pushes this tag, then run it again"
                raise self._error(f"{ref} was pushed as {digest} and reads back as {found}", hint)
        return digest

    def delete(self, digest: str) -> None:
        """Delete the manifest with this digest and so every tag on it; nothing where it is gone already."""
        if not _DIGEST.fullmatch(digest):
            raise self._error(f"'{digest}' is not a sha256 digest", "delete by digest: a tag may have moved")
        url, scopes = f"{self._writes.base}manifests/{digest}", (f"repository:{self.repository}:pull,push,delete",)
        answer = self._writes.request(Call(f"delete {digest}", "DELETE", url, (200, 202, 400, 404, 405), scopes=scopes))
        if answer.status in (400, 405):
            hint = "let the registry delete (storage.delete.enabled), or remove it by the registry's own means"
            said = self._error(f"delete {digest}: {answer.status} {own_words(answer.body)}", hint)
            raise DeleteRefusedError(said.message, hint=said.hint)

    # Calls.

    def _manifest_call(self, method: str, ref: str, *, base: str = "") -> Call:
        place = ref if _DIGEST.fullmatch(ref) else check_tag(ref)
        accept = {"Accept": ", ".join(MANIFEST_TYPES)}
        return Call(f"manifest {ref}", method, f"{base or self._base}manifests/{place}", (200, 404), accept)

    def _blob_call(self, method: str, digest: str, *, limit: int = 0, base: str = "") -> Call:
        if not _DIGEST.fullmatch(digest):
            raise self._error(f"'{digest}' is not a sha256 digest", "see what names this blob")
        ok = (200, 404) if method == "HEAD" else (200,)
        return Call(f"blob {digest}", method, f"{base or self._base}blobs/{digest}", ok, limit=limit)

    def _open_upload(self, digest: str, mount_from: str) -> str:
        """Where to send the blob; nothing where it could be mounted."""
        call = Call(f"push of blob {digest}", "POST", f"{self._writes.base}blobs/uploads/", (202,))
        answer: Answer | None = None
        if mount_from and mount_from != self.repository:
            if not _REPOSITORY.fullmatch(mount_from):
                raise UsageError(f"'{mount_from}' is not a repository", hint="it looks like acme/driver")
            url = f"{call.url}?{urlencode({'mount': digest, 'from': mount_from})}"
            scopes = (f"repository:{self.repository}:pull,push", f"repository:{mount_from}:pull")
            try:
                answer = self._writes.once(Call(call.what, "POST", url, (201, 202), scopes=scopes))
            except RegistryError:  # no right to read the other repository, or no mounts here: then it is sent
                answer = None
        answer = answer or self._writes.once(call)
        if answer.status == 201:
            return ""
        location = answer.headers.get("Location", "")
        if not location:
            raise self._error(f"{call.what}: no Location in the answer", ANSWER_HINT)
        return self._writes.followed(call.what, call.url, location)


def _checked(place: str, name: str) -> tuple[str, str]:
    """(host, repository). As docker reads names, a host has a dot or a port or is localhost."""
    hint = "DRIVER_REGISTRY looks like ghcr.io/acme or localhost:5000: no http://, no tag, path in lower case"
    shown = place.rpartition("@")[2]  # somebody may have put a password before it
    host, _, path = place.partition("/")
    if not _HOST.fullmatch(host) or not (set(host) & set(".:") or host == "localhost"):
        raise UsageError(f"'{shown}' does not begin with a registry's host", hint=hint)
    try:
        port = urlsplit(f"//{host}").port
    except ValueError:  # above 65535
        port = 0
    if port == 0:
        raise UsageError(f"'{shown}' has no port that can be", hint=hint)
    repository = f"{path}/{name}" if "/" in place else name
    if not _REPOSITORY.fullmatch(repository) or len(host) + 1 + len(repository) > 255:
        raise UsageError(f"'{shown}' is no place for a repository: '{repository}' is not a valid name", hint=hint)
    return host, repository


def _check_size(source: Path | bytes, digest: str, size: int) -> None:
    if isinstance(source, bytes):
        found = len(source)
    else:
        try:
            found = source.stat().st_size
        except OSError as error:
            raise DiskError(f"{source}: {error.strerror}", hint=_DISK_HINT) from error
    if found != size:
        raise DiskError(f"blob {digest} has {found} bytes here, not {size}", hint=_DISK_HINT)


def _media_type(answer: Answer) -> str:
    return answer.headers.get("Content-Type", "").split(";")[0].strip()


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
