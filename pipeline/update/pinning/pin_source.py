"""Headers of a kernel that nobody packs: kernel.org's source and the kernel's own configuration.

The tarball is what kernel.org's signed list of sums says; the configuration says itself which kernel it is of. Nobody
publishes a Module.symvers on this route: trees makes one of the kernel image.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from ...config.records import Arch, File
from ...core.errors import IntegrityError, UpstreamDataError
from ...formats import openpgp
from ...formats.unpacking import unpacked
from .context import Means, Unpinned, keyring

KERNEL_ORG: Final = "https://cdn.kernel.org/pub/linux/kernel"
MAX_CONFIG: Final = 16 << 20
_MAX_TARBALL: Final = 1 << 30
_SUM: Final = re.compile(r"([0-9a-f]{64}) [ *]([A-Za-z0-9._+-]+)")
_HEADER: Final = re.compile(r"^# Linux/(\S+) (\S+) Kernel Configuration$", re.MULTILINE)
_LOCALVERSION: Final = re.compile(r'^CONFIG_LOCALVERSION="([^"]*)"$', re.MULTILINE)
_GCC: Final = re.compile(r"^CONFIG_GCC_VERSION=([1-9][0-9]{4,5})$", re.MULTILINE)
_VERSION: Final = re.compile(r"([0-9]+\.[0-9]+)(\.[0-9]+)?(-rc[0-9]+)?(?![0-9.])")
_ARCHES: Final[dict[str, Arch]] = {"x86": "amd64", "x86_64": "amd64", "arm64": "arm64"}
NO_KEY: Final = "no fingerprint of kernel.org's signing key in [kernel-org] keys: its source could not be checked"


def kernel_org_version(kernel: str) -> str | None:
    """The kernel.org version that ``uname -r`` begins with, ``6.1.0`` for 6.1; None for what begins with none."""
    match = _VERSION.match(kernel)
    return f"{match[1]}{match[2] or '.0'}{match[3] or ''}" if match else None


def tarball(version: str, means: Means) -> File | Unpinned:
    """kernel.org's tarball of ``version``, got and held against the signed list of sums beside it.

    Raises UpstreamDataError where that list has none, IntegrityError where it is another or badly signed, and as ``tried`` says.
    """
    assert means.take is not None
    if not means.source_keys:
        return Unpinned(NO_KEY)
    folder = f"{KERNEL_ORG}/v{version.partition('.')[0]}.x"
    name = f"linux-{version.removesuffix('.0')}.tar.xz"
    where = f"{folder}/sha256sums.asc"
    said = openpgp.cleartext(means.get(where, False), keyring(means.source_keys, means.get), where).decode("utf-8", "replace")
    sums = [m[1] for line in said.splitlines() if (m := _SUM.fullmatch(line.strip())) and m[2] == name]
    if not sums:
        raise UpstreamDataError(
            f"kernel.org has no {name}: {where} does not name it", hint="a distribution's kernel needs its headers package"
        )
    taken = means.take([f"{folder}/{name}"], _MAX_TARBALL)
    if sums != [taken.sha256]:
        raise IntegrityError(f"{taken.url} is not what the signed list of sums says", hint="nothing of it is used")
    return taken.pin("linux", version, "vendor-sum")


def check_config(path: Path, where: str, kernel: str, version: str) -> Arch:
    """Hold the configuration in ``path``, packed or not, against ``kernel``; the architecture that it is for.

    Its first lines name the version (scripts/kconfig/confdata.c), and CONFIG_LOCALVERSION is a part of ``uname -r``. Raises
    IntegrityError where it is none, or another kernel's; ``where`` names it.
    """
    text = _text(path, where)
    header = _HEADER.search(text)
    if not header:
        raise IntegrityError(
            f"{where} is no kernel configuration: no line '# Linux/x86 {version} Kernel Configuration'",
            hint=f"give that of {kernel}, such as its /proc/config.gz",
        )
    own = _LOCALVERSION.search(text)
    suffix = own[1] if own else ""
    named = header[2]
    ours = named == version or (named.startswith((f"{version}-", f"{version}+")) and kernel.startswith(named))
    if not ours or suffix not in kernel[len(named) :]:
        raise IntegrityError(
            f"{where} is the configuration of {named}{suffix}, not of {kernel}",
            hint=f"give that of {kernel}, such as its /proc/config.gz",
        )
    arch = _ARCHES.get(header[1])
    if arch is None or (header[1] == "x86" and "\nCONFIG_64BIT=y\n" not in text):
        raise IntegrityError(
            f"{where} is of a kernel for {header[1]}, which is no 64-bit x86 or ARM", hint="no driver runs there"
        )
    return arch


def gcc(path: Path, where: str) -> tuple[int, int, int] | None:
    """The version of the gcc that built the kernel of the configuration in ``path`` (init/Kconfig); None where that was none.

    Raises IntegrityError where it cannot be read; ``where`` names it.
    """
    found = _GCC.search(_text(path, where))
    return (int(found[1]) // 10000, int(found[1]) // 100 % 100, int(found[1]) % 100) if found else None


def _text(path: Path, where: str) -> str:
    with path.open("rb") as file:
        return unpacked(file, where, MAX_CONFIG).read().decode("utf-8", "replace")
