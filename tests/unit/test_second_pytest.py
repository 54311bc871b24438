"""What another pytest ran is told of here as if it had run here; what it has nothing of is run here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests import second_pytest
from tests.checkout import ROOT

TESTS = """
import os
import pytest

def test_passes(): print("ran in", os.environ.get("PLACE", "this one"))
def test_fails(): assert 1 + 1 == 3, "as it should"
@pytest.mark.skip(reason="not today")
def test_is_skipped(): pass
@pytest.fixture
def broken(): raise OSError("no such thing")
def test_has_no_fixture(broken): pass
def test_is_untold(): print("ran in", os.environ.get("PLACE", "this one"))
"""
CONFTEST = """
import json, os
from pathlib import Path

pytest_plugins = ["tests.second_pytest"]

def ask():
    told = Path("told.json")
    if not told.exists():
        raise RuntimeError("'host_tests' could not be made")
    return json.loads(told.read_text())

def pytest_collection_finish(session):
    if "PLACE" not in os.environ:
        from tests import second_pytest
        tests = frozenset(item.nodeid for item in session.items)
        session.stash[second_pytest.OTHERS] = second_pytest.Others(tests, ask)
"""
TELL = ["passes", "fails", "is_skipped", "has_no_fixture"]
ENVIRON = {**{k: v for k, v in os.environ.items() if k != second_pytest.TOLD}, "PYTHONPATH": str(ROOT), "CI": "true"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def told(folder: Path, *names: str) -> list[second_pytest.Report]:
    tests = [f"test_it.py::test_{name}" for name in names]
    return second_pytest.run(tests, folder / "told", {**ENVIRON, "PLACE": "the other"}, folder)


def run(folder: Path) -> tuple[int, str, dict[str, str]]:
    """Status, output, and the outcome of each test by the XML report."""
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "--junitxml=out.xml"]
    done = subprocess.run(words, cwd=folder, env=ENVIRON, capture_output=True, text=True)
    cases = ElementTree.parse(folder / "out.xml").iter("testcase")
    outcomes = {case.get("name", ""): next((part.tag for part in case if part.tag != "system-out"), "passed") for case in cases}
    return done.returncode, done.stdout + done.stderr, outcomes


def test_what_it_told_of_stands_in_every_report_as_if_it_had_run_here(folder: Path) -> None:
    (folder / "told.json").write_text(json.dumps(told(folder, *TELL)))
    status, said, outcomes = run(folder)
    assert status == 1
    assert outcomes == {
        "test_passes": "passed",
        "test_fails": "failure",
        "test_is_skipped": "skipped",
        "test_has_no_fixture": "error",
        "test_is_untold": "passed",
    }
    assert "2 passed, 1 skipped, 1 error" in said
    assert said.count("ran in the other") == 1
    assert said.count("ran in this one") == 1, "the one that was not told of"
    assert "as it should" in said
    assert "SKIPPED [1] test_it.py" in said
    assert "not today" in said
    assert "OSError: no such thing" in said


def test_one_that_was_told_of_without_its_end_is_run_here(folder: Path) -> None:
    reports = [report for report in told(folder, "passes") if report["when"] != "teardown"]
    (folder / "told.json").write_text(json.dumps(reports))
    _, said, outcomes = run(folder)
    assert outcomes["test_passes"] == "passed"
    assert "ran in the other" not in said


def test_where_there_are_no_reports_every_test_is_run_here_and_it_is_said_why(folder: Path) -> None:
    status, said, outcomes = run(folder)
    assert status == 1
    assert len(outcomes) == 5
    assert "they are run here, since the other pytest has nothing of them: 'host_tests' could not be made" in said
    assert "ran in the other" not in said


def test_a_pytest_that_cannot_begin_is_an_error_and_no_report(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="the other pytest ended with status 4"):
        told(folder, "is_nowhere")
