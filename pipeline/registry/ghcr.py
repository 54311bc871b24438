"""GitHub's packages API, for what ghcr.io's registry does not do: deleting a manifest.

https://docs.github.com/rest/packages: a version of a container package has an ``id``, the manifest's digest as its
``name``, and its tags in ``metadata.container.tags``. Deleting needs a token with ``delete:packages`` (in a workflow:
``packages: write`` and the package tied to the repository).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

import requests

from ..core.errors import RegistryError, UsageError, one_line
from ..fetch.http import cause, is_loopback, retry_after

HOST: Final = "ghcr.io"
API: Final = "https://api.github.com"
_ATTEMPTS: Final = 5
_MAX_WAIT: Final = 120.0
_HINT: Final = "the token must be allowed to delete this package (delete:packages, or packages: write in its repository)"


class Packages:
    """The versions of one container package, for example ``driver`` of ``ghcr.io/acme``.

    ``environ`` holds GITHUB_TOKEN (or GH_TOKEN) and, where it is not github.com, GITHUB_API_URL. Raises UsageError for
    an address that is not https (plain http only on this machine).
    """

    def __init__(
        self, repository: str, environ: Mapping[str, str], *, sleep: Callable[[float], None] = time.sleep, timeout: float = 60
    ) -> None:
        self._owner, _, self._name = repository.partition("/")
        self._api = (environ.get("GITHUB_API_URL") or API).rstrip("/")
        self._token = token(environ)
        self._sleep, self._timeout = sleep, timeout
        parts = urlsplit(self._api)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise UsageError(f"GITHUB_API_URL is '{self._api}'", hint="it begins with https://")
        self._session = requests.Session()
        self._session.trust_env = not is_loopback(parts.hostname or "")
        self._place = ""

    def versions(self) -> dict[str, int]:
        """Digest to id, of every version. Raises RegistryError."""
        found: dict[str, int] = {}
        page = 1
        while True:
            rows = self._ask("GET", f"{self._package()}/versions?per_page=100&page={page}")
            if not isinstance(rows, list):
                raise RegistryError(f"{self._api} listed no versions of {self._name}", hint="try again later")
            for row in rows:
                if isinstance(row, dict) and isinstance(row.get("name"), str) and isinstance(row.get("id"), int):
                    found[row["name"]] = row["id"]
            if len(rows) < 100:
                return found
            page += 1

    def delete(self, number: int) -> None:
        """Delete one version; nothing where it is gone already. Raises RegistryError with GitHub's own words."""
        self._ask("DELETE", f"{self._package()}/versions/{number}")

    def _package(self) -> str:
        """The package's path, which differs for people and organizations."""
        if not self._place:
            owner = self._ask("GET", f"/users/{quote(self._owner, safe='')}")
            kind = "orgs" if isinstance(owner, dict) and owner.get("type") == "Organization" else "users"
            self._place = f"/{kind}/{quote(self._owner, safe='')}/packages/container/{quote(self._name, safe='')}"
        return self._place

    def _ask(self, method: str, path: str) -> Any:
        headers = {
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
            "User-Agent": "coreos-nvidia",
            "Authorization": f"Bearer {self._token}",
        }
        why, wait = "", 0.0
        for number in range(_ATTEMPTS):
            if number:
                self._sleep(min(max(wait, 2.0 ** (number - 1) * random.uniform(0.5, 1.0)), _MAX_WAIT))
            try:
                answer = self._session.request(
                    method, f"{self._api}{path}", headers=headers, timeout=self._timeout, allow_redirects=False
                )
            except requests.RequestException as error:
                why, wait = cause(error), 0.0
                continue
            if answer.status_code < 300:
                return answer.json() if answer.content else None
            if answer.status_code == 404 and method == "DELETE":
                return None
            why = f"{answer.status_code} {_words(answer)}"
            limited = answer.status_code == 429 or (answer.status_code == 403 and "rate limit" in why.lower())
            if not limited and answer.status_code < 500:
                raise RegistryError(f"{self._api}{path.partition('?')[0]}: {why}", hint=_HINT)
            wait = retry_after(answer.headers.get("Retry-After", "")) or 0.0
        raise RegistryError(f"{self._api}{path.partition('?')[0]}: {why} ({_ATTEMPTS} attempts)", hint="try again later")


def token(environ: Mapping[str, str]) -> str:
    """The token for GitHub's API; nothing where none is given."""
    return environ.get("GITHUB_TOKEN") or environ.get("GH_TOKEN") or ""


def _words(answer: requests.Response) -> str:
    try:
        return one_line(str(answer.json()["message"]))[:300]
    except (ValueError, LookupError, TypeError):
        return answer.reason or ""
