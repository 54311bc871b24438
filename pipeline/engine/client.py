"""The only module that talks to a container engine: Docker's API from 1.41 on (Docker 20.10, Debian 12), or podman's copy of it.

No step of a build has a network. Nothing is taken from the engine's own image names but what a recipe in the name pins.
"""

from __future__ import annotations

import contextlib
import os
import re
import tarfile
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

import docker
import docker.errors
import docker.utils
import requests.exceptions
import urllib3.exceptions

from ..core.errors import BadFileError, DiskError, EngineError, PairFailed, UsageError
from ..core.tags import RECIPE_LABEL
from ..fetch.http import cause

ENGINE_FILE: Final = Path("build/engine.env")
API_AT_LEAST: Final = (1, 41)
_NO_SPACE: Final = "no space left on device"
_EXIT_CODE: Final = re.compile(r"returned a non-zero code: ([0-9]+)")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_OTHER_PLATFORM: Final = (
    "no matching manifest for",
    "does not match the specified platform",
    "no image found in manifest list for",
)
"""What Docker says where a digest has nothing for the platform that is asked for, an index and an image; and podman."""
_KILLED: Final = ("137", "143")
_FOREIGN: Final = re.compile(r"^(?:exec |standard_init_linux\.go:).*exec format error$", re.IGNORECASE)
"""What starts a step's shell says of one for another machine; a shell names itself before what it could not start."""
_TROUBLE: Final = (docker.errors.DockerException, requests.exceptions.RequestException, urllib3.exceptions.HTTPError)
"""What the SDK raises; the last one where a connection ends in the middle of a stream, which it reads below requests."""


NO_ENGINE_HINT: Final = "run ./doit.sh, which starts one, or set DOCKER_HOST"


def hint(environ: Mapping[str, str] = os.environ, configured: str = "") -> str:
    """What to do where no engine answers: ``doit.sh`` never replaces one that somebody has named."""
    if environ.get("DOCKER_HOST"):
        return "mend DOCKER_HOST, or unset it and run ./doit.sh, which starts one"
    if configured:
        return "mend docker_host in versions.toml, or take it out and run ./doit.sh, which starts one"
    return NO_ENGINE_HINT


def address(environ: Mapping[str, str] = os.environ, configured: str = "", engine_file: Path = ENGINE_FILE) -> str:
    """Where the engine is: DOCKER_HOST, ``docker_host`` of versions.toml, the one ``doit.sh`` started, else Docker's own.

    The system's socket comes before a private engine's only where it exists.
    """
    if host := environ.get("DOCKER_HOST") or configured:
        return host
    default = Path("/var/run/docker.sock")
    with contextlib.suppress(OSError):
        for line in engine_file.read_text().splitlines():
            name, _, value = line.partition("=")
            if name == "DOCKER_HOST" and value:
                return value
    return f"unix://{default}"


class Engine:
    """One engine; connects at the first use."""

    def __init__(
        self, host: str, *, timeout: int = 3600, hint: str = NO_ENGINE_HINT, environ: Mapping[str, str] = os.environ
    ) -> None:
        """``hint``: what to do where it does not answer. Raises EngineError, UsageError."""
        self.host = host
        if host.startswith("ssh:"):
            raise UsageError(
                f"the engine at {host} cannot be reached over ssh from here",
                hint="have ssh carry its socket: 'ssh -nNT -L /tmp/engine.sock:/var/run/docker.sock HOST', then "
                "DOCKER_HOST=unix:///tmp/engine.sock",
            )
        where = _place(host, environ)
        version = self._version(where, host, hint)
        try:
            api = tuple(int(part) for part in str(version.get("ApiVersion", "")).split("."))
        except ValueError:
            api = (0,)
        if api < API_AT_LEAST:
            raise UsageError(
                f"the engine at {host} speaks API {version.get('ApiVersion')}", hint="Docker 20.10 (API 1.41) or newer"
            )
        self._api = _client(where, str(version["ApiVersion"]), timeout)
        self._pulling = threading.Lock()
        self.arch: str = str(version.get("Arch", ""))
        self.cpus: int = int(self._call("info", self._api.info).get("NCPU") or 1)

    @staticmethod
    def _version(where: Mapping[str, Any], host: str, hint: str) -> Mapping[str, Any]:
        """What the engine says of itself, before anybody settles on a version of the API; leaves no connection open."""
        try:
            with contextlib.closing(_client(where, ".".join(map(str, API_AT_LEAST)), 60)) as api:
                found = api.version(api_version=False)
        except (*_TROUBLE, OSError, ValueError) as error:
            raise EngineError(f"no container engine answers at {host} ({_reason(error)})", hint=hint) from error
        return found if isinstance(found, Mapping) else {}

    def has(self, tag: str, recipe: str) -> bool:
        """True where image ``tag`` is there and carries that recipe as its label."""
        try:
            found = self._api.inspect_image(tag)  # type: ignore[no-untyped-call]
        except docker.errors.NotFound:
            return False
        except _TROUBLE as error:
            raise self._broken("look for an image", error) from error
        return ((found.get("Config") or {}).get("Labels") or {}).get(RECIPE_LABEL) == recipe

    def build(
        self,
        context: Path,
        *,
        tag: str,
        log: Callable[[str], None],
        target: str = "",
        labels: Mapping[str, str] | None = None,
        args: Mapping[str, str] | None = None,
        cache: bool = True,
    ) -> None:
        """Build ``context`` (a directory with a Dockerfile) without any network; each output line goes to ``log``.

        Raises PairFailed where a step of the Dockerfile fails, EngineError where the engine does.
        """
        with self._context(context) as archive:
            try:
                stream = self._api.build(
                    fileobj=archive,
                    custom_context=True,
                    encoding="identity",
                    tag=tag,
                    target=target or None,
                    rm=True,
                    forcerm=True,
                    decode=True,
                    network_mode="none",
                    nocache=not cache,
                    labels=dict(labels or {}),
                    buildargs=dict(args or {}),
                )
                with contextlib.closing(stream):
                    finished = self._follow(stream, log)
            except (*_TROUBLE, OSError) as error:
                raise self._broken(f"build {tag}", error) from error
        if not finished:
            raise EngineError(f"the engine at {self.host} stopped in the middle of building {tag}", hint="run again")

    def _follow(self, stream: Iterator[Mapping[str, Any]], log: Callable[[str], None]) -> bool:
        finished = full = foreign = False
        for event in stream:
            text = str(event.get("stream") or event.get("status") or "")
            for line in _COLOUR.sub("", text).splitlines():
                if line.strip():
                    log(line.rstrip())
                full = full or _NO_SPACE in line.lower()
                foreign = foreign or bool(_FOREIGN.match(line.strip()))
            finished = finished or text.startswith("Successfully built") or "aux" in event
            if message := event.get("error"):
                log(str(message))
                self._refuse(str(message), full, foreign)
        return finished

    def _refuse(self, message: str, full: bool, foreign: bool) -> None:
        if full or _NO_SPACE in message.lower():
            raise DiskError(f"the engine's disk is full: {message}", hint="free space, or 'docker system prune'")
        if foreign:  # says nothing about the pair
            raise EngineError(
                f"the engine at {self.host} cannot run the image's programs, which are for another architecture",
                hint="take an engine of that architecture, or one that emulates it (binfmt_misc)",
            )
        if code := _EXIT_CODE.search(message):
            if code[1] in _KILLED:  # by the kernel for memory, or with the engine: says nothing about the pair
                raise EngineError(f"a build step was killed (exit code {code[1]})", hint="memory? engine stopped? run again")
            raise PairFailed(message)
        raise EngineError(f"the engine at {self.host} could not build: {message}", hint="see the log of the pair")

    @contextlib.contextmanager
    def _context(self, context: Path) -> Iterator[IO[bytes]]:
        with tempfile.TemporaryFile(dir=context.parent) as archive:
            try:
                with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
                    for path in sorted(context.rglob("*")):
                        tar.add(path, arcname=str(path.relative_to(context)), recursive=False, filter=_plain)
            except OSError as error:
                raise DiskError(f"{context}: {error.strerror}", hint="free some space below build/") from error
            archive.seek(0)
            yield archive

    def pull_for(self, image: str, arch: str) -> None:
        """Have ``image``, a name with tag or digest in a registry, for ``arch``.

        Raises EngineError where the registry or the image cannot be had.
        """
        hint = "look whether it is there; [registries] of DRIVER_MIRRORS maps its registry to another"
        try:
            with contextlib.closing(self._api.pull(image, platform=f"linux/{arch}", stream=True, decode=True)) as said:
                if error := next((event["error"] for event in said if "error" in event), None):
                    raise EngineError(f"{image}: {error}", hint=hint)
        except _TROUBLE as error:
            raise EngineError(f"{image} cannot be had ({_reason(error)})", hint=hint) from error

    def export(self, tag: str, path: str, destination: Path) -> None:
        """Write directory ``path`` of image ``tag`` as a tar to ``destination``; its entries begin with the last name.

        Raises EngineError where the image or the path is not there.
        """
        try:
            container = self._api.create_container(tag, command=["/nothing-runs"], network_disabled=True)["Id"]
        except _TROUBLE as error:
            raise self._broken(f"export from {tag}", error) from error
        try:
            stream, _ = self._api.get_archive(container, path, chunk_size=1 << 20)
            with destination.open("wb") as out:
                for chunk in stream:
                    out.write(chunk)
        except _TROUBLE as error:
            raise self._broken(f"export {path} from {tag}", error) from error
        except OSError as error:
            raise DiskError(f"{destination}: {error.strerror}", hint="free some space below build/") from error
        finally:
            with contextlib.suppress(*_TROUBLE):
                self._api.remove_container(container, force=True)

    def pull(self, name: str, digest: str, tag: str, arch: str) -> None:
        """Have image ``name@digest`` for ``arch`` under the local name ``tag``; pulled where the engine lacks that.

        ``digest`` is of an image or an index, which the engine checks. Raises EngineError where it cannot be had, BadFileError
        where it is for others only.
        """
        where = f"{name}@{digest}"
        with self._pulling:  # an engine knows a digest by one image at a time
            try:
                if self._machine(tag) == arch:
                    return
                if self._machine(where) not in ("", arch):  # an index's other image: "Cannot overwrite digest"
                    self._api.remove_image(where, noprune=True)
                self.pull_for(where, arch)
                if (there := self._machine(where)) == arch:
                    repository, _, mark = tag.rpartition(":")
                    self._api.tag(where, repository, mark)
                    return
                why = f"it is for {there}"
            except EngineError as error:
                why = error.message.removeprefix(f"{where}: ")
                if not any(words in why for words in _OTHER_PLATFORM):
                    raise
            except _TROUBLE as error:
                raise self._broken(f"pull {where}", error) from error
        hint = f"give the digest of its image for {arch} in digests of that [[toolchain]], then 'doit update'"
        raise BadFileError(f"{where} is no image for {arch} ({why})", hint=hint)

    def _machine(self, image: str) -> str:
        """The architecture of ``image``; "" where the engine has no such image. Raises what the SDK does."""
        try:
            found = self._api.inspect_image(image)  # type: ignore[no-untyped-call]
        except docker.errors.NotFound:
            return ""
        return str(found.get("Architecture", ""))

    def remove(self, tag: str) -> None:
        """Forget image name ``tag``; fine where it is not there."""
        with contextlib.suppress(*_TROUBLE):
            self._api.remove_image(tag, force=True, noprune=False)

    def keep_newest(self, name: str, count: int, in_use: Collection[str] = ()) -> None:
        """Forget all tags of image ``name`` but the ``count`` newest, with what the engine's cache holds for them alone.

        Those ``in_use`` stay, whatever their age: an image whose every step was in the cache is as old as its first build.
        """
        with contextlib.suppress(*_TROUBLE):
            found = sorted(self._api.images(name), key=lambda image: -image["Created"])
            for tag in [tag for image in found for tag in image.get("RepoTags") or ()][count:]:
                if tag not in in_use:
                    self.remove(tag)

    def forget_unnamed(self, since: float) -> None:
        """Remove what was made after ``since`` (Unix time), has no name and is in no use: the steps before one that failed."""
        with contextlib.suppress(*_TROUBLE):
            for image in self._api.images(filters={"dangling": True}):
                if image["Created"] >= since:
                    with contextlib.suppress(*_TROUBLE):
                        self._api.remove_image(image["Id"], noprune=False)

    def close(self) -> None:
        """End the connection."""
        self._api.close()

    def _call(self, what: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except _TROUBLE as error:
            raise self._broken(what, error) from error

    def _broken(self, what: str, error: Exception) -> EngineError | DiskError:
        reason = _reason(error)
        if _NO_SPACE in reason.lower():
            return DiskError(f"the engine's disk is full: {reason}", hint="free space, or 'docker system prune'")
        return EngineError(f"the engine at {self.host} did not {what} ({reason})", hint="is it running? run ./doit.sh")


def _client(where: Mapping[str, Any], version: str, timeout: int) -> docker.APIClient:
    client = docker.APIClient(**where, version=version, timeout=timeout)
    if "tls" in where:
        client.trust_env = False  # REQUESTS_CA_BUNDLE is about other servers, and would come before DOCKER_CERT_PATH's ca.pem
    return client


def _place(host: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """What a client is told of ``host``: TLS over TCP where DOCKER_TLS_VERIFY or DOCKER_CERT_PATH asks for it.

    Both mean what they mean to docker's own client: ca.pem, cert.pem and key.pem lie in DOCKER_CERT_PATH, else in ~/.docker.
    Raises UsageError where one of them cannot be read.
    """
    if not host.startswith("tcp:"):
        return {"base_url": host}
    try:
        return {**docker.utils.kwargs_from_env(environment={**environ, "DOCKER_HOST": host})}
    except docker.errors.TLSParameterError as error:
        where = environ.get("DOCKER_CERT_PATH") or "~/.docker"
        raise UsageError(
            f"no TLS with the engine at {host}: {error.args[0].partition('. ')[0]}",
            hint=f"have ca.pem, cert.pem and key.pem in {where}, or unset DOCKER_TLS_VERIFY and DOCKER_CERT_PATH",
        ) from error


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Owner and time of the developer's files are nobody's business: the same context gives the same cache key."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    return info


def _reason(error: Exception) -> str:
    explanation = getattr(error, "explanation", None)
    return str(explanation or "").strip() or cause(error)
