"""Who we are to a registry: the user and password people already gave to docker or podman, and what a 401 asks for.

Formats: docker's config.json (docker/cli, docs/reference/commandline/login: ``auths``, ``credHelpers``,
``credsStore``), containers-auth.json(5), and the protocol of credential helpers (docker/docker-credential-helpers: the
host on stdin, JSON on stdout). Challenges are those of RFC 7235 with distribution's ``Bearer`` (spec/auth/token).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..core.errors import BadFileError, RegistryError, UsageError

USER: Final = "DRIVER_REGISTRY_USER"
PASSWORD: Final = "DRIVER_REGISTRY_PASSWORD"  # noqa: S105 - the name of a variable, not what it holds
_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SET_HINT: Final = f"set {USER} and {PASSWORD} instead"
_HELPER_SECONDS: Final = 60
_NOT_FOUND: Final = "credentials not found"
_DOCKER_HUB: Final = "index.docker.io"
_PARAMETER: Final = re.compile(r'(?:([A-Za-z][A-Za-z0-9-]*) +)?([A-Za-z_-]+) *= *("(?:[^"\\]|\\.)*"|[^\s,"]+)')


@dataclass(frozen=True)
class Credentials:
    """A user and a password; ``source`` is the file, helper or variable they came from, fit to be shown."""

    user: str
    password: str = field(repr=False)
    source: str

    @property
    def basic(self) -> str:
        """The value of an ``Authorization`` header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(frozen=True)
class Challenge:
    """What a ``WWW-Authenticate`` header asks for. ``scheme`` is lower case; ``realm`` of ``bearer`` is a URL."""

    scheme: str
    realm: str
    service: str


def challenge(header: str) -> Challenge | None:
    """The challenge we can answer: ``Bearer`` before ``Basic``; None where neither is there."""
    found: dict[str, dict[str, str]] = {}
    scheme = ""
    for match in _PARAMETER.finditer(header):
        scheme = (match[1] or scheme).lower()
        value = re.sub(r"\\(.)", r"\1", match[3][1:-1]) if match[3].startswith('"') else match[3]
        found.setdefault(scheme, {})[match[2].lower()] = value
    for known in ("bearer", "basic"):
        if known in found:
            return Challenge(known, found[known].get("realm", ""), found[known].get("service", ""))
    return Challenge("basic", "", "") if header.strip().lower() == "basic" else None


def find(host: str, repository: str, environ: Mapping[str, str]) -> Credentials | None:
    """What to log in with at ``host`` for ``repository``; None where nobody logged in.

    DRIVER_REGISTRY_USER and DRIVER_REGISTRY_PASSWORD come first, then docker's configuration, then podman's. Raises
    UsageError (one of the two variables alone), BadFileError (a file that is not what it should be), RegistryError (a
    credential helper that is absent or fails).
    """
    user, password = environ.get(USER, ""), environ.get(PASSWORD, "")
    if user and password:
        return Credentials(user, password, f"{USER} and {PASSWORD}")
    if user or password:
        alone, other = (USER, PASSWORD) if user else (PASSWORD, USER)
        raise UsageError(f"{alone} is set, but {other} is not", hint="set both, or neither to use 'docker login'")
    for path in _files(environ):
        document = _read(path)
        if document is not None and (found := _in_file(path, document, host, repository, environ)):
            return found
    return None


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    if folder := environ.get("DOCKER_CONFIG"):
        yield Path(folder, "config.json")
    elif home := environ.get("HOME"):
        yield Path(home, ".docker", "config.json")
    if file := environ.get("REGISTRY_AUTH_FILE"):
        yield Path(file)
    elif folder := environ.get("XDG_RUNTIME_DIR"):
        yield Path(folder, "containers", "auth.json")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}", hint="it holds the login; make it readable") from error
    except ValueError as error:  # says the place, never the text: it holds passwords
        raise BadFileError(f"{path}: not JSON", hint="mend it, or log in anew with 'docker login'") from error
    if not isinstance(document, dict):
        raise BadFileError(f"{path}: not a JSON object", hint="mend it, or log in anew with 'docker login'")
    return document


def _in_file(path: Path, document: dict[str, Any], host: str, repository: str, environ: Mapping[str, str]) -> Credentials | None:
    names = _names(host, repository)
    helpers = _table(path, document, "credHelpers")
    helper = next((helpers[name] for name in names if name in helpers), None) or document.get("credsStore")
    if helper and (found := _ask_helper(path, helper, host, environ)):
        return found
    auths = {_plain(key): value for key, value in _table(path, document, "auths").items()}
    for name in names:
        if found := _decoded(path, name, auths.get(name)):
            return found
    return None


def _names(host: str, repository: str) -> list[str]:
    """Keys that may hold the login, most special first: containers-auth.json(5) allows ``host/namespace``."""
    hosts = [host, _DOCKER_HUB] if host == "docker.io" else [host]
    steps = repository.split("/")
    return ["/".join((name, *steps[:length])) for length in range(len(steps), -1, -1) for name in hosts]


def _plain(key: str) -> str:
    """``https://index.docker.io/v1/`` as ``index.docker.io``: docker writes both forms."""
    return re.sub(r"(/v[12])?/*$", "", re.sub(r"^https?://", "", key))


def _table(path: Path, document: dict[str, Any], key: str) -> dict[str, Any]:
    table = document.get(key) or {}
    if not isinstance(table, dict):
        raise BadFileError(f"{path}: '{key}' is not an object", hint="mend it, or log in anew with 'docker login'")
    return table


def _decoded(path: Path, name: str, entry: Any) -> Credentials | None:
    if not isinstance(entry, dict) or not entry.get("auth"):
        return None  # docker leaves {} where a helper holds the password
    if entry.get("identitytoken"):  # an OAuth2 refresh token, for a flow of its own
        raise RegistryError(f"{path} holds an identity token for {name}, which cannot be used here", hint=_SET_HINT)
    try:
        user, colon, password = base64.b64decode(entry["auth"], validate=True).decode().rstrip("\0").partition(":")
    except (TypeError, UnicodeDecodeError, binascii.Error):
        colon = ""
    if not colon:
        raise BadFileError(
            f"{path}: 'auth' of {name} is not base64 of user:password", hint=f"log in anew with 'docker login {name}'"
        )
    return Credentials(user, password, str(path))


def _ask_helper(path: Path, helper: object, host: str, environ: Mapping[str, str]) -> Credentials | None:
    if not isinstance(helper, str) or not _HELPER.fullmatch(helper):
        raise BadFileError(f"{path}: credential helper '{helper}' is not a name", hint="it looks like 'secretservice'")
    program = f"docker-credential-{helper}"
    hint = _SET_HINT
    found = shutil.which(program, path=environ.get("PATH"))
    if found is None:
        raise RegistryError(f"{program}, named in {path} for {host}, is not installed", hint=hint)
    asked = f"https://{_DOCKER_HUB}/v1/" if host == "docker.io" else host
    try:
        done = subprocess.run(
            [found, "get"],
            input=asked.encode(),
            capture_output=True,
            env=dict(environ),
            timeout=_HELPER_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            if _NOT_FOUND in done.stdout.decode(errors="replace").lower():
                return None
            raise RegistryError(f"{program} failed for {host} with status {done.returncode}", hint=hint)
        answer = json.loads(done.stdout)
        user, password = answer["Username"], answer["Secret"]
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RegistryError(f"{program} did not answer for {host}", hint=hint) from error
    except (ValueError, LookupError, TypeError) as error:
        raise RegistryError(f"{program} answered nonsense for {host}", hint=hint) from error
    if user == "<token>":  # an OAuth2 refresh token, for a flow of its own
        raise RegistryError(f"{program} holds an identity token for {host}, which cannot be used here", hint=hint)
    return Credentials(str(user), str(password), program)
