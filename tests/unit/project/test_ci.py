"""What runs on other machines (workflows, hooks, .ci/run) calls the one command and takes nothing by a name that moves."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.cli.commands.test import AREAS

ROOT = Path(__file__).parents[3]
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


def test_the_nightly_workflow_runs_every_area_whole_by_the_same_script() -> None:
    (job,) = YAML(typ="safe").load((ROOT / ".github/workflows/nightly.yml").read_text())["jobs"].values()
    assert job["strategy"]["matrix"]["area"] == list(AREAS)
    assert job["steps"][-1] == {"run": 'bash .ci/run --full "$AREA"', "env": {"AREA": "${{ matrix.area }}"}}
    assert job["strategy"]["fail-fast"] is False


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


def test_hooks_run_the_pinned_tools_and_download_nothing() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"repo: (.*)", text) == ["local"]
    assert set(re.findall(r"language: (.*)", text)) == {"system"}
    entries = re.findall(r"entry: (\S+)", text)
    assert entries == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy", "shellcheck"]
