"""Two sizes of test run, and how pytest-xdist shares a run out: a pytest plugin.

``pytest.mark.area("coreos")`` says which area a module of end-to-end tests belongs to, ``pytest.mark.full`` that a test is too
long for every run. A plain run leaves those out and names how many they are; ``--full`` takes everything, ``--full --area
coreos`` every test of that area. Nothing is ever left out for want of time.

All tests of a file run in one worker, since most share what a module made; so do the files of ``PAIRS``. The files in ``FIRST``
take longest, so they begin first; small ones fill in behind them. (Not by ``--dist loadgroup``: under pytest 9.2, which keeps a
test's name elsewhere, pytest-xdist 3.8 silently groups nothing.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

from pipeline.cli.commands.test import AREAS

FIRST: Final = (
    "test_coreos_kernels",
    "test_arm64",
    "test_main_job",
    "test_flatcar_kernel",
    "test_host_vm",
    "test_host_vm_driver",
    "test_host_vm_reboot",
    "test_survival",
    "test_many_runners",
)
"""Files that take longest, in the order in which they begin."""

PAIRS: Final = frozenset({"test_main_job", "test_failed_pair", "test_wrong_parts", "test_same_bytes", "test_operators"})
"""Files that share the checkouts of ``fresh_pairs``, ``full`` and ``whole`` (tests/support/pairs.py)."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--full`` and ``--area``."""
    group = parser.getgroup("size of the run")
    group.addoption("--full", action="store_true", help="run the tests that are too long for every run as well")
    group.addoption("--area", action="append", default=[], choices=list(AREAS), help="run the tests of this area alone")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose by size and area, and put the longest first."""
    full, areas = config.getoption("--full"), config.getoption("--area")
    chosen: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        mark = item.get_closest_marker("area")
        area = str(mark.args[0]) if mark else ""
        if area not in (*AREAS, ""):
            raise pytest.UsageError(f"{item.nodeid}: there is no area '{area}': one of {', '.join(AREAS)}")
        if item.get_closest_marker("e2e") and not area:
            raise pytest.UsageError(f"{item.nodeid}: an end-to-end test names its area: pytest.mark.area(…)")
        wanted = area in areas if areas else True
        (chosen if wanted and (full or not item.get_closest_marker("full")) else left).append(item)
    if left:
        config.stash[_LEFT] = len(left)
        config.hook.pytest_deselected(items=left)
    items[:] = sorted(chosen, key=_rank)


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Gives a worker a file at a time, and one of them all files of ``PAIRS``."""

    def _split_scope(self, nodeid: str) -> str:
        """Name what the test ``nodeid`` stays together with."""
        file = nodeid.partition("::")[0]
        return "pairs" if Path(file).stem in PAIRS else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Share a run out by file, whatever ``--dist`` says."""
    return ByFile(config, log)


_LEFT: Final = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let a worker tell the run's own process how many tests it was not to run."""
    if output := getattr(session.config, "workeroutput", None):
        output["left"] = session.config.stash.get(_LEFT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a worker told, in the run's own process."""
    node.config.stash[_LEFT] = getattr(node, "workeroutput", {}).get("left", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests this run left out by its size."""
    if left := terminalreporter.config.stash.get(_LEFT, 0):
        terminalreporter.write_line(f"{left} tests are left to './doit.sh test --full'")


def _rank(item: pytest.Item) -> int:
    """Tell where a test's file stands in the run: the longest, other end-to-end tests, unit tests."""
    if item.path.stem in FIRST:
        return FIRST.index(item.path.stem)
    return len(FIRST) if item.get_closest_marker("e2e") else len(FIRST) + 1
