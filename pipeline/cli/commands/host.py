"""``doit host``: the files a host needs, for every OS and runtime."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ...core.errors import BadFileError, DiskError, UsageError
from ...core.versions import DriverVersion
from ...fetch.http import is_loopback
from ...hosts import host_bundle
from ...hosts.host_bundle import RUNTIMES, VARIANTS, Bundle, HostSettings
from ..workspace import Workspace
from .base import Plain

FOLDER: Final = Path("build/host")
_REGISTRY: Final = re.compile(r"(https?://)?[A-Za-z0-9.:\[\]-]+(/[a-z0-9._/-]+)?")
_DRIVERS: Final = re.compile(r"\d+(\.\d+)*( \d+(\.\d+)*)*")


class Host(Plain):
    """``doit host``: Ignition, the Butane it comes from, and an installer, per OS and runtime, below build/host."""

    name = "host"
    doc_purpose = "write what a host needs: Ignition, Butane, an installer"
    doc_usage = "[OS ...]"
    doc_description = "Writes build/host/<os>-<runtime>/ and prints each folder and how it is used."
    cmd_options = tuple(
        {"name": name, "short": "", "long": name, "type": str, "default": "", "help": text}
        for name, text in (
            ("registry", "where the host pulls from; default: DRIVER_REGISTRY"),
            ("driver", "version or branch; default: the newest that is pinned"),
            ("fallback", "versions or branches that the host may take instead, in this order"),
            ("key", "file with the public key of the signed index"),
            ("runtime", "podman or docker; default: both, where the OS has both"),
        )
    )

    def work(self, space: Workspace, params: Any, args: list[str]) -> int:
        """Write and tell; 0."""
        for name in args:
            if name not in RUNTIMES:
                raise UsageError(f"no OS '{name}'", hint=f"one of {', '.join(RUNTIMES)}")
        known = sorted({name for names in RUNTIMES.values() for name in names})
        if params["runtime"] not in {"", *known}:
            raise UsageError(f"no runtime '{params['runtime']}'", hint=f"one of {', '.join(known)}")
        settings = _settings(space, params)
        for os in args or RUNTIMES:
            runtimes = [name for name in RUNTIMES[os] if params["runtime"] in {"", name}]
            if not runtimes and args:
                raise UsageError(f"{os} has no runtime '{params['runtime']}'", hint=f"one of {', '.join(RUNTIMES[os])}")
            for runtime in runtimes:
                made = host_bundle.bundle(space.root / "host", os, runtime, settings)
                folder = write(made, space.root)
                print(f"{folder}: {_use(made, folder)}")
        for remark in _remarks(space, settings):
            print(f"doit: {remark}", file=sys.stderr)
        return 0


def _remarks(space: Workspace, settings: HostSettings) -> Iterator[str]:
    """What is written as asked, and yet is seldom what a host needs."""
    if is_loopback(_server(settings.registry)):
        yield f"hosts will pull from {settings.registry}, each from itself: name one they reach (--registry, DRIVER_REGISTRY)"
    pinned = sorted({driver.version for driver in space.lock.drivers}, key=DriverVersion)
    for wanted in f"{settings.driver} {settings.fallback}".split():
        if not any(f"{version}.".startswith(f"{wanted}.") for version in pinned):
            yield f"versions.lock pins no driver {wanted} ({', '.join(pinned) or 'none'}), so this checkout builds no image of it"


def _use(made: Bundle, folder: Path) -> str:
    new = "config.ign for a new host, " if made.os in VARIANTS else ""
    return f"{new}for a running one: ssh HOST sudo sh < {folder / 'install.sh'}"


def write(made: Bundle, root: Path) -> Path:
    """Write a bundle's folder anew; its path below ``root``."""
    folder = FOLDER / f"{made.os}-{made.runtime}"
    template = (root / "host/templates/install.sh").read_text()
    try:
        shutil.rmtree(root / folder, ignore_errors=True)
        for file in made.on_disk:
            place = root / folder / "files" / file.path[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(file.text)
            place.chmod(file.mode)
        (root / folder / "install.sh").write_text(host_bundle.installer(made, template))
        if made.os in VARIANTS:
            (root / folder / "config.bu").write_text(host_bundle.butane(made))
            (root / folder / "config.ign").write_text(json.dumps(host_bundle.ignition(made), indent=1) + "\n")
    except OSError as error:
        raise DiskError(f"{folder}: {error.strerror}", hint="free some space below build/") from error
    return folder


def _server(registry: str) -> str:
    """The name or address in ``registry``; nothing where there is none."""
    try:
        return urlsplit(f"//{registry.rpartition('://')[2]}").hostname or ""
    except ValueError:
        return ""


def _settings(space: Workspace, params: Any) -> HostSettings:
    registry = params["registry"] or space.settings.registry
    if not _REGISTRY.fullmatch(registry) or not _server(registry):
        raise UsageError(f"--registry '{registry}' is no registry", hint="such as ghcr.io/acme")
    driver = params["driver"] or max((driver.version for driver in space.lock.drivers), key=DriverVersion, default="")
    for name, text in (("driver", driver), ("fallback", params["fallback"])):
        if (text or name == "driver") and not _DRIVERS.fullmatch(text):
            raise UsageError(f"--{name} '{text}' is neither a version nor a branch", hint="such as 580.173.02, or 580")
    if " " in driver:
        raise UsageError(f"--driver '{driver}' names several", hint="the others belong in --fallback")
    key = ""
    if params["key"]:
        try:
            key = Path(params["key"]).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise BadFileError(f"--key {params['key']} cannot be read", hint="name a public key, PEM") from error
        if "-----BEGIN PUBLIC KEY-----" not in key or "PRIVATE" in key:
            raise BadFileError(f"--key {params['key']} is no public key in PEM", hint="openssl pkey -in KEY -pubout")
    return HostSettings(registry=registry, driver=driver, fallback=params["fallback"], key=key)
