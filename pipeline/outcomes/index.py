"""Outcomes: what became of every pair. The registry's tags hold the truth; the index is what people and hosts read.

Format: ``schema`` 1 as fixed in the documentation; readers ignore unknown fields, a change of meaning raises it.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct, field

from ..config.records import LINE, OsRelease, Pending, PendingDriver
from ..core.errors import UpstreamDataError
from ..core.progress import Outcome
from ..plan.pairs import Pair

INDEX_FILE: Final = Path("build/index.json")


class Missing(Struct, frozen=True):
    """An optional kind that failed."""

    kind: str
    reason: str


class Bytes(Struct, frozen=True):
    """Compressed bytes: of all layers, and of the layers that only this kernel has."""

    image: int = 0
    kernel_layer: int = 0


class Seconds(Struct, frozen=True):
    """How long it took where it was built; 0 where that was not kept."""

    build: float = 0.0
    proof: float = 0.0


class Entry(Struct, frozen=True, kw_only=True):
    """One pair."""

    os: str
    arch: str
    kernel: str
    driver: str
    kinds: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    headers: str = ""
    releases: tuple[dict[str, str], ...] = ()
    outcome: Outcome
    reason: str | None = None
    see: str | None = None
    stale: bool = False
    tags: tuple[str, ...] = ()
    digest: str | None = None
    recipe: str = ""
    bytes: Bytes = Bytes()
    seconds: Seconds = Seconds()
    built: str | None = None
    """When it was built; None where nobody kept that: the image itself is the same whenever it is made."""
    released: str | None = None
    """The date of the source that first listed the kernel."""
    proof: dict[str, Any] = {}
    lift: str | None = None
    rule: str | None = None
    wanted: bool = True

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What makes it the same pair in two indexes."""
        return self.os, self.arch, self.kernel, self.driver, self.headers

    @property
    def id(self) -> str:
        """``<os>/<arch>:<kernel>-<driver>``."""
        return f"{self.os}/{self.arch}:{self.kernel}-{self.driver}"


class Index(Struct, frozen=True, kw_only=True):
    """The whole document. ``serial`` never falls."""

    schema: Literal[1] = 1
    serial: int = 0
    generated: str = ""
    source: Literal["registry", "cache"] = "registry"
    pairs: tuple[Entry, ...] = field(default=())

    def by_key(self) -> dict[tuple[str, str, str, str, str], Entry]:
        """Entries by what makes them the same pair."""
        return {entry.key: entry for entry in self.pairs}


_decoder: Final = msgspec.json.Decoder(Index)
_plain: Final = re.compile(LINE)


def parse(data: bytes, name: str) -> Index:
    """The index in ``data``.

    Raises UpstreamDataError naming ``name``.
    """
    collecting = gc.isenabled()
    gc.disable()  # thousands of entries: the collector would go over them again and again, and take half of the time
    try:
        index = _decoder.decode(data)
        suspect = not data.isascii() or b"\\" in data or b"\x7f" in data  # else no text can hold what LINE forbids
        if suspect and not all(map(_is_plain, index.pairs)):
            raise ValueError("a text in it holds control characters")
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UpstreamDataError(f"{name} is not an index: {error}", hint="it is rebuilt from the registry's tags") from error
    finally:
        if collecting:
            gc.enable()
    return index


def _is_plain(entry: Entry) -> bool:
    """True where what terminals are shown of ``entry`` is text."""
    texts = (entry.os, entry.arch, entry.kernel, entry.driver, entry.reason, entry.see, entry.lift, entry.rule)
    more = (text for missing in entry.missing for text in (missing.kind, missing.reason))
    releases = (text for release in entry.releases for text in release.values())
    return all(_plain.match(text or "") for text in (*texts, *more, *releases))


def dump(index: Index) -> bytes:
    """One entry a line, so that two indexes can be compared by eye."""
    head = {k: v for k, v in msgspec.to_builtins(msgspec.structs.replace(index, pairs=())).items() if k != "pairs"}
    rows = ",\n  ".join(msgspec.json.encode(entry).decode() for entry in index.pairs)
    start = msgspec.json.encode(head).decode()[:-1]
    return f'{start},"pairs":[\n  {rows}\n]}}\n'.encode() if index.pairs else f'{start},"pairs":[]}}\n'.encode()


def entry_of(pair: Pair, outcome: Outcome, **values: Any) -> Entry:
    """An entry for ``pair`` with what the lock says of it."""
    kernel = pair.kernel
    return Entry(
        os=kernel.os,
        arch=kernel.arch,
        kernel=kernel.kernel,
        driver=pair.driver.version,
        headers=f"sha256:{kernel.headers_digest}",
        releases=releases_of(kernel.releases),
        released=kernel.date,
        recipe=f"sha256:{pair.recipe}",
        outcome=outcome,
        **values,
    )


def releases_of(releases: Iterable[OsRelease]) -> tuple[dict[str, str], ...]:
    """Releases as the index shows them."""
    return tuple({"channel": r.channel, "version": r.version} for r in releases)


def excluded(pair: Pair) -> Entry:
    """The entry of a pair that a rule leaves out."""
    rule = pair.exclusion
    assert rule is not None
    return entry_of(pair, "excluded", reason=rule.reason, see=rule.see or None, lift=rule.lift or None, rule=rule.rule)


def left_out(pair: Pair) -> tuple[Missing, ...]:
    """The optional kinds that a rule of compat.toml leaves out of ``pair``."""
    return tuple(
        Missing(kind, f"left out by rule {verdict.rule.name}: {verdict.rule.reason}")
        for kind, verdict in pair.left_out.items()
        if verdict.rule
    )


def pending(known: Pending, drivers: Iterable[PendingDriver] = ()) -> list[Entry]:
    """Entries for a kernel that is not pinned, or for drivers on it that are not (``drivers`` says why)."""
    waiting = {driver.version: driver.reason for driver in drivers if driver.arch == known.arch}

    def reason(driver: str) -> str:
        return f"{known.reason}; driver {driver}: {waiting[driver]}" if driver in waiting else known.reason

    return [
        Entry(
            os=known.os,
            arch=known.arch,
            kernel=known.kernel,
            driver=driver,
            releases=releases_of(known.releases),
            outcome="pending",
            reason=reason(driver),
            see=known.see or None,
        )
        for driver in known.drivers or ("",)
    ]


def same(old: Index, new: Sequence[Entry]) -> bool:
    """True where nothing but serial and time would change."""
    return msgspec.json.encode(old.pairs) == msgspec.json.encode(tuple(new))


def kernel_files(entries: Iterable[Entry]) -> dict[str, bytes]:
    """``kernel/<arch>/<kernel>``: one line a driver, ``<nvidia> <outcome> <digest or -> <reason>``, for hosts without JSON."""
    files: dict[str, list[str]] = {}
    for entry in entries:
        if not entry.driver or not entry.kernel or "/" in entry.kernel:
            continue
        reason = " ".join((entry.reason or "").split())
        line = f"{entry.driver} {entry.outcome} {entry.digest or '-'} {reason}".rstrip()
        files.setdefault(f"kernel/{entry.arch}/{entry.kernel}", []).append(line)
    return {path: ("\n".join(lines) + "\n").encode() for path, lines in files.items()}


def count(entries: Iterable[Entry]) -> Mapping[str, int]:
    """How many of each outcome, only those that occur, in a fixed order."""
    return tally(entry.outcome for entry in entries)


def tally(outcomes: Iterable[Outcome]) -> Mapping[str, int]:
    """``count`` where there are no entries yet."""
    """How many of each outcome, only those that occur, in a fixed order."""
    totals: dict[str, int] = dict.fromkeys(("built", "failed", "excluded", "pending"), 0)
    for outcome in outcomes:
        totals[outcome] += 1
    return {name: number for name, number in totals.items() if number}
