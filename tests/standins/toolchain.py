"""Fedora's image as a stand-in: Debian's toolchain without make and patch, and with a real rpm, pushed under the vendor's name.

rpm is this machine's own program with the libraries and macros that it runs with, so the image needs no package of it.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from pipeline.cli.workspace import Workspace
from tests.standins import packing

_DOCKERFILE = """FROM {base}
COPY rpm/ /
RUN rm /usr/bin/make /usr/bin/patch; rpm --version
"""
_RPM = """#!/bin/sh
exec /opt/rpm/loader --library-path /opt/rpm /opt/rpm/rpm "$@"
"""


def pushed(space: Workspace, registry: str, environ: dict[str, str], work: Path) -> str:
    """Push the image as ``<registry>/fedora/fedora:44``; the digest of its manifest."""
    (toolchain,) = (t for t in space.lock.toolchains if t.name == "debian-12" and t.arch == "amd64")
    local, name = space.shop.toolchain(toolchain), f"{registry}/fedora/fedora:44"
    (work / "Dockerfile").write_text(_DOCKERFILE.format(base=local))
    _rpm(work / "rpm")
    environ = {**os.environ, "DOCKER_HOST": environ["DOCKER_HOST"], "DOCKER_BUILDKIT": "0"}
    packing.run("docker", "build", "--quiet", "--network", "none", "--tag", name, work, environ=environ)
    said = packing.run("docker", "push", name, environ=environ)
    packing.run("docker", "rmi", name, environ=environ)
    return "sha256:" + said.rsplit("digest: sha256:", 1)[1].split()[0]


def _rpm(root: Path) -> None:
    """rpm with its own loader and libraries: it has to run on whatever C library the image has."""
    place = root / "opt/rpm"
    place.mkdir(parents=True)
    program = shutil.which("rpm")
    assert program
    shutil.copy2(program, place / "rpm")
    for library in re.findall(r"(?m)(/\S+) \(0x", packing.run("ldd", program)):
        shutil.copy2(library, place / ("loader" if "/ld-" in library else Path(library).name))
    shutil.copytree(
        "/usr/lib/rpm", root / "usr/lib/rpm", symlinks=True, ignore=shutil.ignore_patterns("perl*", "*.prov", "*.req")
    )
    (root / "usr/bin").mkdir()
    (root / "usr/bin/rpm").write_text(_RPM)
    (root / "usr/bin/rpm").chmod(0o755)
