"""Outcomes as a table people read in a terminal of 80 columns, and the filters that choose from it. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Final, get_args

from msgspec import Struct

from ..core.errors import UsageError
from ..core.progress import Outcome
from ..core.text import counted
from .index import Entry, Index, count

OUTCOMES: Final[tuple[str, ...]] = get_args(Outcome)
_COLUMNS: Final = ("KERNEL", "DRIVER", "KINDS", "OUTCOME", "AGE", "SIZE")
_RIGHT: Final = ("AGE", "SIZE")
_KINDS: Final = {"open+proprietary": "both"}


class Filter(Struct, frozen=True, kw_only=True):
    """Which entries to show; nothing given takes all. ``kernel`` and ``driver`` are patterns, a driver may be a branch.

    Raises UsageError for an outcome that is none.
    """

    os: tuple[str, ...] = ()
    kernel: tuple[str, ...] = ()
    driver: tuple[str, ...] = ()
    outcome: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if wrong := [outcome for outcome in self.outcome if outcome not in OUTCOMES]:
            raise UsageError(f"'{wrong[0]}' is no outcome", hint=f"one of {', '.join(OUTCOMES)}")

    def takes(self, entry: Entry) -> bool:
        """True where ``entry`` is to be shown."""
        return (
            (not self.os or any(word in (entry.os, f"{entry.os}/{entry.arch}") for word in self.os))
            and (not self.kernel or any(fnmatchcase(entry.kernel, pattern) for pattern in self.kernel))
            and (not self.driver or any(_is(entry.driver, pattern) for pattern in self.driver))
            and (not self.outcome or entry.outcome in self.outcome)
        )


def _is(driver: str, pattern: str) -> bool:
    return fnmatchcase(driver, pattern) or driver.startswith(f"{pattern}.")


def table(entries: Sequence[Entry], *, width: int, now: datetime) -> str:
    """One line a pair below the name of its os, and below it why it is what it is, within ``width`` columns.

    Only addresses may be longer. Ages are counted up to ``now``.
    """
    entries = sorted(entries, key=lambda entry: (entry.os, entry.arch))  # stable: the index is in order of kernels
    rows = [_cells(entry, now) for entry in entries]
    widths = [max(len(row[n]) for row in [_COLUMNS, *rows]) for n in range(len(_COLUMNS))]
    lines: list[str] = []
    heading = ""
    for entry, row in zip(entries, rows, strict=True):
        if heading != f"{entry.os}/{entry.arch}":
            heading = f"{entry.os}/{entry.arch}"
            lines += ["", heading] if lines else [heading]
            lines.append(_line(_COLUMNS, widths))
        lines.append(_line(row, widths))
        for sentence in why(entry):
            lines += textwrap.wrap(
                sentence,
                max(width, 40),
                initial_indent="    ",
                subsequent_indent="      ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "".join(f"{line}\n" for line in lines)


def why(entry: Entry) -> list[str]:
    """Why the pair is what it is, what would change that, and where to read more: a sentence each."""
    said: list[str] = []
    if not entry.kernel:
        said.append("of " + ", ".join(f"{release['channel']} {release['version']}" for release in entry.releases))
    if entry.reason:
        said.append(entry.reason)
    said += [f"without {missing.kind}: {missing.reason}" for missing in entry.missing]
    if entry.lift:
        said.append(f"lifted by {entry.lift}")
    if entry.outcome == "failed":
        said.append("not tried again by itself: its recipe changes with the lock, or use --retry-failed")
    if entry.stale:
        said.append("stale: its inputs cannot be had any more")
    if not entry.wanted:
        said.append("no longer in versions.lock; its image is still in the registry")
    if entry.rule or entry.see:
        rule = f"rule {entry.rule} of compat.toml" if entry.rule and entry.rule != "versions.toml" else entry.rule or ""
        said.append("; ".join(filter(None, (rule, f"see {entry.see}" if entry.see else ""))))
    return said


def summary(index: Index, entries: Sequence[Entry]) -> str:
    """One line: how many of each outcome, out of which index."""
    words = ", ".join(f"{number} {name}" for name, number in count(entries).items()) or "none"
    source = "as known last" if index.source == "cache" else "from the registry"
    number = counted(len(index.pairs), "pair")
    if len(entries) != len(index.pairs):
        number = f"{len(entries)} of {number}"
    return f"{number}: {words}; index {index.serial} of {index.generated or 'no date'}, {source}"


def age(then: str | None, now: datetime) -> str:
    """How long ago a time like ``2026-11-24T12:00:00Z`` was, in the one unit that reads well; ``-`` where it is not known."""
    if not then:
        return "-"
    seconds = max((now - datetime.strptime(then, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)).total_seconds(), 0)
    for limit, unit, name in ((7200, 60, "min"), (2 * 86400, 3600, "h"), (float("inf"), 86400, "d")):
        if seconds < limit:
            return f"{int(seconds // unit)} {name}"
    raise AssertionError("infinity is a limit")


def size(count_of_bytes: int) -> str:
    """Bytes as people say them; ``-`` for none."""
    if not count_of_bytes:
        return "-"
    return (
        f"{count_of_bytes / 1e9:.1f} GB"
        if count_of_bytes >= 1e9
        else f"{max(count_of_bytes / 1e6, 0.1):.{count_of_bytes < 1e7:d}f} MB"
    )


def _cells(entry: Entry, now: datetime) -> tuple[str, ...]:
    kinds = "+".join(entry.kinds)
    return (
        entry.kernel or "unknown",
        entry.driver or "-",
        _KINDS.get(kinds, kinds) or "-",
        entry.outcome,
        age(entry.built, now),
        size(entry.bytes.image),
    )


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    justified = (
        cell.rjust(w) if column in _RIGHT else cell.ljust(w) for cell, w, column in zip(cells, widths, _COLUMNS, strict=True)
    )
    return ("  " + "  ".join(justified)).rstrip()
