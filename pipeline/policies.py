"""What ``versions.toml`` says of each upstream, read strictly.

The table of each OS family (``[fedora-coreos]``, …) ``[kernel-org]`` and ``[nvidia]``. Apart from ``wanted``, because only
``doit update`` needs it: a run that builds nothing must not load what reads feeds.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from . import family_names
from .errors import BadFileError
from .pinned import Os
from .upstream import families
from .upstream.nvidia_policy import Drivers
from .upstream.policy import KernelOrg, SourcePolicy
from .wanted import WANTED_FILE, Wanted

T = TypeVar("T")


class Policies(Struct, frozen=True, kw_only=True):
    """One policy a source that is asked: those of the OS families by name, and NVIDIA's."""

    families: dict[Os, SourcePolicy] = {}
    kernel_org: KernelOrg | None = field(name="kernel-org", default=None)
    nvidia: Drivers | None = None


def policies(wanted: Wanted, name: str = str(WANTED_FILE)) -> Policies:
    """The policies in ``wanted``.

    Raises BadFileError with ``name`` and the place of the first thing that is wrong.
    """
    read = {os: _read(table, families.family(os).policy, os, name) for os, table in wanted.families.items()}
    nvidia = _read(wanted.nvidia, Drivers, "nvidia", name)
    if nvidia and nvidia.os:
        family_names.check(nvidia.os, f"{name}: `$.nvidia.os`")
    return Policies(
        families={os: policy for os, policy in read.items() if policy and policy.enabled},
        kernel_org=_read(wanted.kernel_org, KernelOrg, "kernel-org", name),
        nvidia=nvidia,
    )


def _read(table: dict[str, Any] | None, kind: type[T], key: str, name: str) -> T | None:
    if table is None:
        return None
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        place = f"`$.{key}{where or '`'}"
        raise BadFileError(f"{name}: {what} - at {place}", hint="see docs/discovery.md") from error
