"""HTTP with a registry: retries, redirects, refusals in words. What is asked is the concern of pipeline/registry/client.py.

What may pass (429, 5xx, a broken connection, a body cut short) is tried again with growing pauses, the rest is said at
once, in one line. The login goes to the registry, and to the token server that the registry names, over https (plain
http only on this machine or with DRIVER_INSECURE=1); no Authorization follows a redirect to another host.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
import urllib3
from requests.auth import AuthBase

from ..core.errors import NO_ROOM, DiskError, LoginError, RegistryError, RegistryFullError, one_line
from ..core.text import counted
from ..fetch.http import cause, is_loopback, retry_after
from .auth import Login
from .local_writer import Writer

T = TypeVar("T")
MAX_RETRY_AFTER: Final = 120.0
"""Seconds a registry may make us wait; one that asks for more is asked again after these."""
READ_SILENCE: Final = 60.0
"""Seconds without a byte after which a question is asked again."""
MAX_REDIRECTS: Final = 5
ANSWER_HINT: Final = "see whether DRIVER_REGISTRY names a registry, and what stands between"
NETWORK_HINT: Final = (
    "see that it runs (./doit.sh starts the local one) and that DRIVER_REGISTRY or versions.toml names it, "
    "check network and proxy, then run it again"
)
FULL_HINT: Final = "free space where the registry keeps its data, then run it again"
READ_ONLY_HINT: Final = (
    "it is for reading alone; where this checkout's ./doit.sh started it, run ./doit.sh again, as the user who did; another "
    'checkout\'s: take another port, registry = "localhost:<port>" below [settings] in versions.toml'
)
SERVER_HINT: Final = "see the registry's log and its free space, then run it again"
_CHUNK: Final = 1 << 16
_BODY: Final = 8 << 20
_FINAL_5XX: Final = frozenset({501, 505, 507})
_DIRECT: Final = {"http": "", "https": "", "all": ""}
_API: Final = {"docker.io": "registry-1.docker.io"}


@dataclass(frozen=True)
class Call:
    """What to ask. ``what`` names it in messages, ``ok`` are the statuses the caller reads, ``limit`` bytes of body."""

    what: str
    method: str
    url: str
    ok: tuple[int, ...] = (200,)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Path = b""
    scopes: tuple[str, ...] = ()
    limit: int = _BODY


@dataclass(frozen=True)
class Answer:
    """A status the caller asked for; ``body`` is empty where it went to a sink. Header names match in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class AgainError(Exception):
    """An attempt failed in a way that another may not. ``wait``: seconds the server asked for, if it did."""

    def __init__(self, why: str, hint: str, wait: float | None = None) -> None:
        self.why, self.hint, self.wait = why, hint, wait
        super().__init__(why)


class _Authorization(AuthBase):
    """Our header or none. Its presence keeps ``requests`` from adding a login out of .netrc."""

    def __init__(self, value: str) -> None:
        self.value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.value:
            request.headers["Authorization"] = self.value
        return request


class RegistryHttp:
    """Exchanges with the registry at ``host`` about ``repository``. Threads may share it. ``base`` ends in ``/``.

    ``writer``: whom to ask in place of ``host``, which names the registry in messages all the same.
    """

    def __init__(
        self,
        host: str,
        repository: str,
        environ: Mapping[str, str],
        sleep: Callable[[float], None],
        attempts: int,
        timeout: tuple[float, float],
        *,
        writer: Writer | None = None,
    ) -> None:
        self.requests = 0
        server = writer.address if writer else _API.get(host, host)
        self._near = is_loopback(urlsplit(f"//{server}").hostname or "")
        plain = self._near or environ.get("DRIVER_INSECURE") == "1"
        self.base = f"{'http' if plain else 'https'}://{server}/v2/{repository}/"
        self.login = Login(host, repository, environ, self._token, near=self._near, given=writer.login if writer else None)
        self._sleep, self._attempts, self._timeout = sleep, attempts, timeout
        self._sessions = threading.local()
        self._count = threading.Lock()

    def request(self, call: Call, sink: Callable[[bytes], None] | None = None) -> Answer:
        """The answer to ``call``, asked again where that may help. Raises RegistryError for a status not ``ok``."""
        return self.persist(lambda: self.once(call, sink))

    def persist(self, once: Callable[[], T]) -> T:
        """What ``once`` gives, called again after a pause where it raises AgainError; RegistryError at the end."""
        for number in range(1, self._attempts + 1):
            try:
                return once()
            except AgainError as again:
                if number == self._attempts:
                    raise self.login.error(f"{again.why} ({counted(number, 'attempt')})", again.hint) from again
                # Jitter: a matrix of runners must not ask in step.
                wait = 2.0 ** (number - 1) * random.uniform(0.5, 1.0)
                self._sleep(min(max(wait, again.wait or 0.0), MAX_RETRY_AFTER))
        raise ValueError("attempts must be 1 or more")

    def once(self, call: Call, sink: Callable[[bytes], None] | None = None) -> Answer:
        """One attempt; a body of success goes to ``sink`` where there is one. Raises AgainError, RegistryError."""
        with self._exchange(call) as response:
            if response.status_code not in call.ok:
                raise self._refusal(call, response)
            success = response.status_code < 300
            if success and response.headers.get("Content-Type", "").lower().startswith("text/html"):
                raise self.login.error(f"{call.what}: answered with a web page", ANSWER_HINT)
            body, total = bytearray(), 0
            for chunk in self._chunks(call, response):
                total += len(chunk)
                if total > (call.limit if success else _BODY):
                    raise self.login.error(f"{call.what}: body of more than {call.limit} bytes", ANSWER_HINT)
                if sink and success:
                    sink(chunk)
                else:
                    body += chunk
            return Answer(response.status_code, response.headers, bytes(body))

    def followed(self, what: str, url: str, location: str) -> str:
        """Where a ``Location`` leads, seen from ``url``. Raises RegistryError where we must not go there."""
        try:
            target = urlsplit(urljoin(url, location))
            host, _ = target.hostname, target.port
        except ValueError as error:
            raise self.login.error(f"{what}: sent on to nonsense", ANSWER_HINT) from error
        if target.scheme not in ("http", "https") or not host:
            raise self.login.error(f"{what}: sent on to {target.scheme or 'no'}: address", ANSWER_HINT)
        if target.scheme == "http" and urlsplit(url).scheme == "https":
            hint = "let the registry know its own https address (behind a proxy: X-Forwarded-Proto)"
            raise self.login.error(f"{what}: sent on from https down to http://{host}", hint)
        return urlunsplit(target._replace(fragment=""))

    # One exchange.

    @contextmanager
    def _exchange(self, call: Call) -> Iterator[requests.Response]:
        """The answer after login and at most five redirects, its body unread."""
        url, hops, renewed = call.url, 0, False
        reading = call.method in ("GET", "HEAD")
        while True:
            ours = _origin(url) == _origin(self.base)
            header = self.login.header(call.what, call.scopes, reading=reading) if ours else ""
            with self._send(call, url, header) as response:
                status, location = response.status_code, response.headers.get("Location", "")
                follow = location and (status in (307, 308) or (reading and status in (301, 302, 303)))
                if not follow and (status != 401 or renewed or not ours):
                    yield response
                    return
                for _ in self._chunks(call, response):  # read to its end, so that the connection can be used again
                    pass
            if follow:
                url, hops = self.followed(call.what, url, location), hops + 1
                if hops > MAX_REDIRECTS:
                    raise self.login.error(f"{call.what}: more than {MAX_REDIRECTS} redirects", ANSWER_HINT)
            else:
                asked = response.headers.get("WWW-Authenticate", "")
                self.login.renew(call.what, call.scopes, header, asked, reading=reading)
                renewed = True

    def _token(self, what: str, url: str, authorization: str) -> bytes:
        call = Call(what, "GET", url)
        with self._send(call, url, authorization) as response:
            if response.status_code != 200:
                raise self._refusal(call, response)
            return b"".join(self._chunks(call, response))

    def _send(self, call: Call, url: str, authorization: str) -> requests.Response:
        if isinstance(call.body, bytes):
            return self._sent(call, url, authorization, call.body)
        try:
            file = call.body.open("rb")
        except OSError as error:
            raise DiskError(f"{call.body}: {error.strerror}", hint="remove 'build' and run it again") from error
        with file:
            return self._sent(call, url, authorization, file)

    def _sent(self, call: Call, url: str, authorization: str, data: Any) -> requests.Response:
        session: requests.Session | None = getattr(self._sessions, "session", None)
        if session is None:  # one a thread: requests does not promise that threads may share one
            session = self._sessions.session = requests.Session()
            session.headers.update({"User-Agent": "coreos-nvidia", "Accept-Encoding": "identity"})
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        with self._count:
            self.requests += 1
        connect, read = self._timeout
        if call.method in ("GET", "HEAD"):
            read = min(read, READ_SILENCE)
        try:
            return session.request(
                call.method, url, data=data or None, headers=dict(call.headers), auth=_Authorization(authorization),
                timeout=(connect, read), stream=True, allow_redirects=False, proxies=_DIRECT if self._near else None,
            )  # fmt: skip
        except requests.exceptions.SSLError as error:
            why = f"{call.what}: {cause(error)}"
            if "CERTIFICATE" in why.upper():
                raise self.login.error(why, "name the CA bundle that vouches for it in REQUESTS_CA_BUNDLE") from error
            if "WRONG_VERSION" in why.upper() or "RECORD_LAYER" in why.upper():
                raise self.login.error(f"{call.what}: it does not speak TLS", "DRIVER_INSECURE=1 allows plain http") from error
            raise AgainError(why, NETWORK_HINT) from error
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise AgainError(f"{call.what}: {cause(error)}", NETWORK_HINT) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError) as error:
            raise self.login.error(f"{call.what}: {cause(error)}", ANSWER_HINT) from error
        except OSError as error:  # a CA bundle that is not there
            raise self.login.error(f"{call.what}: {error}", "check REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE") from error

    def _chunks(self, call: Call, response: requests.Response) -> Iterator[bytes]:
        try:
            yield from response.raw.stream(_CHUNK, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise AgainError(f"{call.what}: body cut off ({cause(error)})", NETWORK_HINT) from error

    # Refusals.

    def _refusal(self, call: Call, response: requests.Response) -> RegistryError | AgainError:
        """What to raise for a status that nobody asked for, in the registry's own words."""
        body = bytearray()
        for chunk in self._chunks(call, response):
            body += chunk
            if len(body) > _CHUNK:
                break
        status, html = response.status_code, "html" in response.headers.get("Content-Type", "").lower()
        words = response.reason or "" if html else own_words(bytes(body)) or response.reason or ""
        why = f"{call.what}: {status} {words}".rstrip()
        if status >= 500 and is_full(status, bytes(body)):  # which it is in a minute too
            said = self.login.error(why, FULL_HINT)
            return RegistryFullError(said.message, hint=said.hint)
        if status == 429:
            hint = "the registry limits how often it may be asked: log in, or run it again later"
            return AgainError(why, hint, retry_after(response.headers.get("Retry-After", "")))
        if status >= 500 and status not in _FINAL_5XX:
            return AgainError(why, SERVER_HINT, retry_after(response.headers.get("Retry-After", "")))
        if status == 404 and "BLOB_UPLOAD_UNKNOWN" in codes(bytes(body)):
            return AgainError(why, SERVER_HINT)  # the session is lost: the upload begins anew
        if status == 405 and call.method in ("POST", "PUT"):
            said = self.login.error(why, READ_ONLY_HINT)
            return LoginError(said.message, hint=said.hint)
        if status in (401, 403):
            return self.login.denied(why)
        return self.login.error(why, SERVER_HINT if status >= 500 or status == 413 else ANSWER_HINT)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _errors(body: bytes) -> list[dict[str, Any]]:
    """``{"errors": [{"code", "message", "detail"}]}`` of distribution-spec; empty where the body is anything else."""
    try:
        errors = json.loads(body)["errors"]
    except (ValueError, LookupError, TypeError):
        return []
    return [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []


def codes(body: bytes) -> set[str]:
    """The error codes in a registry's answer, such as ``NAME_UNKNOWN``."""
    return {str(error.get("code")) for error in _errors(body)}


def is_full(status: int, body: bytes) -> bool:
    """True where an answer says that the registry's disk is: 507, or an error in words, or in distribution's numbers.

    Its filesystem driver gives ``{"detail": {"Enclosed": {"Op": "write", "Err": 28}}}``, the number being that of errno.
    """
    if status == 507 or any(os.strerror(number).lower() in body.decode(errors="replace").lower() for number in NO_ROOM):
        return True
    for error in _errors(body):
        detail = error.get("detail")
        enclosed = detail.get("Enclosed") if isinstance(detail, dict) else None
        if isinstance(enclosed, dict) and enclosed.get("Err") in NO_ROOM:
            return True
    return False


def own_words(body: bytes) -> str:
    """What the registry itself says in an error's body: code, message and detail, at most 300 characters."""
    said = []
    for error in _errors(body):
        detail = error.get("detail")
        parts = [error.get("code"), error.get("message"), json.dumps(detail) if detail else ""]
        said.append(": ".join(str(part) for part in parts if part))
    return one_line("; ".join(said) or body.decode(errors="replace"))[:300]
