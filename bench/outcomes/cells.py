"""Which cells the table has, and in which order they are measured: what teaches most comes first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from pipeline.config.records import Kernel, Kind
from pipeline.core.versions import KernelRelease
from pipeline.outcomes.index import Entry
from pipeline.plan.pairs import Pair

from .results import Given, Results, Row

FIRST: Final = ("535.309.01", "550.163.01", "535.261.03", "470.256.02")
"""Drivers that people run before others of the same branch."""


def series(kernel: Kernel) -> str:
    """``6.12`` of ``6.12.117+deb13-cloud-amd64``."""
    return ".".join(kernel.version.split(".")[:2])


def spread(count: int) -> list[int]:
    """The places 0 to ``count - 1``: the last, the first, and then always one farthest from all before it."""
    chosen: list[int] = []
    for place in (count - 1, 0):
        if 0 <= place < count and place not in chosen:
            chosen.append(place)
    while len(chosen) < count:
        left = (place for place in range(count) if place not in chosen)
        chosen.append(max(left, key=lambda place: min(abs(place - other) for other in chosen)))
    return chosen


def ranks(kernels: Iterable[Kernel]) -> dict[str, int]:
    """Each kernel's turn: 0 for the newest of each series and flavour, 1 for the oldest, then those farthest apart."""
    lines: dict[tuple[str, str], list[Kernel]] = {}
    for kernel in kernels:
        flavour = "cloud" if "-cloud-" in kernel.kernel else "generic"
        lines.setdefault((series(kernel), flavour), []).append(kernel)
    turns: dict[str, int] = {}
    for line in lines.values():
        line.sort(key=lambda kernel: KernelRelease(kernel.kernel))
        turns |= {line[place].kernel: turn for turn, place in enumerate(spread(len(line)))}
    return turns


def ordered(pairs: Sequence[Pair]) -> list[Pair]:
    """``pairs`` in the order in which to measure them; those of one kernel and driver stay one, as they share probes."""
    turns = ranks({pair.kernel.kernel: pair.kernel for pair in pairs}.values())
    versions = [*FIRST, *sorted({pair.driver.version for pair in pairs} - set(FIRST))]
    return sorted(
        pairs,
        key=lambda pair: (
            turns[pair.kernel.kernel] + versions.index(pair.driver.version) // len(FIRST) * 2,
            versions.index(pair.driver.version),
            pair.kernel.kernel,
        ),
    )


def given(pair: Pair, kind: Kind, gcc: str, modules: tuple[str, ...]) -> Given:
    """What a measurement of one kind of ``pair`` is of."""
    return Given(
        kernel=pair.kernel.kernel,
        driver=pair.driver.version,
        kind=kind,
        headers=pair.kernel.headers_digest,
        sources=pair.driver.modules(kind)[0].sha256,
        gcc=gcc,
        modules=modules,
        patches={patch.file: patch.sha256 for patch in pair.patches[kind]},
    )


def cells(pairs: Iterable[Pair]) -> list[tuple[Pair, Given]]:
    """Every cell of the table, as it would be measured now."""
    found = []
    for pair in pairs:
        renderer = pair.renderer
        gcc = renderer.lock.toolchain(pair.kernel).gcc or ""
        modules = renderer.modules(pair.driver)
        found += [(pair, given(pair, kind, gcc, modules)) for kind in pair.kinds]
    return found


def built(pairs: Iterable[Pair], entries: Iterable[Entry], wanted: Iterable[Given]) -> list[Row]:
    """Rows for what an index says is built, of exactly the wanted inputs: its proof is the same, and more.

    A failure is none of these: an index does not say which step it was.
    """
    found = {(e.kernel, e.headers, e.driver): e for e in entries if e.outcome == "built" and e.built}
    asked = set(map(_hashable, wanted))
    rows = []
    for _, one in cells(pairs):
        entry = found.get((one.kernel, f"sha256:{one.headers}", one.driver))
        if entry and one.kind in entry.kinds and _hashable(one) in asked:
            rows.append(Row(given=one, outcome="loads", measured=entry.built or ""))
    return rows


def _hashable(one: Given) -> tuple[object, ...]:
    return tuple(tuple(v.items()) if isinstance(v, dict) else v for v in msgspec.structs.astuple(one))


def left(pairs: Iterable[Pair], results: Results) -> list[tuple[Pair, Given]]:
    """The cells that have no result yet, or one of other inputs."""
    return [(pair, one) for pair, one in cells(pairs) if results.of(one) is None]
