"""What an update changes, in words: a line a change, for people and for the text of a pull request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ..config.records import Driver, Kernel, Lock, OsRelease, Pending
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
