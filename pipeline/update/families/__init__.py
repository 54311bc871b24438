"""The OS families that ``doit update`` follows besides Debian: one module here each, named like the OS (``-`` as ``_``).

A module holds one ``FAMILY``. Its name is the OS in pairs and tags, and the table of its policy in ``versions.toml``; nothing
else has to be told of it. Which families there are is known without importing any: a run that builds nothing reads no feed.
"""

from __future__ import annotations

import datetime
import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ...config.distributions import names
from ...config.records import Kernel, Os
from ...config.source_policy import SourcePolicy
from ...upstream.records import Discovery, Get, Release, ReleaseKey
from ..pinning.context import Means, Unpinned

Known = Mapping[ReleaseKey, str]
"""The kernel of each release that the lock has already: nobody is asked for it again."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One OS family.

    ``policy``: its table in versions.toml. ``discover(get, policy, known)``: the releases its vendor lists, as records; a
    feed that fails is a Problem there, never raised. ``pin(release, means)``: such a release's kernel with headers, image
    and toolchain pinned, or why not; what it raises (NetworkError, UpstreamDataError, IntegrityError, PairFailed) becomes
    the reason. ``names(version)``: ID and VERSION_ID of os-release on such a host. ``channels(policy)``: those that the
    policy asks for, as releases name them. ``day(version)``: the day a release's name tells, for ``since``.
    """

    policy: type[SourcePolicy]
    discover: Callable[[Get, Any, Known], Discovery]
    pin: Callable[[Release, Means], Kernel | Unpinned]
    names: Callable[[str], tuple[str, str]]
    channels: Callable[[Any], Collection[str]]
    day: Callable[[str], datetime.date] | None = None


def family(os: Os) -> Family:
    """The family of that name. Raises KeyError where there is none."""
    if os not in names():
        raise KeyError(os)
    found = importlib.import_module(f"{__name__}.{os.replace('-', '_')}").FAMILY
    assert isinstance(found, Family)
    return found


def policy_of(os: Os) -> type[SourcePolicy]:
    """Return the record that the family's table in versions.toml is read into. Raises KeyError where there is no such family."""
    return family(os).policy
