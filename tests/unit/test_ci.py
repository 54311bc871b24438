"""What runs on other machines (workflows, hooks, .ci/run) calls the one command and takes nothing by a name that moves."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.y*ml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_commit_with_its_version_beside_it(path: Path) -> None:
    for line in path.read_text().splitlines():
        if found := re.match(r"\s*(?:- )?uses:\s*(.*)", line):
            assert re.fullmatch(r"\./\S+|[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*", found[1]), line


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_no_right_that_it_does_not_name(path: Path) -> None:
    assert re.search(r"^permissions:", path.read_text(), re.MULTILINE), "what is not said is whatever the repository allows"


def test_the_workflow_ci_runs_what_ci_run_does_and_nothing_else() -> None:
    steps = re.findall(r"^ +(?:- )?run: (.*)$", (ROOT / ".github/workflows/ci.yml").read_text(), re.MULTILINE)
    assert steps[-1] == "bash .ci/run"
    assert not any("pytest" in step or "doit" in step for step in steps)


def test_ci_run_is_the_one_test_command_and_leaves_nothing_running() -> None:
    path = ROOT / ".ci/run"
    assert path.stat().st_mode & stat.S_IXUSR
    lines = [line.strip() for line in path.read_text().splitlines() if "doit.sh" in line and not line.startswith("#")]
    assert lines == ["./doit.sh down || status=$((status ? status : $?))", './doit.sh test "$@" </dev/null']


def test_ci_run_finds_nothing_that_was_installed_by_hand(tmp_path: Path) -> None:
    """Were a newer Python first in PATH, what Debian's does not have would be found by users alone."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/run").write_bytes((ROOT / ".ci/run").read_bytes())
    (tmp_path / "doit.sh").write_text("#!/bin/sh\nenv | grep ^PATH=\n")
    (tmp_path / "doit.sh").chmod(0o755)
    environ = {**os.environ, "PATH": f"/usr/local/bin:{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(["bash", tmp_path / ".ci/run"], capture_output=True, text=True, env=environ, check=True)
    assert set(ran.stdout.splitlines()[:2]) == {"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}


@pytest.mark.parametrize(("minutes", "ended"), [("", "2 passed"), ("60", "2 passed"), ("0", "1 passed, 1 skipped")])
def test_an_end_to_end_test_that_would_begin_too_late_is_skipped_by_name_where_a_limit_is_set(
    tmp_path: Path, minutes: str, ended: str
) -> None:
    (tmp_path / "test_two.py").write_text("import pytest\n@pytest.mark.e2e\ndef test_long(): pass\ndef test_short(): pass\n")
    words = [sys.executable, "-m", "pytest", "-p", "tests.budgets", "-c", os.devnull, "--rootdir", str(tmp_path), "-rs"]
    environ = {**os.environ, "DRIVER_TEST_MINUTES": minutes, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([*words, "-p", "no:cacheprovider", tmp_path], capture_output=True, text=True, env=environ, check=True)
    assert f"{ended} in" in ran.stdout or f"{ended}, " in ran.stdout, ran.stdout
    assert ("0 minutes are over (DRIVER_TEST_MINUTES)" in ran.stdout) == ("skipped" in ended)


def test_hooks_run_the_pinned_tools_and_download_nothing() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"repo: (.*)", text) == ["local"]
    assert set(re.findall(r"language: (.*)", text)) == {"system"}
    entries = re.findall(r"entry: (\S+)", text)
    assert entries == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy", "shellcheck"]
