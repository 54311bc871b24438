"""The version of the project is the same wherever it is said."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

from pipeline import VERSION
from tests.checkout import ROOT


def test_the_program_says_it_anywhere_and_doits_behind_it(tmp_path: Path) -> None:
    environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    for folder in (ROOT, tmp_path):
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "--version"], cwd=folder, env=environ, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"coreos-nvidia {VERSION} (doit {version('doit')})\n"


def test_pyproject_and_the_newest_heading_of_the_changelog_agree() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
    headings = re.findall(r"(?m)^## \[(\S+)\](?: - (\d{4}-\d\d-\d\d))?$", (ROOT / "CHANGELOG.md").read_text())
    assert headings[:2] == [("Unreleased", ""), (VERSION, headings[1][1])]
    assert all(date for _, date in headings[1:])
    assert len(headings) == len(re.findall(r"(?m)^## ", (ROOT / "CHANGELOG.md").read_text()))


def test_the_changelog_has_the_groups_of_keep_a_changelog() -> None:
    groups = set(re.findall(r"(?m)^### (.*)$", (ROOT / "CHANGELOG.md").read_text()))
    assert groups <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
