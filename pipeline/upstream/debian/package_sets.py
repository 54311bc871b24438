"""Debian's kernels and NVIDIA's driver as Debian packages: which packages make one up.

A driver's parts all come from the one upstream version; two tools that Debian has in other versions only
(nvidia-persistenced, nvidia-modprobe) come from the nearest one of the same branch and are named in the image's label.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from typing import Final

from ...core.dpkg_version import DpkgVersion
from ...core.errors import UpstreamDataError
from ...core.versions import DriverVersion
from .package_index import Indices, Package

_SOURCE: Final = re.compile(r"nvidia-graphics-drivers(-tesla)?(-[0-9]+)?")
_OPEN_SOURCE: Final = re.compile(r"nvidia-open-kernel(-[0-9]+)?-source")
_NOT_USERSPACE: Final = re.compile(
    r"xserver-xorg-.*"  # X server drivers
    r"|.*-(dkms|kernel-source|kernel-support|dev|i386)"
    r"|nvidia(-tesla)?(-[0-9]+)?-(driver|driver-full|driver-libs|alternative|detect|legacy-check|suspend-common)"
    r"|nvidia(-tesla)?(-[0-9]+)?-(egl-icd|vulkan-icd|libopencl1)"  # no files; OpenCL's loader is the container's
    r"|nvidia(-tesla)?(-[0-9]+)?-driver-libs-.*"
    r"|libgl1-nvidia.*-glx"
)
_OTHER_TOOLS: Final = ("nvidia-persistenced", "nvidia-modprobe")
_FIRMWARE: Final = re.compile(r"firmware-nvidia(-tesla)?(-[0-9]+)?-gsp")
_DEPENDENCY: Final = re.compile(r"(\S+)(?: \((=|>=) ([^)]+)\))?")
_KBUILD: Final = "linux-kbuild-"
_COMMON: Final = re.compile(r"linux-headers-\S+-common(-\S+)?")
_IMAGE_PARTS: Final = re.compile(r"linux-(modules|binary|base-image)-[0-9]\S*")


def kernels(indices: Indices) -> list[str]:
    """Every kernel release (``uname -r``) that has headers and an image.

    A package such as ``linux-headers-cloud-amd64`` only names the newest one: it does not need Kbuild.
    """
    return [
        name
        for package, found in indices.packages.items()
        if package.startswith("linux-headers-") and _KBUILD in found[0].depends
        if f"linux-image-{(name := package.removeprefix('linux-headers-'))}" in indices.packages
    ]


def kernel_packages(indices: Indices, kernel: str, tools: Indices | None = None) -> tuple[list[Package], list[Package]]:
    """(headers, image) packages of ``kernel``: the newest version that has both.

    ``tools``: indices of the architecture that compiles, where that is another. Kbuild's programs run there, so they are
    the package of the same name and version from there: it is built from the same source and knows every target (Debian
    builds ``modpost`` for both sizes and byte orders). Raises UpstreamDataError where the archive has not both, or lists
    them but not what they need.
    """
    images = {p.version for p in indices.packages.get(f"linux-image-{kernel}", ())}
    headers = indices.newest(f"linux-headers-{kernel}", lambda package: package.version in images)
    if headers is None:
        raise UpstreamDataError(f"headers and image of {kernel} are not both listed in one version", hint="try again later")
    image = indices.exact(f"linux-image-{kernel}", headers.version)
    assert image is not None
    parts = _needed(indices, headers, lambda name: name.startswith(_KBUILD) or _COMMON.fullmatch(name) is not None)
    if not any(part.name.startswith(_KBUILD) for part in parts):
        raise UpstreamDataError(
            f"{headers.name} {headers.version} needs no {_KBUILD}…",
            hint="the packages have changed: see debian_drivers.py",
        )
    if tools is not None:
        parts = [_of_tools(part, tools) if part.name.startswith(_KBUILD) else part for part in parts]
    return [headers, *parts], [image, *_needed(indices, image, lambda name: _IMAGE_PARTS.fullmatch(name) is not None)]


def _of_tools(kbuild: Package, tools: Indices) -> Package:
    """The same package for the architecture that compiles.

    Raises UpstreamDataError where that one is not listed.
    """
    found = tools.exact(kbuild.name, kbuild.version)
    if found is None:
        raise UpstreamDataError(
            f"{kbuild.name} {kbuild.version} is not listed for the architecture that compiles", hint="try again later"
        )
    return found


def _needed(indices: Indices, package: Package, takes: Callable[[str], bool]) -> list[Package]:
    """What ``package`` depends on and ``takes`` says yes to, each the newest that fits.

    Raises UpstreamDataError where none fits.
    """
    found: list[Package] = []
    for text in package.depends.split(", "):
        dependency = _DEPENDENCY.fullmatch(text)  # an alternative (a | b) is none that makes up a kernel
        if dependency is None or not takes(dependency[1]):
            continue
        name, relation, version = dependency.groups()
        part = indices.newest(name, _fits(relation, version))
        if part is None:
            raise UpstreamDataError(
                f"{package.name} {package.version} needs {text}, which is not listed",
                hint="add the suite that holds it to [debian] of versions.toml",
            )
        found.append(part)
    return found


def _fits(relation: str | None, version: str) -> Callable[[Package], bool]:
    if relation is None:
        return lambda _: True
    if relation == "=":
        return lambda package: package.version == version
    return lambda package: DpkgVersion(package.version) >= DpkgVersion(version)


def upstream(version: str) -> str:
    """The upstream part of a package version: ``535.309.01`` of ``535.309.01-0+deb12u1``."""
    return DpkgVersion(version).upstream


def driver_versions(indices: Indices) -> list[str]:
    """Every NVIDIA driver that the archive has whole, in ascending order."""
    sources = (p for found in indices.packages.values() for p in found if p.name.endswith("-kernel-source"))
    found: list[DriverVersion] = []
    for text in {upstream(p.version) for p in sources if _SOURCE.fullmatch(p.source)}:
        with contextlib.suppress(UpstreamDataError):
            version = DriverVersion(text)
            if driver_packages(indices, text):
                found.append(version)
    return [version.text for version in sorted(found)]


def driver_packages(indices: Indices, driver: str) -> tuple[list[Package], list[Package], list[Package]] | None:
    """(open, proprietary, userspace) packages of exactly that driver; None where the archive has no part of it.

    Where Debian has one version under two names (535.216.03 and tesla-535), the plain name is taken.
    Raises UpstreamDataError where it has some parts and lacks module sources, libraries, or the firmware that open
    modules need.
    """
    listed = (p for found in indices.packages.values() for p in found if driver in p.version)
    every = [p for p in listed if upstream(p.version) == driver]
    source = min((p.source for p in every if _SOURCE.fullmatch(p.source)), default="")
    own = [p for p in every if p.source == source]
    opened = _one(p for p in every if _OPEN_SOURCE.fullmatch(p.name))
    closed = _one(p for p in own if p.name.endswith("-kernel-source") and not _OPEN_SOURCE.fullmatch(p.name))
    if not own and not opened:
        return None
    if not opened and not closed:
        raise UpstreamDataError(
            f"the archive lists {driver} without module sources", hint="take the version out of versions.toml"
        )
    userspace = {p.name: p for p in _latest(own) if not _NOT_USERSPACE.fullmatch(p.name)}
    if not any(_FIRMWARE.fullmatch(name) for name in userspace):
        userspace |= {p.name: p for p in _latest([p for p in every if _FIRMWARE.fullmatch(p.name)])}
    if not any(name.endswith("cuda1") for name in userspace):
        raise UpstreamDataError(
            f"the archive has module sources of {driver} and no libraries of it",
            hint="modules and libraries must be of one version: add the suite that has them to [debian]",
        )
    if opened and not any(_FIRMWARE.fullmatch(name) for name in userspace):
        raise UpstreamDataError(
            f"the archive has open modules of {driver} and no GSP firmware for them",
            hint="add component non-free-firmware to its suite in [debian]",
        )
    for tool in _OTHER_TOOLS:
        if tool not in userspace and (nearest := _nearest(indices, tool, driver)):
            userspace[tool] = nearest
    return opened, closed, sorted(userspace.values(), key=lambda p: p.name)


def _one(packages: Iterable[Package]) -> list[Package]:
    found = sorted(packages, key=lambda p: DpkgVersion(p.version))
    return found[-1:]


def _latest(packages: list[Package]) -> list[Package]:
    """For each name the highest revision."""
    best: dict[str, Package] = {}
    for package in packages:
        if package.name not in best or DpkgVersion(best[package.name].version) < DpkgVersion(package.version):
            best[package.name] = package
    return list(best.values())


def _nearest(indices: Indices, tool: str, driver: str) -> Package | None:
    """The newest ``tool`` of the driver's branch that is not newer than the driver, else the oldest that is."""
    wanted = DriverVersion(driver)
    same: list[tuple[DriverVersion, Package]] = []
    for package in indices.packages.get(tool, ()):
        try:
            version = DriverVersion(upstream(package.version))
        except UpstreamDataError:
            continue
        if version.branch == wanted.branch:
            same.append((version, package))
    same.sort(key=lambda pair: (pair[0], DpkgVersion(pair[1].version)))
    older = [package for version, package in same if version <= wanted]
    return older[-1] if older else same[0][1] if same else None
