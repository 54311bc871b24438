"""What an update changes, in words: a line a change, for people and for the text of a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from ..config.records import Driver, Kernel, Lock, OsRelease, Pending
from ..core.errors import one_line
from ..core.text import counted

_SHOWN: Final = 4


def describe(old: Lock, new: Lock) -> list[str]:
    """What came (+), went (-) and changed (~) from ``old`` to ``new``, sorted by what it is and by name."""
    lines: list[str] = []

    def compare(what: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        lines.extend(f"+ {what} {name}{_detail(after[name])}" for name in sorted(after.keys() - before.keys()))
        lines.extend(f"- {what} {name}: no longer wanted" for name in sorted(before.keys() - after.keys()))
        lines.extend(
            f"~ {what} {name}: {_difference(before[name], after[name])}"
            for name in sorted(before.keys() & after.keys())
            if before[name] != after[name]
        )

    def waiting(what: str, before: dict[str, Any], after: dict[str, Any], gone: dict[str, str]) -> None:
        lines.extend(f"+ pending {what} {name}{_waits(after[name])}" for name in sorted(after.keys() - before.keys()))
        lines.extend(
            f"- pending {what} {name}: {gone.get(name, 'no longer wanted')}" for name in sorted(before.keys() - after.keys())
        )
        lines.extend(
            f"~ pending {what} {name}: {_difference(before[name], after[name])}"
            for name in sorted(before.keys() & after.keys())
            if before[name] != after[name]
        )

    compare("base", {b.arch: b for b in old.bases}, {b.arch: b for b in new.bases})
    compare("toolchain", _by_name(old.toolchains, "name"), _by_name(new.toolchains, "name"))
    compare("driver", _by_name(old.drivers, "version"), _by_name(new.drivers, "version"))
    compare("kernel", _kernels(old), _kernels(new))
    pinned = {f"{d.version}/{d.arch}" for d in new.drivers}
    gone = dict.fromkeys(pinned, "pinned now")
    waiting("driver", _by_name(old.pending_drivers, "version"), _by_name(new.pending_drivers, "version"), gone)
    gone = {kernel.key: "pinned now" for kernel in new.kernels}
    waiting("kernel", _pending(old), _pending(new), gone)
    return lines


def _by_name(entries: Iterable[Any], field: str) -> dict[str, Any]:
    return {f"{getattr(entry, field)}/{entry.arch}": entry for entry in entries}


def _kernels(lock: Lock) -> dict[str, Kernel]:
    """By name; where two builds share one, by name and headers."""
    named: dict[str, Kernel] = {}
    for kernel in lock.kernels:
        key = kernel.key if kernel.key not in named else f"{kernel.key} ({kernel.headers_digest[:12]})"
        named[key] = kernel
    return named


def _pending(lock: Lock) -> dict[str, Pending]:
    """By name; releases without a known kernel by their reason, of which there is one an architecture as a rule."""
    named: dict[str, Pending] = {}
    for p in lock.pending:
        name = p.kernel or "unknown"
        key = f"{p.os}/{p.arch}:{name}"
        named[key if key not in named else f"{key} ({p.reason})"] = p
    return named


def _waits(entry: Any) -> str:
    if isinstance(entry, Pending):
        releases = ", ".join(f"{r.channel} {r.version}" for r in entry.releases)
        return f" ({releases})" if releases else ""
    return ""


def _detail(entry: Any) -> str:
    if isinstance(entry, Kernel):
        releases = ", ".join(f"{r.channel} {r.version}" for r in entry.releases)
        return f" ({releases}) with {', '.join(entry.drivers) or 'no driver'}"
    if isinstance(entry, Driver):
        return f" ({' and '.join(entry.kinds)}, {counted(len(entry.userspace), 'package')})"
    return f" ({counted(len(entry.packages), 'package')})"


def _difference(before: Any, after: Any) -> str:
    words: list[str] = []
    for name in before.__struct_fields__:
        one, two = getattr(before, name), getattr(after, name)
        if one == two or name == "date":
            continue
        if name == "stale":
            words.append("left the archive; kept as stale" if two else "is in the archive again")
        elif isinstance(one, tuple) and any(hasattr(item, "sha256") for item in (*one, *two)):
            words.append(f"{name}: {_files(one, two)}")
        else:
            words.append(f"{name}: {_short(one)} -> {_short(two)}")
    return "; ".join(words) or "date"


def _files(one: tuple[Any, ...], two: tuple[Any, ...]) -> str:
    """``libssl3 3.0.20-1 -> 3.0.22-1, + libfoo 1.0, - libbar 2.0``, the first few."""
    was, now = {f.name: f for f in one}, {f.name: f for f in two}
    changed: list[str] = []
    for name in sorted(was.keys() | now.keys()):
        if name not in was:
            changed.append(f"+ {name} {now[name].version}")
        elif name not in now:
            changed.append(f"- {name} {was[name].version}")
        elif was[name] != now[name]:
            moved = was[name].version == now[name].version
            end = "other bytes" if was[name].sha256 != now[name].sha256 else "another address"
            changed.append(f"{name} {was[name].version} -> {end if moved else now[name].version}")
    more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    return ", ".join(changed[:_SHOWN]) + more


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_item(item) for item in value) or "none"
    return str(value)


def _item(item: Any) -> str:
    if not isinstance(item, OsRelease):
        return str(item)
    return f"{item.channel} {item.version}{' (in rollout)' if item.rollout else ''}"


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
    waiting = _counts("pending", len(lock.pending), len(lock.pending_drivers)) if _pends(lock) else ""
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


def _pends(lock: Lock) -> bool:
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
