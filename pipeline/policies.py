"""What ``versions.toml`` says of each upstream, read strictly.

Tables ``[fedora-coreos]``, ``[flatcar]``, ``[container-linux]`` and ``[nvidia]``. Apart from ``wanted``, because only
``doit update`` needs it: a run that builds nothing must not load what reads feeds.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from .errors import BadFileError
from .upstream.nvidia_policy import Drivers
from .upstream.policy import ContainerLinux, FedoraCoreOS, Flatcar
from .wanted import WANTED_FILE, Wanted

T = TypeVar("T")


class Policies(Struct, frozen=True, kw_only=True):
    """One policy a source; None where the table is missing: nobody is asked."""

    fedora_coreos: FedoraCoreOS | None = field(name="fedora-coreos", default=None)
    flatcar: Flatcar | None = None
    container_linux: ContainerLinux | None = field(name="container-linux", default=None)
    nvidia: Drivers | None = None


def policies(wanted: Wanted, name: str = str(WANTED_FILE)) -> Policies:
    """The policies in ``wanted``.

    Raises BadFileError with ``name`` and the place of the first thing that is wrong.
    """
    retired = _read(wanted.container_linux, ContainerLinux, "container-linux", name)
    return Policies(
        fedora_coreos=_read(wanted.fedora_coreos, FedoraCoreOS, "fedora-coreos", name),
        flatcar=_read(wanted.flatcar, Flatcar, "flatcar", name),
        container_linux=retired if retired and retired.enabled else None,
        nvidia=_read(wanted.nvidia, Drivers, "nvidia", name),
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
