"""Every ``run:`` step of the update and build workflows, in order, against a local registry, a local archive and a local git.

Stand-ins: builds are tiny (tests/tiny_project.py), ``doit.sh`` is a line that calls them, ``apt-get`` and ``gh`` note what
they were asked, and what is pushed goes to a bare repository beside the checkout.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.registry.client import Registry
from tests import registry_process, tiny_project
from tests.registry_process import running_registry
from tests.tiny_project import MAIN, TinyProject, served_packages, walk
from tests.workflow_run import Ran, evaluate, fill, load, machine, run_job

WORKFLOWS = Path(__file__).parents[2] / ".github" / "workflows"
TOKEN = "ghs_a-synthetic-token"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.area("scale"),
    pytest.mark.skipif(not registry_process.installed(), reason=registry_process.MISSING),
]


class Runner:
    """A repository with an origin, and the programs that a job finds."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.programs, self.notes = root / "programs", root / "notes"
        self.programs.mkdir(parents=True)
        self.notes.touch()
        self.program("apt-get", f'printf "apt-get %s\\n" "$*" >>{shlex.quote(str(self.notes))}')
        self.program("gh", f'printf "gh %s\\n" "$*" >>{shlex.quote(str(self.notes))}; [ -n "$GH_TOKEN" ]')
        self.environ = machine(self.programs, HOME=str(root / "home"))
        (root / "home").mkdir()
        self.origin = root / "origin.git"
        self.git("init", "--quiet", "--bare", str(self.origin), at=root)

    def program(self, name: str, script: str) -> None:
        place = self.programs / name
        place.write_text(f"#!/bin/sh\n{script}\n")
        place.chmod(0o755)

    def git(self, *words: str, at: Path) -> str:
        return subprocess.run(["git", *words], check=True, cwd=at, env=self.environ, capture_output=True, text=True).stdout

    def checkout(self, folder: Path, doit: str) -> None:
        """Make ``folder`` a checkout whose ``doit.sh`` is this script."""
        (folder / "doit.sh").write_text(f"#!/bin/sh\n{doit}\n")
        (folder / "doit.sh").chmod(0o755)
        (folder / ".gitignore").write_text("build/\n")
        self.git("init", "--quiet", "--initial-branch", "main", at=folder)
        self.git("config", "user.name", "test", at=folder)
        self.git("config", "user.email", "test@example.com", at=folder)
        self.git("add", ".", at=folder)
        self.git("commit", "--quiet", "--message", "start", at=folder)
        self.git("remote", "add", "origin", str(self.origin), at=folder)
        self.git("push", "--quiet", "origin", "main", at=folder)

    def run(self, job: dict[str, Any], folder: Path, name: str, **contexts: Any) -> Ran:
        github = {
            "token": TOKEN,
            "actor": "someone",
            "ref_name": "main",
            "repository": "origin.git",
            "server_url": str(self.root),
        }
        ran = run_job(job, folder, {"github": github, **contexts}, self.root / "temp" / name, self.environ)
        assert TOKEN not in ran.log + ran.summary + self.notes.read_text()
        return ran


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "runner")


# The daily update.


def updating(runner: Runner, tmp_path: Path, script: str) -> tuple[Ran, Path]:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "versions.lock").write_text("old\n")
    runner.checkout(folder, script)
    job = load(WORKFLOWS / "update.yml")["jobs"]["update"]
    return runner.run(job, folder, "update", vars={"DRIVER_ARCHIVES": "debian=http://127.0.0.1:1/debian"}), folder


def test_a_change_becomes_a_pull_request_whose_checks_are_started(runner: Runner, tmp_path: Path) -> None:
    script = 'echo "archives: $DRIVER_ARCHIVES" >&2; echo new >versions.lock; echo "kernel 6.1.0-57 is new"'
    ran, _ = updating(runner, tmp_path, script)
    assert ran.success, ran.log
    assert "archives: debian=http://127.0.0.1:1/debian" in ran.log
    assert runner.git("show", "update-lock:versions.lock", at=runner.origin) == "new\n"
    assert runner.git("log", "--format=%s", "main..update-lock", at=runner.origin) == "Update versions.lock\n"
    notes = runner.notes.read_text()
    assert "gh pr create --head update-lock --base main --title Update versions.lock --body-file" in notes
    assert notes.endswith("gh workflow run ci.yml --ref update-lock\n")
    assert "kernel 6.1.0-57 is new" in ran.summary
    assert "could not be read" not in ran.summary
    assert "gh workflow run ci.yml --ref update-lock" in ran.summary


def test_a_dead_source_is_named_in_the_pull_request_for_the_rest_and_the_job_is_red(runner: Runner, tmp_path: Path) -> None:
    script = 'echo new >versions.lock; echo "driver 580.1 is new"; echo "doit: flatcar stable: no answer: try later" >&2; exit 2'
    ran, _ = updating(runner, tmp_path, script)
    assert not ran.success
    assert "gh pr create" in runner.notes.read_text()
    body = (runner.root / "temp" / "update" / "body").read_text()
    assert "driver 580.1 is new" in body
    assert re.search(r"could not be read.*doit: flatcar stable: no answer: try later", body, re.DOTALL)
    assert ran.steps[-1] == ("Fail where a source could not be read, so that somebody looks", 1)


def test_nothing_new_opens_nothing(runner: Runner, tmp_path: Path) -> None:
    ran, _ = updating(runner, tmp_path, 'echo "nothing changed"')
    assert ran.success, ran.log
    assert "gh pr" not in runner.notes.read_text()
    assert "update-lock" not in runner.git("branch", at=runner.origin)


def test_a_pull_request_that_is_open_is_renewed(runner: Runner, tmp_path: Path) -> None:
    runner.program("gh", f'printf "gh %s\\n" "$*" >>{shlex.quote(str(runner.notes))}; [ "$2" != list ] || echo 7')
    ran, folder = updating(runner, tmp_path, "echo new >versions.lock")
    assert ran.success, ran.log
    assert "gh pr edit update-lock --body-file" in runner.notes.read_text()
    assert "gh pr create" not in runner.notes.read_text()
    runner.git("switch", "--quiet", "main", at=folder)
    runner.git("branch", "-D", "update-lock", at=folder)
    (folder / "doit.sh").write_text("#!/bin/sh\necho newer >versions.lock\n")
    runner.git("commit", "--quiet", "--all", "--message", "another day", at=folder)
    job = load(WORKFLOWS / "update.yml")["jobs"]["update"]
    again = runner.run(job, folder, "again", vars={})
    assert again.success, again.log
    assert runner.git("show", "update-lock:versions.lock", at=runner.origin) == "newer\n"


def test_a_bad_file_fails_the_job_at_once(runner: Runner, tmp_path: Path) -> None:
    ran, _ = updating(runner, tmp_path, 'echo "doit: versions.toml: no" >&2; exit 3')
    assert not ran.success
    assert "gh pr" not in runner.notes.read_text()


# The build.


@pytest.fixture
def built(tmp_path: Path, runner: Runner) -> Iterator[tuple[TinyProject, str]]:
    if reason := tiny_project.missing():
        pytest.skip(reason)
    with ExitStack() as stack:
        archive, packages = stack.enter_context(served_packages(tmp_path / "archive"))
        address = stack.enter_context(running_registry(tmp_path / "registry"))
        kernels = ("6.1.30", "6.1.31")
        project = TinyProject(tmp_path / "project", archive, packages, registry=address, salt=uuid.uuid4().hex, kernels=kernels)
        stack.callback(project.forget)
        runner.environ["DOCKER_HOST"] = project.environ["DOCKER_HOST"]
        doit = f'[ "$1" != down ] || exit 0; exec {shlex.quote(sys.executable)} {shlex.quote(str(MAIN))} "$@"'
        runner.checkout(project.root, doit)
        yield project, address


def test_plan_matrix_and_publish_in_order_and_a_second_time_with_nothing_to_do(
    built: tuple[TinyProject, str], runner: Runner, tmp_path: Path
) -> None:
    project, address = built
    document = load(WORKFLOWS / "build.yml")
    jobs = document["jobs"]
    variables = {"DRIVER_REGISTRY": address, "DRIVER_ARCHIVES": project.environ["DRIVER_ARCHIVES"], "PUBLISH_PAGE": "true"}
    base: dict[str, Any] = {"vars": variables, "inputs": {}}
    base["env"] = {name: fill(value, base) for name, value in document["env"].items()}

    plan = runner.run(jobs["plan"], project.root, "plan", **base)
    assert plan.success, plan.log
    assert plan.outputs["count"] == "2"
    needs = {"plan": {"outputs": plan.outputs, "result": "success"}}
    assert evaluate(jobs["build"]["if"], {"needs": needs}) is True
    matrix = fill(jobs["build"]["strategy"]["matrix"], {"needs": needs})
    assert [job["pairs"] for job in matrix["include"]] == [1, 1]
    for row in matrix["include"]:
        assert fill(jobs["build"]["runs-on"], {"matrix": row}) == "ubuntu-24.04"
        ran = runner.run(jobs["build"], project.root, row["id"], matrix=row, needs=needs, **base)
        assert ran.success, ran.log
        assert "1 of 1 pair built" in ran.log

    published = runner.run(jobs["publish"], project.root, "publish", needs=needs, **base)
    assert published.success, published.log
    page = runner.git("show", "gh-pages:index.html", at=runner.origin)
    assert page.startswith("<!doctype html>")
    index = json.loads(runner.git("show", "gh-pages:index.json", at=runner.origin))
    assert [pair["outcome"] for pair in index["pairs"]] == ["built", "built"]
    assert "index" in Registry(address, environ={}).tags()
    walk(Registry(address, environ={}))

    (project.root / "build/index.json").unlink()  # as on a runner that has only the checkout
    late = runner.run(jobs["build"], project.root, "late", matrix=matrix["include"][0], needs=needs, **base)
    assert late.success, late.log
    assert "nothing is left to do" in late.log
    assert " built" not in late.log, "no run was begun"

    again = runner.run(jobs["plan"], project.root, "again", **base)
    assert again.outputs["count"] == "0"
    assert evaluate(jobs["build"]["if"], {"needs": {"plan": {"outputs": again.outputs}}}) is False
    assert evaluate(jobs["publish"]["if"].strip("${} "), {"needs": {"plan": {"result": "success"}}}) is True


def test_a_plan_without_the_repository_s_variable_says_which(built: tuple[TinyProject, str], runner: Runner) -> None:
    project, _ = built
    plan = runner.run(load(WORKFLOWS / "build.yml")["jobs"]["plan"], project.root, "plan", env={"DRIVER_REGISTRY": ""})
    assert not plan.success
    assert "set the repository variable DRIVER_REGISTRY" in plan.log
