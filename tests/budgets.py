"""How long each part of the suite took, against its share of a CI run: a pytest plugin.

A module says its part with ``pytestmark = pytest.mark.budget("thread")``; what says none is ``unit``. Nothing fails for being
slow: machines differ. The table is there to be read before a share is spent.

Much runs beside other parts (tests/beside.py, tests/second_pytest.py), and each then takes longer by the clock. So a second in
which n tests and makers were at work counts 1/n for the part of each: the parts' sum is what the run took.

``DRIVER_TEST_MINUTES``: an end-to-end test that would begin later than that is skipped and named. A CI that ends a run without a
word tells nothing; this tells what a slow machine had no time for. Without it everything runs.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import pytest

MINUTES: Final = {"unit": 10, "thread": 15, "discovery": 5, "coreos": 15, "host": 15, "scale": 10}
"""Minutes on a quiet machine with two cores."""

LIMIT: Final = "DRIVER_TEST_MINUTES"
_part: Final = pytest.StashKey[str]()
_begun: Final = time.monotonic()


class Work(NamedTuple):
    """What one test or maker did for a part of the suite, from ``begin`` to ``end`` in seconds since the epoch."""

    part: str
    begin: float
    end: float


_work: Final[list[Work]] = []
_waits: Final[list[tuple[float, float]]] = []


def worked(part: str, begin: float, end: float) -> None:
    """Count what ran beside the tests; seconds since the epoch."""
    _work.append(Work(part, begin, end))


def waited(begin: float, end: float) -> None:
    """Do not count what a test waited for another's work, which is counted where that is done; seconds since the epoch."""
    _waits.append((begin, end))


def without(work: Work, waits: Iterable[tuple[float, float]]) -> list[Work]:
    """What is left of ``work`` where it did not wait; ``waits`` are in their order and do not overlap."""
    pieces, begin = [], work.begin
    for start, stop in waits:
        if work.begin <= start and stop <= work.end:
            pieces.append(work._replace(begin=begin, end=start))
            begin = stop
    return [*pieces, work._replace(begin=begin)]


def shares(done: Sequence[Work]) -> dict[str, float]:
    """Seconds of the clock for each part: where n were at work, each counts for 1/n of the time."""
    found = dict.fromkeys((work.part for work in done), 0.0)
    turns = sorted([(work.begin, work.part, 1) for work in done] + [(work.end, work.part, -1) for work in done])
    at_work: Counter[str] = Counter()
    for (now, part, step), (then, _, _) in pairwise(turns):
        at_work[part] += step
        for name, number in at_work.items():
            found[name] += (then - now) * number / max(at_work.total(), 1)
    return found


def left() -> dict[str, str]:
    """The environment's minutes for a pytest that this process begins now; nothing where there is no limit."""
    minutes = os.environ.get(LIMIT)
    return {LIMIT: str(float(minutes) - (time.monotonic() - _begun) / 60)} if minutes else {}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what would begin too late."""
    minutes = float(os.environ.get(LIMIT) or "inf")
    if item.get_closest_marker("e2e") and time.monotonic() - _begun > 60 * minutes:
        pytest.skip(f"{minutes:g} minutes are over ({LIMIT}): not run on this machine, which is too slow or too busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note the part of each test."""
    for item in items:
        mark = item.get_closest_marker("budget")
        part = str(mark.args[0]) if mark else "unit"
        if part not in MINUTES:
            raise pytest.UsageError(f"{item.nodeid}: no part '{part}' of the suite: one of {', '.join(MINUTES)}")
        item.stash[_part] = part
        item.user_properties.append(("budget", part))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count set-up, call and tear-down, here or in another pytest."""
    part = next((str(value) for name, value in report.user_properties if name == "budget"), "unit")
    _work.extend(without(Work(part, report.start, report.stop), _waits))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line a part that ran, their sum, and the clock, which has in it what pytest itself took."""
    took = shares(_work)
    ran = {part: took[part] for part in MINUTES if part in took}
    if sum(ran.values()) < 60:
        return
    terminalreporter.section("minutes by part of the suite")
    for part, seconds in ran.items():
        terminalreporter.write_line(f"{part:<10} {seconds / 60:5.1f} of {MINUTES[part]}")
    terminalreporter.write_line(f"{'sum':<10} {sum(ran.values()) / 60:5.1f} of {sum(MINUTES.values())}")
    terminalreporter.write_line(f"{'clock':<10} {(time.monotonic() - _begun) / 60:5.1f}")
