"""Tests that another pytest runs beside this one, and that this one tells of in their turn: a pytest plugin.

Tests in virtual machines wait more than they compute, as many others do for an engine: one after the other they leave a
processor idle. The other pytest is a process with the same plugins; it writes each report to the file that ``TOLD`` names
(``run``), and here ``pytest_runtest_protocol`` puts those in the place of running the test. What it could not tell of to the
end is run here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

TOLD: Final = "DRIVER_TEST_TOLD"
"""In the other pytest's environment: where its reports go, a line of JSON each."""
Report = dict[str, Any]


@dataclass
class Others:
    """The tests that run elsewhere; ``ask`` waits for their reports, and raises RuntimeError where there are none."""

    tests: frozenset[str]
    ask: Callable[[], Sequence[Report]]
    told: dict[str, list[Report]] | None = None

    def reports(self, test: str) -> list[Report]:
        """Those of one test; none where it was not told of to its end."""
        if test not in self.tests:
            return []
        if self.told is None:
            self.told = {}
            try:
                for report in self.ask():
                    self.told.setdefault(report["nodeid"], []).append(report)
            except RuntimeError as error:
                print(f"\nthey are run here, since the other pytest has nothing of them: {error}", file=sys.stderr)
        found = self.told.get(test, [])
        return found if any(report["when"] == "teardown" for report in found) else []


OTHERS: Final = pytest.StashKey[Others]()


def run(tests: Sequence[str], place: Path, environ: Mapping[str, str], root: Path) -> list[Report]:
    """Run ``tests`` of the checkout ``root`` in a pytest of its own, and its reports, which go through the file ``place``.

    Raises RuntimeError where it ended with neither "all passed" nor "some failed".
    """
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--no-header", "--tb=short", *tests]
    done = subprocess.run(words, cwd=root, env={**environ, TOLD: str(place)}, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if done.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"the other pytest ended with status {done.returncode}")
    return [json.loads(line) for line in place.read_text().splitlines()]


class Teller:
    """The other pytest's part: writes every report down as it comes."""

    def __init__(self, config: pytest.Config, place: Path) -> None:
        self._config, self._place = config, place
        place.touch()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One line more."""
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        with self._place.open("a") as out:
            out.write(json.dumps(data) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    """Tell of every report where that is asked for."""
    if place := os.environ.get(TOLD):
        config.pluginmanager.register(Teller(config, Path(place)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Tell of a test that ran elsewhere; any other is run as ever."""
    others = item.session.stash.get(OTHERS, None)
    found = others.reports(item.nodeid) if others else []
    if not found:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for data in found:
        report = item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
        if isinstance(report.longrepr, list):  # where and why a test was skipped: JSON has no tuples
            report.longrepr = tuple(report.longrepr)
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
