"""bootstrap/python.sh: which Python the environment is made with, and what is said where none will do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
REAL = "/usr/bin/python3"
OLD = "sys.version_info = (3, 10, 9)"
NO_VENV = "sys.modules['ensurepip'] = None"
FIND = """
ROOT=$1 && say() { echo "$*" >&2; } && die() { say "$@" && exit 2; }
. "$ROOT/bootstrap/python.sh"
SYSTEM_PYTHON=$2 ANSWERS_WITHIN=${3-30}
find_python && echo "$PYTHON"
"""


def python(place: Path, before: str = "") -> Path:
    """The real Python under another name, which does ``before`` first."""
    place.parent.mkdir(exist_ok=True)
    place.write_text(f'#!/bin/sh\nwhile [ "$1" != -c ]; do shift; done\nexec {REAL} -I -c "import sys; {before}\n$2"\n')
    place.chmod(0o755)
    return place


def find(system: Path, folder: Path, *seconds: str) -> tuple[int, str, str]:
    """Status, the one that was found, and what was said, with ``folder`` before all others that PATH has."""
    words = ["/bin/bash", "-euc", FIND, "bash", str(ROOT), str(system), *seconds]
    done = subprocess.run(words, env={"PATH": str(folder)}, capture_output=True, text=True)
    return done.returncode, done.stdout.strip(), done.stderr


def test_the_systems_own_comes_first_whatever_path_has(tmp_path: Path) -> None:
    system = python(tmp_path / "usr/python3")
    python(tmp_path / "local/python3")
    assert find(system, tmp_path / "local") == (0, str(system), "")


@pytest.mark.parametrize("before", [OLD, NO_VENV])
@pytest.mark.parametrize("name", ["python3", "python3.14", "python3.13", "python3.12", "python3.11"])
def test_another_is_taken_where_the_systems_own_is_too_old_or_has_no_venv(before: str, name: str, tmp_path: Path) -> None:
    python(tmp_path / "local" / name)
    assert find(python(tmp_path / "usr/python3", before), tmp_path / "local") == (0, name, "")
    assert find(tmp_path / "none", tmp_path / "local") == (0, name, "")


def test_a_python_too_old_is_said_in_one_line_before_anything_is_installed(tmp_path: Path) -> None:
    system = python(tmp_path / "usr/python3", OLD)
    python(tmp_path / "local/python3", OLD)
    said = f"{system} is Python 3.10, and 3.11 or newer with its venv module is needed: install one\n"
    assert find(system, tmp_path / "local") == (2, "", said)


@pytest.mark.parametrize("version", ["(2, 7, 18)", "(3, 9, 2)", "(3, 6, 0)"])
def test_every_older_python_is_too_old(version: str, tmp_path: Path) -> None:
    status, _, said = find(python(tmp_path / "usr/python3", f"sys.version_info = {version}"), tmp_path)
    assert (status, said.count("\n")) == (2, 1)


def test_where_venv_alone_is_missing_its_package_can_be_installed(tmp_path: Path) -> None:
    system = python(tmp_path / "usr/python3", NO_VENV)
    assert find(system, tmp_path / "local") == (1, "", "")
    assert find(tmp_path / "none", tmp_path / "local") == (1, "", ""), "nor is there any"


def test_a_python_that_crashes_is_none_and_the_shell_says_nothing_of_it(tmp_path: Path) -> None:
    broken = tmp_path / "usr/python3"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nkill -SEGV $$\n")
    broken.chmod(0o755)
    assert find(broken, tmp_path / "local") == (1, "", "")
    python(tmp_path / "local/python3")
    assert find(broken, tmp_path / "local") == (0, "python3", "")


def test_a_python_that_hangs_is_none(tmp_path: Path) -> None:
    hangs = python(tmp_path / "usr/python3", "import time; time.sleep(60)")
    python(tmp_path / "local/python3")
    assert find(hangs, tmp_path / "local", "3") == (0, "python3", "")
