"""The ``Authorization`` header for a registry: Basic, or a Bearer token from the server its 401 names.

Flow: distribution's spec/auth/token and spec/auth/scope. Credentials are looked up at the first 401, never before: a
registry on this machine needs none, and a broken docker configuration must not matter to it.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from ..core.errors import LoginError, RegistryError
from ..fetch.http import is_loopback
from .credentials import PASSWORD, USER, Challenge, Credentials, challenge, find

TOKEN_SECONDS: Final = 60.0
"""How long a token is good where the server does not say."""
_SERVER_HINT: Final = "see whether DRIVER_REGISTRY names a registry, and what stands between"

Get = Callable[[str, str, str], bytes]
"""(what for, URL, Authorization header or "") -> body of a 200. Raises what a failed request raises."""


class Login:
    """What we are to one repository. Threads may share it: those that start at once wait for one token.

    ``get`` asks the token server. ``near`` is True for a registry on this machine: its token server may be too. ``given``: the
    login itself, where it is not to be looked for.
    """

    def __init__(
        self, host: str, repository: str, environ: Mapping[str, str], get: Get, *, near: bool, given: Credentials | None = None
    ) -> None:
        self._host, self._repository, self._environ = host, repository, environ
        self._get, self._near = get, near
        self._insecure = environ.get("DRIVER_INSECURE") == "1"
        self._lock = threading.Lock()
        self._given = self._known = given
        self._challenge: Challenge | None = None
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}

    def header(self, what: str, scopes: tuple[str, ...], *, reading: bool) -> str:
        """The header to send; "" before the registry asked for one. ``scopes``: none for the usual ones."""
        with self._lock:
            if self._challenge is None:
                return ""
            if self._challenge.scheme == "basic":
                return self._known.basic if self._known else ""
            wanted = scopes or self._scopes(reading)
            header, until = self._tokens.get(wanted, ("", 0.0))
            if header and time.monotonic() < until:
                return header
            return self._fetch(what, self._challenge, wanted)  # now, not after 500 MB were sent in vain

    def renew(self, what: str, scopes: tuple[str, ...], used: str, asked: str, *, reading: bool) -> None:
        """After a 401 that came in spite of ``used``: make sure that the next header is another one.

        ``asked`` is its WWW-Authenticate. Raises RegistryError where we have nothing else to offer.
        """
        with self._lock:
            wanted = challenge(asked)
            if wanted is None:
                raise self.error(f"{what}: 401 with no challenge that is Bearer or Basic", _SERVER_HINT)
            if self._known is None:
                self._known = find(self._host, self._repository, self._environ)
            if wanted.scheme == "basic" and self._known is None:
                raise self.denied(f"{what}: 401 Unauthorized")
            self._challenge = wanted
            key = scopes or self._scopes(reading)
            if wanted.scheme == "bearer" and self._tokens.get(key, ("", 0.0))[0] in ("", used):
                self._fetch(what, wanted, key)

    def error(self, why: str, hint: str) -> RegistryError:
        """The one line for people. A server that echoes our password or token does not get it into a log."""
        secrets = {header.removeprefix("Bearer ") for header, _ in list(self._tokens.values())}
        if self._known:
            secrets |= {self._known.password, self._known.basic.removeprefix("Basic ")}
        for secret in sorted(secrets - {""}, key=len, reverse=True):
            why = why.replace(secret, "***")
        return RegistryError(f"{self._host}/{self._repository}: {why}", hint=hint)

    def denied(self, why: str) -> LoginError:
        """The error of a 401 or 403, which says how to log in."""
        if self._given:
            return self._login_error(why, f"{self._given.source} is not of the registry that runs now: run ./doit.sh again")
        how = f"'docker login {self._host}', or set {USER} and {PASSWORD}"
        known = f"the login from {self._known.source} is not enough; " if self._known else ""
        return self._login_error(why, f"{known}log in with {how}")

    def _login_error(self, why: str, hint: str) -> LoginError:
        said = self.error(why, hint)
        return LoginError(said.message, hint=said.hint)

    def _scopes(self, reading: bool) -> tuple[str, ...]:
        """With a login one token does for all; strangers may be refused one to push, so they ask for it only then."""
        stranger = reading and self._known is None
        return (f"repository:{self._repository}:{'pull' if stranger else 'pull,push'}",)

    def _fetch(self, what: str, wanted: Challenge, scopes: tuple[str, ...]) -> str:
        self._tokens.pop(scopes, None)
        body = self._get(f"token for {what}", self._token_url(what, wanted, scopes), self._known.basic if self._known else "")
        try:
            document = json.loads(body)
            token = document.get("token") or document["access_token"]
            seconds = float(document.get("expires_in") or TOKEN_SECONDS)
            if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
                raise TypeError
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self.error(f"token for {what}: the token server's answer holds none", _SERVER_HINT) from error
        self._tokens[scopes] = (f"Bearer {token}", time.monotonic() + max(seconds - 10, seconds / 2))
        return f"Bearer {token}"

    def _token_url(self, what: str, wanted: Challenge, scopes: tuple[str, ...]) -> str:
        """Raises RegistryError where the password would travel in the clear."""
        try:
            realm = urlsplit(wanted.realm)
            host, near = realm.hostname, self._near and is_loopback(realm.hostname or "")
        except ValueError:
            host = None
        plain = host and realm.scheme == "http" and (near or self._insecure)
        if not host or realm.username is not None or not (plain or realm.scheme == "https"):
            raise self.error(f"{what}: 401 that names no https token server", _SERVER_HINT)
        words = [("service", wanted.service)] if wanted.service else []
        query = urlencode([*words, *(("scope", scope) for scope in scopes)])
        return urlunsplit(realm._replace(query=f"{realm.query}&{query}" if realm.query else query, fragment=""))
