"""The minutes of the suite's parts: a minute in which several are at work is divided among them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.budgets import Work, shares, without
from tests.checkout import ROOT


def test_what_runs_alone_has_its_time() -> None:
    assert shares([Work("unit", 0, 10), Work("thread", 10, 25), Work("unit", 30, 31)]) == {"unit": 11, "thread": 15}


def test_where_several_are_at_work_each_has_its_part_of_the_clock() -> None:
    done = [Work("unit", 0, 10), Work("thread", 4, 20), Work("coreos", 8, 10)]
    found = shares(done)
    assert found == pytest.approx({"unit": 4 + 2 + 2 / 3, "thread": 2 + 2 / 3 + 10, "coreos": 2 / 3})
    assert sum(found.values()) == pytest.approx(20), "the clock's"


def test_two_of_one_part_at_once_are_two_of_three() -> None:
    assert shares([Work("host", 0, 6), Work("host", 0, 6), Work("unit", 0, 6)]) == pytest.approx({"host": 4, "unit": 2})


def test_one_that_took_no_time_has_none() -> None:
    assert shares([Work("unit", 3, 3), Work("host", 0, 4)]) == {"unit": 0, "host": 4}
    assert shares([]) == {}


def test_what_a_test_waited_for_another_is_not_its_own() -> None:
    waits = [(0.0, 1.0), (12.0, 15.0), (18.0, 19.0), (40.0, 50.0)]
    assert without(Work("coreos", 10, 20), waits) == [Work("coreos", 10, 12), Work("coreos", 15, 18), Work("coreos", 19, 20)]
    assert without(Work("coreos", 10, 20), []) == [Work("coreos", 10, 20)]


def test_the_table_counts_tests_that_ran_elsewhere_and_what_was_made_beside_them(tmp_path: Path) -> None:
    """A real run, whose clock is turned: a minute of a test, of which a maker was at work in the last half."""
    (tmp_path / "conftest.py").write_text(
        "import pytest\nfrom tests import budgets\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_runtest_logreport(report):\n"
        "    report.start, report.stop = {'setup': (0, 0), 'call': (0, 120), 'teardown': (120, 120)}[report.when]\n"
        "    if report.when == 'call': budgets.worked('coreos', 60, 120)\n"
    )
    (tmp_path / "test_it.py").write_text("import pytest\n@pytest.mark.budget('thread')\ndef test_it(): pass\n")
    words = [sys.executable, "-m", "pytest", "-p", "tests.budgets", "-c", os.devnull, "--rootdir", str(tmp_path), str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "CI": "true"}
    said = subprocess.run(words, cwd=tmp_path, env=environ, check=True, capture_output=True, text=True).stdout
    assert re.findall(r"(?m)^(\w+) +([0-9.]+) of \d+$", said) == [("thread", "1.5"), ("coreos", "0.5"), ("sum", "2.0")]
    assert re.search(r"(?m)^clock +0\.\d$", said)
