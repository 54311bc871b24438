"""HTTP: everything that comes from a server which is no registry comes through here.

What may pass by itself (429, 5xx, a broken or stalled connection, a body cut short) is tried again with growing pauses;
what will not (404, 403, a wrong hash, a redirect loop) is said at once. Proxies, CA bundles and .netrc are those of the
environment (HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE). Mirrors change what is asked, never what a thing is called.
"""

from __future__ import annotations

import importlib.metadata
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import requests
import urllib3

from ..core.errors import IntegrityError, NetworkError, NotFoundError
from ..core.text import counted
from . import response_headers
from .http import cause, retry_after
from .http_cache import Cache, Entry
from .mirrors import Mirrors
from .partial_file import PartFile

T = TypeVar("T")
MAX_REDIRECTS: Final = 5
MAX_RETRY_AFTER: Final = 120.0
"""Seconds a server may make us wait; one that asks for more is asked again after these."""
MIN_RATE: Final = 1024
"""Bytes a second below which a body counts as stalled, over one read timeout: a drip would hold a run for ever."""
_CHUNK: Final = 1 << 16
_RETRIED: Final = frozenset({429, 500, 502, 503, 504})
_GONE: Final = frozenset({404, 410})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_NETWORK_HINT: Final = "check the network, its proxy (HTTPS_PROXY, NO_PROXY) or DRIVER_MIRRORS, then run it again"
_CA_HINT: Final = "name the file with the CA certificates that vouch for it in REQUESTS_CA_BUNDLE"
_ANSWER_HINT: Final = "see whether the address still stands, or map it to a mirror with DRIVER_MIRRORS"
_HASH_HINT: Final = "the server or a mirror serves another file; if it was replaced upstream, run 'doit update'"
NO_MIRRORS: Final = Mirrors()


class AgainError(Exception):
    """An attempt failed in a way that another may not. ``wait``: seconds the server asked for."""

    def __init__(self, why: str, *, wait: float | None = None, at_once: bool = False) -> None:
        self.why = why
        self.wait = wait
        self.at_once = at_once
        super().__init__(why)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None: redirects are followed here. Requests would read the whole body of one, and parse any Location."""
        return None


class Fetcher:
    """Gets things from servers. Threads may share one.

    ``timeout`` is (connect, read) in seconds, ``attempts`` how often one address is asked before it is given up,
    ``sleep`` what waits between them and ``log`` what is told about each wait. ``requests`` counts HTTP requests.
    """

    def __init__(
        self,
        cache: Path,
        *,
        mirrors: Mirrors = NO_MIRRORS,
        sleep: Callable[[float], None] = time.sleep,
        attempts: int = 4,
        timeout: tuple[float, float] = (10, 60),
        log: Callable[[str], None] = _to_stderr,
    ) -> None:
        self.requests = 0
        self._cache = Cache(cache)
        self._mirrors = mirrors
        self._sleep = sleep
        self._attempts = attempts
        self._timeout = timeout
        self._log = log
        self._local = threading.local()
        self._lock = threading.Lock()
        self._agent = f"coreos-nvidia/{_version()}"

    def get(self, url: str, *, max_bytes: int = 64 << 20, immutable: bool = False) -> bytes:
        """The body at ``url``, at most ``max_bytes`` once decoded; from the cache where the server says 304.

        ``immutable``: what was got once, from this mirror, is returned with no request. Raises NotFoundError (404, 410),
        NetworkError, and DiskError where the cache cannot be written.
        """
        source = self._mirrors.rewrite(url)
        headers = {"Accept-Encoding": "identity" if response_headers.packed(url) else "gzip"}
        kept = self._cache.read(url)
        if kept:
            entry, body = kept
            if immutable and entry.came_from(source) and len(body) <= max_bytes:
                return body
            headers |= entry.conditions(source)
        return self.persist(url, lambda: self._get_once(url, source, headers, kept, max_bytes))

    def forget(self, url: str) -> None:
        """Drop ``url`` from the cache: its body turned out not to be what its format says."""
        self._cache.drop(url)

    def exists(self, url: str) -> bool:
        """True where ``url`` can be had, False where it is gone (404, 410).

        Raises NetworkError for anything else: no answer is not 'no'.
        """
        return self.persist(url, lambda: self._exists_once(url))

    def download(self, urls: Sequence[str], dest: Path, *, sha256: str, size: int) -> str:
        """Put the file of ``size`` bytes with this ``sha256`` in ``dest``; the URL that gave it.

        The first of ``urls`` with the right bytes wins. What an earlier run left in ``<dest>.part`` is taken up again.
        Raises NotFoundError where every URL answered 404 or 410, IntegrityError where one gave other bytes and none the
        right ones, NetworkError with each answer otherwise, DiskError where the disk refuses.
        """
        failures: list[NetworkError | IntegrityError] = []
        with PartFile(dest, sha256, size) as part:
            if part.there():  # another thread or process was quicker
                return urls[0]
            for url in urls:
                try:
                    self.persist(url, lambda url=url: self._fill(url, part))  # type: ignore[misc]
                except (NetworkError, IntegrityError) as error:
                    failures.append(error)
                    continue
                part.finish()
                return url
        if len(failures) == 1:
            raise failures[0]
        what = f"{dest.name}: " + "; ".join(error.message for error in failures)
        if any(isinstance(error, IntegrityError) for error in failures):
            raise IntegrityError(what, hint=_HASH_HINT)
        if failures and all(isinstance(error, NotFoundError) for error in failures):
            raise NotFoundError(what, hint=_ANSWER_HINT)
        raise NetworkError(what if failures else f"{dest.name}: no address to get it from", hint=_NETWORK_HINT)

    # One attempt each: raises AgainError for what another attempt may mend.

    def _get_once(self, url: str, source: str, headers: Mapping[str, str], kept: tuple[Entry, bytes] | None, limit: int) -> bytes:
        with self.open("GET", url, headers) as response:
            if response.status_code == 304 and kept and headers.keys() & {"If-None-Match", "If-Modified-Since"}:
                body = kept[1]
                if len(body) > limit:
                    self._too_large(url, limit)
                return body
            if response.status_code != 200:
                self.refuse(url, response)
            parts: list[bytes] = []
            total = 0
            coding = "identity" if response_headers.packed(url) else response.headers.get("Content-Encoding", "identity")
            try:
                for part in response_headers.decoded(self.chunks(response), coding, limit):
                    total += len(part)
                    if total > limit:
                        self._too_large(url, limit)
                    parts.append(part)
            except response_headers.UndecodableError as error:
                raise AgainError(str(error)) from error
            body = b"".join(parts)
            etag, changed = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
        self._cache.write(url, source, body, etag=etag, last_modified=changed)
        return body

    def _exists_once(self, url: str) -> bool:
        for method, headers in (("HEAD", {}), ("GET", {"Range": "bytes=0-0"})):
            with self.open(method, url, {"Accept-Encoding": "identity", **headers}) as response:
                if response.status_code in _GONE:
                    return False
                if response.status_code in (200, 206, 416):  # 416: there, and empty
                    if response_headers.web_page(url, response.headers):
                        raise NetworkError(f"{self._name(url)}: answered with a web page", hint=_ANSWER_HINT)
                    return True
                if method == "GET":
                    self.refuse(url, response)
        raise AssertionError("the loop returns or raises")

    def _fill(self, url: str, part: PartFile) -> None:
        if part.right:
            return
        if part.length >= part.size:
            part.restart(url)
        start = part.length
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with self.open("GET", url, headers) as response:
            status = response.status_code
            goes_on = status == 206 and response_headers.continues(response.headers, start, part.size)
            if start and status in (206, 416) and not goes_on:
                part.restart(url)
                raise AgainError(f"cannot go on at byte {start}", at_once=True)
            if status == 200:
                part.restart(url)
            elif not (start and goes_on):
                self.refuse(url, response)
            left = response.raw.length_remaining
            if left is not None and part.length + left != part.size:
                self._wrong(url, part, f"has {part.length + left} bytes, not the pinned {part.size}")
            for chunk in self.chunks(response):
                if part.length + len(chunk) > part.size:
                    self._wrong(url, part, f"has more than the pinned {part.size} bytes")
                part.write(chunk)
        if part.length < part.size:
            raise AgainError(f"ended after {part.length} of {part.size} bytes")
        if not part.right:
            self._wrong(url, part, f"wanted sha256 {part.sha256}, got {part.got}")

    def _wrong(self, url: str, part: PartFile, why: str) -> NoReturn:
        own = part.origin == url
        part.restart(url)
        if not own:  # its beginning was left by an earlier run or another server: that may be the wrong half
            raise AgainError(f"{why}, after bytes of an earlier run", at_once=True)
        raise IntegrityError(f"{self._name(url)}: {why}", hint=_HASH_HINT)

    # The wire.

    def persist(self, url: str, once: Callable[[], T]) -> T:
        """What ``once`` returns, called again after a pause while it raises AgainError; in the end NetworkError."""
        for number in range(1, self._attempts + 1):
            try:
                return once()
            except AgainError as again:
                name = self._name(url)
                if number == self._attempts:
                    raise NetworkError(f"{name}: {again.why} ({counted(number, 'attempt')})", hint=_NETWORK_HINT) from again
                if again.at_once:
                    self._log(f"{name}: {again.why}; again from the beginning")
                    continue
                pause = 2.0 ** (number - 1) * random.uniform(0.5, 1.0)  # jitter: runners must not ask in step
                wait = min(max(pause, again.wait or 0.0), MAX_RETRY_AFTER)
                self._log(f"{name}: {again.why}; again in {wait:.1f} s")
                self._sleep(wait)
        raise ValueError("attempts must be 1 or more")

    @contextmanager
    def open(self, method: str, url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        """The answer after at most five redirects, its body unread."""
        current = self._mirrors.rewrite(url)
        seen = {current}
        while True:
            with self._send(method, url, current, headers) as response:
                target = response.headers.get("Location", "")
                if response.status_code not in _REDIRECTS or not target:
                    if response.status_code in _RETRIED:
                        raise AgainError(_answer(response), wait=retry_after(response.headers.get("Retry-After", "")))
                    yield response
                    return
            current = self._followed(url, current, target)
            if current in seen:
                raise NetworkError(f"{self._name(url)}: redirect loop at {response_headers.shown(current)}", hint=_ANSWER_HINT)
            if len(seen) > MAX_REDIRECTS:
                raise NetworkError(f"{self._name(url)}: more than {MAX_REDIRECTS} redirects", hint=_ANSWER_HINT)
            seen.add(current)

    def _send(self, method: str, url: str, current: str, headers: Mapping[str, str]) -> requests.Response:
        with self._lock:
            self.requests += 1
        try:
            return self._session().request(
                method, current, headers=dict(headers), timeout=self._timeout, stream=True, allow_redirects=False
            )
        except requests.exceptions.SSLError as error:
            if "CERTIFICATE" not in str(error).upper():
                raise AgainError(cause(error)) from error
            raise NetworkError(f"{self._name(url)}: {cause(error)}", hint=_CA_HINT) from error
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise AgainError(cause(error)) from error
        except (requests.RequestException, UnicodeError, urllib3.exceptions.HTTPError) as error:
            raise NetworkError(f"{self._name(url)}: {cause(error)}", hint=_ANSWER_HINT) from error
        except OSError as error:  # a CA bundle that is not there
            raise NetworkError(f"{self._name(url)}: {error}", hint=_CA_HINT) from error

    def _session(self) -> _Session:
        session: _Session | None = getattr(self._local, "session", None)
        if session is None:  # one a thread: requests does not promise that threads may share one
            session = _Session()
            session.headers["User-Agent"] = self._agent
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            self._local.session = session
        return session

    def _followed(self, url: str, current: str, location: str) -> str:
        """Where a redirect leads. One that leaves its server goes through the mirrors too."""
        try:
            target = response_headers.redirected(current, location)
        except ValueError as error:
            raise NetworkError(f"{self._name(url)}: {error}", hint=_ANSWER_HINT) from error
        return target if response_headers.same_server(current, target) else self._mirrors.rewrite(target)

    def chunks(self, response: requests.Response) -> Iterator[bytes]:
        """The body as it comes, undecoded. Raises AgainError where it is cut off or drips."""
        total, since, begun = 0, 0, time.monotonic()
        while True:
            try:
                chunk = response.raw.read1(_CHUNK, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise AgainError(f"cut off after {total} bytes ({cause(error)})") from error
            if not chunk:
                return
            yield chunk
            total, since = total + len(chunk), since + len(chunk)
            if (passed := time.monotonic() - begun) > self._timeout[1]:
                if since < MIN_RATE * passed:
                    raise AgainError(f"stalled after {total} bytes")
                since, begun = 0, time.monotonic()

    # Words.

    def _name(self, url: str) -> str:
        real = self._mirrors.rewrite(url)
        return (
            response_headers.shown(url)
            if real == url
            else f"{response_headers.shown(url)} (mirror {response_headers.shown(real)})"
        )

    def refuse(self, url: str, response: requests.Response) -> NoReturn:
        """Raise NotFoundError for an answer that says so, NetworkError for any other."""
        kind = NotFoundError if response.status_code in _GONE else NetworkError
        raise kind(f"{self._name(url)}: {_answer(response)}", hint=_ANSWER_HINT)

    def _too_large(self, url: str, limit: int) -> NoReturn:
        raise NetworkError(f"{self._name(url)}: body of more than {limit} bytes", hint=_ANSWER_HINT)


def _version() -> str:
    try:
        return importlib.metadata.version("coreos-nvidia")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def _answer(response: requests.Response) -> str:
    return f"{response.status_code} {response.reason or ''}".strip()
