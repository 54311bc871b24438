"""What ``versions.toml`` says of each upstream, read strictly.

The table of each OS family (``[fedora-coreos]``, …) ``[kernel-org]`` and ``[nvidia]``. Read by every command, so that a
mistake in it is an error today and not at the next update; a run that builds nothing must not load what reads feeds for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from ..core.errors import BadFileError
from . import distributions
from .nvidia_policy import Drivers
from .records import Os
from .source_policy import TABLES, KernelOrg, SourcePolicy
from .versions_toml import WANTED_FILE, Wanted

T = TypeVar("T")
KindOf = Callable[[Os], type[SourcePolicy]]


class Policies(Struct, frozen=True, kw_only=True):
    """One policy a source that is asked: those of the OS families by name, and NVIDIA's."""

    families: dict[Os, SourcePolicy] = {}
    kernel_org: KernelOrg | None = field(name="kernel-org", default=None)
    nvidia: Drivers | None = None


def policies(wanted: Wanted, name: str = str(WANTED_FILE), *, kind_of: KindOf = TABLES.__getitem__) -> Policies:
    """Read the policies in ``wanted``.

    ``kind_of`` gives the record of an OS family that is none of TABLES, from the family's own module.
    Raises BadFileError with ``name`` and the place of the first thing that is wrong.
    """
    read = {os: _read(table, TABLES.get(os) or kind_of(os), os, name) for os, table in wanted.families.items()}
    nvidia = _read(wanted.nvidia, Drivers, "nvidia", name)
    for branch, kinds in nvidia.kinds.items() if nvidia else ():
        if needless := [kind for kind in kinds if kind not in (wanted.build.kinds or kinds)]:
            what = f"{needless[0]} modules are required of {branch}, and `$.build.kinds` does not have them"
            raise BadFileError(f"{name}: {what} - at `$.nvidia.kinds`", hint="change one of the two")
    if nvidia and nvidia.os:
        distributions.check(nvidia.os, f"{name}: `$.nvidia.os`")
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
