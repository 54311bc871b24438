"""What a run of ``doit update`` says to people: Markdown that reads well in a terminal and fits a pull request's text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..config.records import Lock
from ..core.errors import one_line
from ..core.text import counted

_SECTION: Final = 10_000
"""Characters of a section. There are six at most, and GitHub takes 65 536 in the text of a pull request."""
_LINE: Final = 500
_HEADINGS: Final = {"+": "Came", "-": "Went", "~": "Changed"}


def summary(lock: Lock, changes: Sequence[str], reports: Sequence[str], problems: Sequence[str]) -> str:
    """The text: what came, went and changed in ``lock``, what people should know, what could not be read.

    A section that is too long is cut, and says by how many lines.
    """
    parts: list[str] = []
    for sign, heading in _HEADINGS.items():
        parts += _section(heading, [line.removeprefix(f"{sign} ") for line in changes if line.startswith(f"{sign} ")])
    parts += _section("Pending, and why", _reasons(lock))
    parts += _section("To know", reports)
    parts += _section("Could not be read; what was known of it is kept", problems)
    if not changes:
        parts.insert(0, "nothing changed\n")
    counts = _counts("pinned", len(lock.kernels), len(lock.drivers))
    waiting = _counts("pending", len(lock.pending), len(lock.pending_drivers)) if _waits(lock) else ""
    parts.append("; ".join(filter(None, (counts, waiting))) + ".")
    return "\n".join(parts) + "\n"


def _counts(state: str, kernels: int, drivers: int) -> str:
    return f"{state}: {counted(kernels, 'kernel')} and {counted(drivers, 'driver')}"


def _reasons(lock: Lock) -> list[str]:
    """One line an OS and reason, with what it holds up."""
    names: dict[tuple[str, str], list[str]] = {}
    for kernel in lock.pending:
        found = [f"{kernel.kernel} {kernel.arch}"] if kernel.kernel else [f"{r.version} {kernel.arch}" for r in kernel.releases]
        names.setdefault((kernel.os, kernel.reason), []).extend(found)
    for driver in lock.pending_drivers:
        names.setdefault(("nvidia", driver.reason), []).append(f"{driver.version} {driver.arch}")
    return [f"{whose}: {reason}: {', '.join(found)}" for (whose, reason), found in names.items()]


def _waits(lock: Lock) -> bool:
    return bool(lock.pending or lock.pending_drivers)


def _section(heading: str, lines: Sequence[str]) -> list[str]:
    shown: list[str] = []
    room = _SECTION
    for line in map(one_line, lines):
        text = f"- {line if len(line) <= _LINE else line[: _LINE - 1] + '…'}"
        room -= len(text) + 1
        if room < 0:
            break
        shown.append(text)
    more = [f"- … and {len(lines) - len(shown)} more"] if len(shown) < len(lines) else []
    return ["\n".join([f"### {heading}", "", *shown, *more, ""])] if lines else []
