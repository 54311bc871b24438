"""What ``versions.toml`` says of NVIDIA's drivers. Apart from nvidia_policy: every run reads it, few need what reads feeds."""

from __future__ import annotations

import datetime
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from ..core.errors import UpstreamDataError
from ..core.versions import DriverVersion
from .records import SAYING, Arch, Kind, Line, Os

SUPPORTED: Final = "newest of each supported branch"
Source = Literal["data-centre", "consumer", "redist", "debian", "unofficial"]
"""``consumer`` lists the one driver of ``latest.txt``, where a policy names that source. ``unofficial`` (the list, and else
``latest.txt``) is a hint: it makes reports, never a driver."""
_Branch = Annotated[str, Meta(pattern=r"^[0-9]{2,3}\Z")]
_Reason = Annotated[str, Meta(min_length=5, pattern=SAYING)]
_ARCHES: Final[tuple[Arch, ...]] = ("amd64", "arm64")


class _Table(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Hold(_Table, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One exact version, and why not another."""

    version: str
    reason: _Reason
    see: Line = ""

    def __post_init__(self) -> None:
        try:
            DriverVersion(self.version)
        except UpstreamDataError as error:
            raise ValueError(error.message) from error


class Drivers(_Table, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The policy.

    ``branches``: SUPPORTED (those of ``types`` whose end of life is known and to come), or branches by number; one of
    them that has ended, or whose end is not known, needs an entry in ``reasons``. ``hold`` keeps a branch at a version.
    ``exact``: further versions. ``kinds``: the kinds of module required of a branch, all that it has where nothing is
    said. ``ends``: end-of-life days that a person knows, before those of the feeds. ``sources``: who is asked, best
    first. ``cuda``: the CUDA releases whose redist manifests are read. ``fabric_manager``: pin that too, for machines
    with NVSwitch. ``os``: on whose kernels these drivers are wanted; where nothing is said, on those of every family whose
    feeds are followed (Debian's is not one).
    """

    branches: Literal["newest of each supported branch"] | tuple[_Branch, ...] = SUPPORTED
    types: tuple[str, ...] = ("production branch", "lts branch")
    reasons: dict[_Branch, _Reason] = {}
    hold: dict[_Branch, Hold] = {}
    exact: tuple[Hold, ...] = ()
    kinds: dict[_Branch, Annotated[tuple[Kind, ...], Meta(min_length=1)]] = {}
    ends: dict[_Branch, datetime.date] = {}
    arches: Annotated[tuple[Arch, ...], Meta(min_length=1)] = _ARCHES
    sources: Annotated[tuple[Source, ...], Meta(min_length=1)] = ("data-centre", "redist", "debian")
    fabric_manager: bool = False
    cuda: tuple[Annotated[str, Meta(pattern=r"^[0-9]{1,2}(\.[0-9]{1,3}){1,2}\Z")], ...] = ()
    os: tuple[Os, ...] | None = None

    def __post_init__(self) -> None:
        if "unofficial" in self.sources:
            raise ValueError("the unofficial list is a hint, not a source of drivers")
        for branch, hold in self.hold.items():
            if DriverVersion(hold.version).branch != branch:
                raise ValueError(f"{hold.version} is held for branch {branch}, and is not of it")
        versions = [hold.version for hold in (*self.hold.values(), *self.exact)]
        if twice := [version for version in versions if versions.count(version) > 1]:
            raise ValueError(f"driver {twice[0]} stands twice")
