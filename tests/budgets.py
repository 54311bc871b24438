"""How long each part of the suite took, against its share of a CI run: a pytest plugin.

A module says its part with ``pytestmark = pytest.mark.budget("thread")``; what says none is ``unit``. Nothing fails for being
slow: machines differ. The table is there to be read before a share is spent.

``DRIVER_TEST_MINUTES``: an end-to-end test that would begin later than that is skipped and named. A CI that ends a run without a
word tells nothing; this tells what a slow machine had no time for. Without it everything runs.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from typing import Final

import pytest

MINUTES: Final = {"unit": 10, "thread": 15, "discovery": 5, "coreos": 15, "host": 15, "scale": 10}
"""Minutes on a quiet machine with two cores."""

LIMIT: Final = "DRIVER_TEST_MINUTES"
_part: Final = pytest.StashKey[str]()
_seconds: Final[defaultdict[str, float]] = defaultdict(float)


_begun: Final = time.monotonic()


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
    """Add up set-up, call and tear-down."""
    part = next((str(value) for name, value in report.user_properties if name == "budget"), "unit")
    _seconds[part] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line a part that ran, their sum, and the clock: less where some ran beside others (tests/second_pytest.py)."""
    ran = {part: _seconds[part] for part in MINUTES if part in _seconds}
    if sum(ran.values()) < 60:
        return
    terminalreporter.section("minutes by part of the suite")
    for part, seconds in ran.items():
        terminalreporter.write_line(f"{part:<10} {seconds / 60:5.1f} of {MINUTES[part]}")
    terminalreporter.write_line(f"{'sum':<10} {sum(ran.values()) / 60:5.1f} of {sum(MINUTES.values())}")
    terminalreporter.write_line(f"{'clock':<10} {(time.monotonic() - _begun) / 60:5.1f}")
