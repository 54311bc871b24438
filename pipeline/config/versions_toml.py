"""``versions.toml``: what people want tracked, built, held back or left out, each exception with its reason.

Strict like the lock: an unknown key or a wrong type is an error of one line with the path in the file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from ..core.errors import BadFileError, PipelineError, UsageError
from ..core.files import MAX_UNPACKED
from ..core.versions import DriverVersion, VersionRange, within
from . import distributions
from .records import KINDS, SAYING, Arch, Driver, Kernel, Kind, Line, Name, Os, Url

WANTED_FILE: Final = Path("versions.toml")
Reason = Annotated[str, Meta(min_length=5, pattern=SAYING)]
Module = Literal["nvidia", "nvidia-uvm", "nvidia-modeset", "nvidia-drm", "nvidia-peermem"]
"""A kernel module of the driver."""
Pattern = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._+~*?\[\]-]{1,100}\Z")]


class _Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Settings(_Table, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Each has an environment variable of the same meaning, which wins."""

    registry: str = "localhost:5000"
    docker_host: str = ""
    mirrors: str = ""
    source_date_epoch: Annotated[int, Meta(ge=0, lt=10**11)] = 0
    max_unpacked: Annotated[int, Meta(ge=1 << 20)] = MAX_UNPACKED
    source_url: Annotated[str, Meta(pattern=r"^https://[A-Za-z0-9._~:/?#@%&=+-]+\Z")] = (
        "https://github.com/Avalanche-io/coreos-nvidia"
    )


class Suite(_Table, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One suite of a package archive, for example ``bookworm-security`` of ``debian-security``."""

    archive: Name
    suite: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)*\Z")]
    components: tuple[Name, ...] = ("main", "contrib", "non-free", "non-free-firmware")


PackageWish = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.+-]{0,127}( \[(amd64|arm64)\])?\Z")]
"""A package, or with `` [arm64]`` after its name one that is wanted on that architecture only, as in Debian's control files."""


class Debian(_Table, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Debian's archive as a source of kernels, drivers, toolchain and base.

    ``source_toolchain`` is what kernel.org's source needs more than ``toolchain``: flex, bison, libssl-dev. It gives a
    toolchain ``debian-<n>-source``, for kernels whose headers are their source. Of what a pattern in ``kernels`` takes,
    only the newest ``keep`` of each series and flavour are wanted; all for 0. ``cross`` says for an architecture on which
    its toolchain runs where that is another: ``{arm64 = "amd64"}``, with a cross compiler among its packages.
    """

    version_id: Name
    keyring: str
    suites: Annotated[tuple[Suite, ...], Meta(min_length=1)]
    arches: tuple[Arch, ...] = ("amd64",)
    cross: dict[Arch, Arch] = {}
    kernels: tuple[Pattern, ...] = ()
    keep: Annotated[int, Meta(ge=0, le=1000)] = 0
    toolchain: Annotated[tuple[PackageWish, ...], Meta(min_length=1)]
    source_toolchain: tuple[PackageWish, ...] = ()
    base: Annotated[tuple[PackageWish, ...], Meta(min_length=1)]


class DriverWish(_Table, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One driver to build, on the kernels that match one of the patterns."""

    exact: Name
    reason: Reason
    see: Line = ""
    kernels: tuple[Pattern, ...] = ("*",)
    required: tuple[Kind, ...] = ()


class Exclusion(_Table, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Pairs that are not tried: every condition that stands must hold. ``kernel`` compares kernel.org versions."""

    reason: Reason
    see: Line = ""
    lift: Line = ""
    driver: str = ""
    kernel: str = ""
    os: tuple[Os, ...] = ()
    arch: tuple[Arch, ...] = ()

    def covers(self, kernel: Kernel, driver: str) -> bool:
        """True where this exclusion is about that pair."""
        return (
            (not self.driver or within(driver, self.driver))
            and (not self.kernel or within(kernel.version, self.kernel))
            and (not self.os or kernel.os in self.os)
            and (not self.arch or kernel.arch in self.arch)
        )


class ToolchainWish(_Table, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What compiles for one OS: a vendor's image, by digest for each architecture, and addresses of packages on top of it."""

    name: Name
    os: Os
    image: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)+:[A-Za-z0-9._-]+\Z")]
    digests: dict[Arch, Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]]
    packages: dict[Arch, tuple[Url, ...]] = {}
    reason: Line = ""


class Build(_Table, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How modules are made. ``modules`` empty: all that the driver has (NV_KERNEL_MODULES otherwise); ``kinds`` too."""

    modules: tuple[Module, ...] = ()
    kinds: tuple[Kind, ...] = ("open", "proprietary")


class Wanted(_Table, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file. What upstreams are asked for is read by ``policies``: only ``doit update`` needs it.

    ``families``: the table of each OS family, under the family's name; in the file they stand at the top.
    """

    settings: Settings = Settings()
    archives: dict[Name, tuple[str, ...]] = {}
    build: Build = Build()
    debian: Debian | None = None
    families: dict[Os, dict[str, Any]] = {}
    kernel_org: dict[str, Any] | None = field(name="kernel-org", default=None)
    nvidia: dict[str, Any] | None = None
    drivers: tuple[DriverWish, ...] = field(name="driver", default=())
    exclusions: tuple[Exclusion, ...] = field(name="exclude", default=())
    toolchains: tuple[ToolchainWish, ...] = field(name="toolchain", default=())

    def exclusion(self, kernel: Kernel, driver: str) -> Exclusion | None:
        """The first exclusion that covers the pair."""
        return next((e for e in self.exclusions if e.covers(kernel, driver)), None)

    def drivers_for(self, kernel: str) -> tuple[str, ...]:
        """Versions wanted on a kernel string, in the order they stand."""
        return tuple(w.exact for w in self.drivers if any(fnmatchcase(kernel, p) for p in w.kernels))


def parse(text: str, name: str = str(WANTED_FILE)) -> Wanted:
    """The wishes in ``text``.

    Raises BadFileError with ``name`` and the place of the first thing that is wrong.
    """
    try:
        wanted = msgspec.convert(_gathered(tomllib.loads(text)), Wanted)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise BadFileError(f"{name}: {error}", hint="see 'Wishes' in the README") from error
    for number, toolchain in enumerate(wanted.toolchains):
        distributions.check((toolchain.os,), f"{name}: `$.toolchain[{number}].os`")
    for number, exclusion in enumerate(wanted.exclusions):
        distributions.check(exclusion.os, f"{name}: `$.exclude[{number}].os`")
    for target, runner in wanted.debian.cross.items() if wanted.debian else ():
        if target == runner or not {target, runner} <= {*wanted.debian.arches}:  # type: ignore[union-attr]
            raise BadFileError(
                f"{name}: {target} cannot be compiled on {runner} - at `$.debian.cross`",
                hint="name two architectures of [debian] arches: {arm64 = 'amd64'}",
            )
    seen: set[str] = set()
    for number, wish in enumerate(wanted.drivers):
        _version(wish.exact, f"{name}: `$.driver[{number}].exact`")
        kinds = wanted.build.kinds or KINDS
        if needless := [kind for kind in wish.required if kind not in kinds]:
            raise BadFileError(
                f"{name}: {needless[0]} modules are required, and `$.build.kinds` does not have them - at `$.driver[{number}]`",
                hint="change one of the two",
            )
        if wish.exact in seen:
            raise BadFileError(f"{name}: two entries for driver {wish.exact} - at `$.driver[{number}]`")
        seen.add(wish.exact)
    for number, exclusion in enumerate(wanted.exclusions):
        if not (exclusion.driver or exclusion.kernel or exclusion.os or exclusion.arch):
            raise BadFileError(
                f"{name}: an exclusion without a condition leaves out everything - at `$.exclude[{number}]`",
                hint="say driver, kernel, os or arch",
            )
        for text_range in filter(None, (exclusion.driver, exclusion.kernel)):
            try:
                VersionRange(text_range)
            except PipelineError as error:
                raise BadFileError(f"{name}: {error.message} - at `$.exclude[{number}]`", hint=error.hint) from error
    return wanted


def _gathered(tables: dict[str, Any]) -> dict[str, Any]:
    """The file's tables with those of OS families below ``families``, and a family's toolchains among ``toolchain``."""
    found = {os: tables.pop(os) for os in distributions.names() if os in tables}
    own = [
        {"os": os, **wish}
        for os, table in found.items()
        if isinstance(table, dict)
        for wish in table.pop("toolchain", ())
        if isinstance(wish, dict)
    ]
    if "families" in tables:  # the name is ours: as in any table, what nobody knows is an error
        tables["families "] = tables.pop("families")
    toolchains = {"toolchain": [*tables.get("toolchain", ()), *own]} if own else {}
    return {**tables, **toolchains, "families": found}


def _version(text: str, where: str) -> None:
    try:
        DriverVersion(text)
    except PipelineError as error:
        raise BadFileError(f"{where}: {error.message}", hint=error.hint) from error


def load(path: Path = WANTED_FILE) -> Wanted:
    """The wishes in ``path``.

    Raises BadFileError where it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadFileError(f"{path}: {error}", hint="it is part of the project; restore it") from error
    if all(line.strip()[:1] in ("", "#") for line in text.splitlines()):  # cut short, or emptied: not what anybody wishes
        raise BadFileError(f"{path} is blank", hint="it is part of the project; restore it")
    return parse(text, str(path))


def kinds_of(wanted: Wanted, driver: Driver) -> tuple[Kind, ...]:
    """The kinds that an image of ``driver`` is to hold."""
    return tuple(kind for kind in driver.kinds if kind in (wanted.build.kinds or KINDS))


def settings(wanted: Wanted, environ: Mapping[str, str] = os.environ) -> Settings:
    """``wanted.settings`` with what the environment says on top.

    Raises UsageError for a variable that cannot be meant.
    """
    chosen: dict[str, Any] = msgspec.structs.asdict(wanted.settings)
    variables = (("registry", "DRIVER_REGISTRY"), ("docker_host", "DOCKER_HOST"), ("mirrors", "DRIVER_MIRRORS"))
    for key, variable in variables:
        if value := environ.get(variable):
            chosen[key] = value
    if epoch := environ.get("SOURCE_DATE_EPOCH"):
        if not (epoch.isascii() and epoch.isdigit() and len(epoch) < 12):
            raise UsageError(f"SOURCE_DATE_EPOCH is '{epoch}'", hint="set it to seconds since 1970, or unset it")
        chosen["source_date_epoch"] = int(epoch)
    if limit := environ.get("DRIVER_MAX_UNPACKED"):
        if not (limit.isascii() and limit.isdigit() and int(limit[:18]) >= 1 << 20):
            raise UsageError(f"DRIVER_MAX_UNPACKED is '{limit}'", hint="set it to bytes, 1048576 or more, or unset it")
        chosen["max_unpacked"] = int(limit)
    if (plain := environ.get("DRIVER_INSECURE", "")) not in ("", "0", "1"):
        raise UsageError(f"DRIVER_INSECURE is '{plain}'", hint="set it to 1 for plain http to the registry, or unset it")
    return Settings(**chosen)
