"""``doit update``: upstreams and wishes in, lock out. The only thing that reads upstream metadata.

A fixed point: nothing new upstream, no changed byte. What an upstream that does not answer gave before is kept, and the
upstream is named; see update_debian for what happens to single entries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from .archives import Archives
from .changes import describe
from .errors import BadFileError, PipelineError, UsageError
from .fetch import Fetcher
from .lock import dump, parse
from .pinned import Kernel, Lock
from .update_debian import debian_lock, matches, read_debian
from .wanted import Wanted


@dataclass
class Result:
    """The new lock, what changed in words and as data, and what could not be read (exit status 2 where not empty)."""

    lock: Lock
    changes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    json: dict[str, Any] = field(default_factory=dict)


def update(wanted: Wanted, old: Lock, fetcher: Fetcher, archives: Archives) -> Result:
    """What the lock should be now; nothing is written.

    An upstream's fault is never raised: it is a problem, and old entries stay. Raises UsageError where this machine
    cannot do it at all: no address of an archive is known, or apt is not installed.
    """
    problems: list[str] = []
    new = old
    for arch in wanted.debian.arches if wanted.debian else ():
        assert wanted.debian is not None
        try:
            indices = read_debian(wanted.debian, arch, fetcher, archives)
            new = debian_lock(wanted, wanted.debian, arch, new, indices, problems)
        except UsageError:
            raise
        except PipelineError as error:
            problems.append(f"debian/{arch}: {error}; what it gave before is kept")
    try:
        new = parse(dump(_wished(wanted, new)), "the new lock")
    except BadFileError as error:
        problems.append(f"{error.message}; the old lock is kept")
        new = old
    changes = describe(old, new)
    counts = {"kernels": len(new.kernels), "drivers": len(new.drivers)}
    return Result(new, changes, problems, {"changes": changes, "problems": problems, **counts})


def _wished(wanted: Wanted, lock: Lock) -> Lock:
    """Kernels with the drivers that are wanted now and pinned; what nobody wants any more goes."""
    pinned = {(d.version, d.arch) for d in lock.drivers}
    kernels = tuple(
        msgspec.structs.replace(k, drivers=tuple(v for v in wanted.drivers_for(k.kernel) if (v, k.arch) in pinned))
        for k in lock.kernels
        if _is_wished(wanted, k)
    )
    arches = {k.arch for k in kernels} | set(wanted.debian.arches if wanted.debian else ())
    own = f"debian-{wanted.debian.version_id}" if wanted.debian else ""
    used = {(k.toolchain, k.arch) for k in kernels}
    wishes = {wish.exact for wish in wanted.drivers}
    return msgspec.structs.replace(
        lock,
        kernels=kernels,
        drivers=tuple(d for d in lock.drivers if d.version in wishes and d.arch in arches),
        bases=tuple(b for b in lock.bases if b.arch in arches),
        toolchains=tuple(t for t in lock.toolchains if (t.name, t.arch) in used or (t.name == own and t.arch in arches)),
    )


def _is_wished(wanted: Wanted, kernel: Kernel) -> bool:
    if kernel.os != "debian":
        return True
    wishes = wanted.debian
    return wishes is not None and kernel.arch in wishes.arches and matches(kernel.kernel, wishes.kernels)
