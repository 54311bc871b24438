"""The last line of a run: how many pairs there are, how many of them are built, and what the others wait for. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, TypeAlias

from ..config.distributions import title
from ..config.records import Os, Pending
from ..core.progress import Outcome
from ..core.text import counted

Told: TypeAlias = tuple[Os, Outcome]
"""What is counted of a pair."""
_OTHERS: Final[tuple[Outcome, ...]] = ("failed", "excluded")


def unpinned(known: Iterable[Pending]) -> list[Told]:
    """Pairs of kernels that the lock knows and does not pin: one for each driver wanted there, one where none is chosen yet."""
    return [(kernel.os, "pending") for kernel in known for _ in kernel.drivers or ("",)]


def line(told: Iterable[Told]) -> str:
    """``3 of 24 pairs built; 21 pending: 18 Flatcar, 3 Fedora CoreOS: doit status``; a failed one is told before all else."""
    counts = Counter(told)
    totals: Counter[Outcome] = Counter()
    for (_, outcome), number in counts.items():
        totals[outcome] += number
    parts = [f"{totals['built']} of {counted(totals.total(), 'pair')} built"]
    parts += [f"{totals[outcome]} {outcome}" for outcome in _OTHERS if totals[outcome]]
    if totals["pending"]:
        waiting = sorted((-number, title(os)) for (os, outcome), number in counts.items() if outcome == "pending")
        parts.append(f"{totals['pending']} pending: {', '.join(f'{-number} {name}' for number, name in waiting)}")
    return "; ".join(parts) + (": doit status" if len(parts) > 1 else "")
