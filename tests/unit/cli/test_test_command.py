"""``doit test``: which words choose areas, which are pytest's, and what a run leaves to ``--full``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.commands.test import AREAS, FULL, WORKERS, pytest_words
from pipeline.core.errors import UsageError
from tests.checkout import ROOT

SHARED = [*WORKERS, "--durations=20"]


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ([], SHARED),
        (["-x"], [*SHARED, "-x"]),
        (["-k", "golden"], [*SHARED, "-k", "golden"]),
        (["tests/unit"], ["tests/unit"]),
        (["-k", "golden", "tests/unit"], ["-k", "golden", "tests/unit"]),
        (["dodo.py::test_x"], ["dodo.py::test_x"]),
        (["-n0"], ["-n0"]),
        ([FULL], [*SHARED, FULL]),
        ([FULL, "host"], [*SHARED, FULL, "--area=host"]),
        ([FULL, "host", "scale", "-x"], [*SHARED, FULL, "--area=host", "--area=scale", "-x"]),
        ([FULL, "tests/e2e"], [FULL, "tests/e2e"]),
    ],
)
def test_areas_are_chosen_and_other_words_are_pytests(words: list[str], given: list[str]) -> None:
    assert pytest_words(words, ROOT) == given


@pytest.mark.parametrize(
    ("words", "named"), [([FULL, "hots"], "hots"), (["host"], "host"), (["tests/unit/test_no.py"], "test_no")]
)
def test_a_name_that_is_neither_area_nor_file_is_wrong_use(words: list[str], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        pytest_words(words, ROOT)


def doit_test(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", "test", *words]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("words", [[""], [FULL, ""], ["tests/unit", ""]])
def test_an_empty_word_is_no_test_file(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^'' is no test file"):
        pytest_words(words, ROOT)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nosuch"], "pytest: unrecognized arguments: --nosuch: 'doit test --help' lists its options"),
        (["--check-words", "tests/unit/core/test_versions.py", "-k"], "pytest: argument -k: expected one argument: "),
        (["--check-words", "-p", "nosuch"], 'pytest: Error importing plugin "nosuch": '),
    ],
)
def test_words_that_pytest_does_not_take_are_one_line(words: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "test", *words], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1), done.stderr
    assert done.stderr.startswith(f"doit: {said}")


@pytest.mark.parametrize("words", [[FULL, "host", "-k", "", "-x"], [FULL, "host", "scale"]])
def test_words_that_it_takes_are_looked_at_and_nothing_is_run(words: list[str]) -> None:
    """A folder ``host`` lies in the checkout, which pytest must not take for the one whose options it has to know."""
    done = doit_test("--check-words", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


MODULE = """
import pytest
pytestmark = [pytest.mark.e2e, pytest.mark.area("{area}")]
def test_short(): pass
@pytest.mark.full
def test_long(): pass
"""


def run(folder: Path, *words: str) -> str:
    """What pytest says of two modules of end-to-end tests and one of unit tests."""
    for area in ("host", "scale"):
        (folder / f"test_{area}.py").write_text(MODULE.format(area=area))
    (folder / "test_unit.py").write_text("def test_unit(): pass\n")
    markers = "[pytest]\nmarkers =\n  e2e: x\n  area: x\n  full: x\n"
    (folder / "pytest.ini").write_text(markers)
    command = [sys.executable, "-m", "pytest", "-p", "tests.support.areas", "-c", str(folder / "pytest.ini"), *words, str(folder)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run([*command, "-p", "no:cacheprovider"], check=False, capture_output=True, text=True, env=environ)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "passed", "left"), [((), 3, 2), ((FULL,), 5, 0), ((FULL, "--area", "host"), 2, 3), (("--area", "scale"), 1, 4)]
)
def test_a_run_takes_the_tests_of_its_size_and_counts_the_others(
    tmp_path: Path, words: tuple[str, ...], passed: int, left: int
) -> None:
    for workers in ((), ("-n", "1")):
        said = run(tmp_path, *workers, *words)
        assert f"{passed} passed" in said, said
        assert (f"{left} tests are left to './doit.sh test --full'" in said) == (left > 0), said


def test_a_test_of_an_area_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(MODULE.format(area="moon"))
    assert "there is no area 'moon': one of " in run(tmp_path)


def test_an_area_with_the_name_of_a_folder_is_run() -> None:
    """pytest took the word after ``--area`` for the folder ``host``, and did not know its own options any more."""
    words = pytest_words([FULL, "host", "--collect-only", "-q"], ROOT)
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line} >= {"tests/e2e/test_host_vm.py"}


def test_each_area_has_its_row_in_contributing() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for area in AREAS:
        assert f"| `{area}` |" in text, area


def test_the_tests_of_a_file_run_in_one_worker_and_so_do_those_that_share_a_pair(tmp_path: Path) -> None:
    """``--dist loadgroup`` looked as if it did that, and had stopped to: each shared thing was made twice."""
    for name in ("one", "two", "main_job", "failed_pair", "operators"):
        text = "import pytest\n@pytest.mark.parametrize('i', range(4))\ndef test_it(i): pass\n"
        (tmp_path / f"test_{name}.py").write_text(text)
    said = run(tmp_path, "-n", "2", "--no-loadscope-reorder", "-v")
    ran: dict[str, set[str]] = {}
    for worker, name in re.findall(r"(?m)^\[(gw\d)\].* PASSED .*test_(\w+)\.py::", said):
        ran.setdefault(name, set()).add(worker)
    assert {"one", "two", "main_job"} < set(ran)
    assert all(len(workers) == 1 for workers in ran.values()), said
    assert len(frozenset().union(*ran.values())) == 2, said
    assert ran["main_job"] == ran["failed_pair"] == ran["operators"]
