"""Missing pairs as jobs of a CI matrix: what hosts need first comes first, and what does not fit waits. Pure.

A job is one kernel as a rule: its pairs share toolchain, headers and kernel image, and take every driver's userspace from
the registry. Only where there are more kernels than jobs do neighbours of one toolchain share a job.

Limits (GitHub, "Actions limits"; "Passing information between jobs"): 256 jobs a matrix; 1 MB of outputs a job, counted
as UTF-16; 6 hours a job.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Final

from msgspec import Struct

from ..config.records import Kernel, OsRelease
from ..core.versions import DriverVersion
from .pairs import Pair

MAX_JOBS: Final = 256
PAIRS_PER_JOB: Final = 40
"""A pair takes minutes, a job may take six hours."""
MAX_CHARACTERS: Final = 400_000
_CHANNELS: Final = ("stable", "lts")
"""Channels whose hosts come first, in this order; those of an OS without them (Debian's suites) are all alike."""


class Job(Struct, frozen=True):
    """One job. ``doit $select`` does its ``pairs`` missing pairs; ``os`` and ``arch`` say which machine it needs."""

    id: str
    select: str
    pairs: int
    os: str
    arch: str


class Matrix(Struct, frozen=True):
    """``count`` jobs; ``waiting`` missing pairs did not fit and come with the next run."""

    include: tuple[Job, ...]
    count: int
    waiting: int


def matrix(pairs: Sequence[Pair], missing: Iterable[Pair], *, jobs: int = MAX_JOBS, per_job: int = PAIRS_PER_JOB) -> Matrix:
    """The jobs for ``missing``, which are some of ``pairs``, all pairs of the plan."""
    groups: dict[int, list[Pair]] = {}
    for pair in missing:
        groups.setdefault(id(pair.kernel), []).append(pair)
    order = urgency(pairs)
    kernels = sorted(groups.values(), key=lambda group: order[id(group[0].kernel)])
    chunks = [group[start : start + per_job] for group in kernels for start in range(0, len(group), per_job)]
    bundles = [[chunk] for chunk in chunks] if len(chunks) <= jobs else list(_joined(chunks, per_job))
    shared = _shared_prefixes(pairs)
    sizes = {id(group[0].kernel): len(group) for group in kernels}
    include: list[Job] = []
    names: set[str] = set()
    characters = 0
    for bundle in bundles[:jobs]:
        job = _job(bundle, sizes, shared, names)
        characters += len(job.select) + len(job.id) + 80
        if characters > MAX_CHARACTERS:
            break
        include.append(job)
    total = sum(len(group) for group in kernels)
    return Matrix(tuple(include), len(include), total - sum(job.pairs for job in include))


def urgency(pairs: Iterable[Pair]) -> dict[int, tuple[object, ...]]:
    """A sort key for each kernel, by ``id()``: low is what hosts need first.

    Releases whose rollout the vendor's feed lists come first, as the lock has it. The newest release of a channel is the one
    that is rolled out now or next where no feed says so, and stable channels have most hosts; then the release before,
    which hosts still run while a rollout lasts; then the rest, newest first.
    """
    kernels = list({id(pair.kernel): pair.kernel for pair in pairs}.values())
    channels: dict[tuple[str, str, str], set[tuple[int, ...]]] = {}
    for kernel in kernels:
        for release in kernel.releases:
            channels.setdefault((kernel.os, kernel.arch, release.channel), set()).add(_numbers(release.version))
    places = {
        (*channel, version): place
        for channel, versions in channels.items()
        for place, version in enumerate(sorted(versions, reverse=True))
    }

    def key(kernel: Kernel) -> tuple[object, ...]:
        def rank(release: OsRelease) -> tuple[bool, int, int]:
            place = places[kernel.os, kernel.arch, release.channel, _numbers(release.version)]
            channel = _CHANNELS.index(release.channel) if release.channel in _CHANNELS else len(_CHANNELS)
            return not release.rollout, place, channel

        newest = max(_numbers(release.version) for release in kernel.releases)
        return *min(map(rank, kernel.releases)), kernel.os, kernel.arch, tuple(-n for n in newest), kernel.kernel

    return {id(kernel): key(kernel) for kernel in kernels}


def as_built(pairs: Sequence[Pair]) -> list[Pair]:
    """``pairs`` in the order of a run: kernels by urgency, on each what is soonest done, the newest driver first.

    So a first run has its first image, which somebody can pull, as early as can be.
    """
    urgent = urgency(pairs)
    newest = sorted(pairs, key=lambda pair: DriverVersion(pair.driver.version), reverse=True)
    return sorted(newest, key=lambda pair: (urgent[id(pair.kernel)], len(pair.kinds)))


def _joined(chunks: Iterable[list[Pair]], per_job: int) -> Iterator[list[list[Pair]]]:
    """Chunks of one toolchain together, up to ``per_job`` pairs; in the order of the first chunk of each."""
    bundles: list[list[list[Pair]]] = []
    opened: dict[tuple[str, str, str], list[list[Pair]]] = {}
    for chunk in chunks:
        kernel = chunk[0].kernel
        key = kernel.os, kernel.arch, kernel.toolchain
        bundle = opened.get(key)
        if bundle is None or sum(map(len, bundle)) + len(chunk) > per_job:
            bundle = opened[key] = []
            bundles.append(bundle)
        bundle.append(chunk)
    return iter(bundles)


def _job(bundle: Sequence[Sequence[Pair]], sizes: dict[int, int], shared: set[str], names: set[str]) -> Job:
    kernel = bundle[0][0].kernel
    words: list[str] = []
    for chunk in bundle:
        whole = len(chunk) == sizes[id(chunk[0].kernel)]
        if whole and chunk[0].kernel.key not in shared:
            words.append(f"image:{chunk[0].kernel.key}-*")
        else:
            words += [f"image:{pair.id}" for pair in chunk]
    plain = f"{kernel.os}-{kernel.arch}-{kernel.kernel}" + (f"+{len(bundle) - 1}" if len(bundle) > 1 else "")
    name, number = plain, 1
    while name in names:
        number += 1
        name = f"{plain}-part{number}"
    names.add(name)
    return Job(name, " ".join(words), sum(map(len, bundle)), kernel.os, kernel.arch)


def _shared_prefixes(pairs: Iterable[Pair]) -> set[str]:
    """Keys of kernels whose pattern ``image:<key>-*`` would take pairs of another kernel too."""
    kernels = {id(pair.kernel): pair.kernel for pair in pairs}.values()
    keys: set[str] = set()
    shared: set[str] = set()
    for kernel in kernels:
        (shared if kernel.key in keys else keys).add(kernel.key)
    for key in keys:
        dash = key.find("-", key.index(":"))
        while dash > 0:
            if key[:dash] in keys:
                shared.add(key[:dash])
            dash = key.find("-", dash + 1)
    return shared


@cache
def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"[0-9]+", version))
