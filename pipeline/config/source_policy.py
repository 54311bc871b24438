"""What ``versions.toml`` says of each CoreOS source: which channels, how far back, on which architectures.

A release is wanted when it is current or rolling out, or among the newest ``keep`` of its channel and architecture, or
dated ``since`` or later. What goes beyond a default (an ended channel, a retired OS) needs its ``reason``. ``keys`` are
the vendor's: without one nothing that is signed can be checked, and what depends on it stays pending.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from ..core.errors import UpstreamDataError
from ..core.versions import KernelRelease
from .records import Arch, Line, Os

FlatcarChannel = Annotated[str, Meta(pattern=r"^(stable|beta|alpha|edge|lts(-20[0-9]{2})?)\Z")]
ENDED: Final[frozenset[str]] = frozenset({"edge", "lts-2021", "lts-2022", "lts-2023"})
"""Flatcar channels that get no release any more; ``current`` there is years old. Each last release by the recorded
feeds: edge 2020-04, lts-2021 2022-10, lts-2022 2023-10, lts-2023 2025-08."""
Keep = Annotated[int, Meta(ge=0, le=1000)]


class VendorKey(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A key that a vendor signs with: its full fingerprint, and the vendor's page or file that a person took it from.

    None is built in: a fingerprint from memory would vouch for anything.
    """

    fingerprint: Annotated[str, Meta(pattern=r"^([0-9A-F]{40}|[0-9A-F]{64})\Z")]
    source: Annotated[str, Meta(pattern=r"^https://[!-~]+\Z", max_length=500)]


class KernelOrg(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whose signature below kernel.org's lists of sums counts."""

    keys: tuple[VendorKey, ...] = ()


class SourcePolicy(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every family's table has. ``enabled``: False where nobody is asked, though the table is there."""

    enabled: bool = True
    arches: Annotated[tuple[Arch, ...], Meta(min_length=1)] = ("amd64", "arm64")
    keep: Keep = 3
    since: datetime.date | None = None
    reason: Line = ""
    keys: tuple[VendorKey, ...] = ()


class FedoraCoreOS(SourcePolicy, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``barriers``: also the releases that every node passes on its way up, some with kernels of Fedora 31.

    ``images``: where a build's metadata lacks the kernel, get the release's container image (2 GB) and read its database.
    """

    streams: Annotated[tuple[Literal["stable", "testing", "next"], ...], Meta(min_length=1)] = (
        "stable",
        "testing",
        "next",
    )
    barriers: bool = False
    images: bool = True


class Flatcar(SourcePolicy, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``lts`` means the LTS lines that have not ended; an ended one is named (``lts-2023``), with the reason.

    ``ahead``: also ask the release servers, which know a release some hours before the feed does.
    """

    channels: Annotated[tuple[FlatcarChannel, ...], Meta(min_length=1)] = ("stable", "beta", "alpha", "lts")
    ahead: bool = True

    def __post_init__(self) -> None:
        if (ended := sorted(ENDED & set(self.channels))) and len(self.reason) < 5:
            raise ValueError(f"channel {ended[0]} has ended: say in `reason` why it is still wanted")


class ContainerLinux(SourcePolicy, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """CoreOS Container Linux, retired in 2020; off unless ``enabled``, which needs a ``reason``.

    ``kernels`` gives what ``uname -r`` prints on a release, for example ``"1967.6.0" = "4.14.96-coreos-r1"``: the feed
    does not hold the revision at its end (see container_linux).
    """

    enabled: bool = False
    arches: Annotated[tuple[Literal["amd64"], ...], Meta(min_length=1)] = ("amd64",)
    kernels: dict[str, str] = {}

    def __post_init__(self) -> None:
        if self.enabled and len(self.reason) < 5:
            raise ValueError("Container Linux gets no updates: say in `reason` why it is still wanted")
        for kernel in self.kernels.values():
            try:
                KernelRelease(kernel)
            except UpstreamDataError as error:
                raise ValueError(error.message) from error


TABLES: Final[Mapping[Os, type[SourcePolicy]]] = {
    "container-linux": ContainerLinux,
    "fedora-coreos": FedoraCoreOS,
    "flatcar": Flatcar,
}
"""The policies above by family, for who reads none of its feeds. A family that is not here is asked for its own."""
