"""The workflows as text: GitHub's schema, pinned actions, least rights, values through the environment."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workflow_run import evaluate, fill, load

FILES = sorted((Path(__file__).parents[3] / ".github" / "workflows").glob("*.yml"))
EACH = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
CHECKOUT = "actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8"
RIGHTS = {
    ("update", "update"): {"actions": "write", "contents": "write", "pull-requests": "write"},
    ("build", "plan"): {"contents": "read", "packages": "read"},
    ("build", "build"): {"contents": "read", "packages": "write"},
    ("build", "publish"): {"contents": "write", "packages": "write"},
}


def steps(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in load(path)["jobs"].items():
        for step in job["steps"]:
            yield name, step


def test_there_are_tests_a_daily_update_and_a_build() -> None:
    assert [path.stem for path in FILES] == ["build", "ci", "nightly", "update"]


def test_github_s_own_schema_holds() -> None:
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *map(str, FILES)]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@EACH
def test_every_action_is_pinned_by_its_full_commit(path: Path) -> None:
    for line in re.findall(r"^\s*(?:- )?uses: (.*)$", path.read_text(), re.MULTILINE):
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v[0-9.]+", line), line
    assert {step["uses"] for _, step in steps(path) if "uses" in step} <= {CHECKOUT}


@EACH
def test_no_job_has_more_rights_than_it_needs(path: Path) -> None:
    document = load(path)
    assert document["permissions"] == {"contents": "read"}
    for name, job in document["jobs"].items():
        assert job.get("permissions") == RIGHTS.get((path.stem, name)), name


@EACH
def test_values_come_to_a_script_through_its_environment_alone(path: Path) -> None:
    for _, step in steps(path):
        assert "${{" not in step.get("run", "")


@EACH
def test_the_token_stands_in_the_environment_of_the_steps_that_need_it_and_nowhere_else(path: Path) -> None:
    text = path.read_text()
    assert "secrets." not in text
    lines = [line.strip() for line in text.splitlines() if "github.token" in line]
    assert all(re.fullmatch(r"(GH_TOKEN|DRIVER_REGISTRY_PASSWORD): \$\{\{ github\.token \}\}", line) for line in lines)
    for _, step in steps(path):
        script = step.get("run", "")
        assert "set -x" not in script
        assert not re.search(
            r"(echo|printf|cat|curl).*\$\{?(GH_TOKEN|DRIVER_REGISTRY_PASSWORD)", script.replace('"password=$GH_TOKEN"', "")
        )
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@EACH
def test_every_job_ends_by_itself_and_says_which_shell(path: Path) -> None:
    for name, job in load(path)["jobs"].items():
        assert 1 <= job["timeout-minutes"] <= 350, name
        assert job["defaults"]["run"]["shell"] == "bash"


def test_a_matrix_job_that_fails_does_not_stop_the_others_and_an_empty_matrix_is_none() -> None:
    build = load(FILES[0])["jobs"]["build"]
    assert build["strategy"]["fail-fast"] is False
    assert build["if"] == "needs.plan.outputs.count != '0'"


def test_only_one_build_and_one_update_run_at_a_time_and_none_is_cancelled() -> None:
    for path in (FILES[0], FILES[2]):
        assert load(path)["concurrency"]["cancel-in-progress"] is False


def test_nothing_makes_a_package_public() -> None:
    assert not any("visibility" in path.read_text() for path in FILES)


@EACH
def test_no_script_has_what_shellcheck_finds(path: Path, tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (./doit.sh test installs it)")
    for number, (_, step) in enumerate(steps(path)):
        if "run" in step:
            script = tmp_path / f"{number}.sh"
            script.write_text(f"set -e -o pipefail\n{step['run']}")  # as GitHub calls it
            done = subprocess.run(["shellcheck", "--shell=bash", script], check=False, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("matrix.arch == 'arm64' && 'arm' || 'x86'", "x86"),
        ("!cancelled() && needs.plan.result == 'success'", True),
        ("needs.plan.outputs.count != '0'", False),
        ("inputs.retry-failed && '--retry-failed' || ''", ""),
        ("fromJSON(needs.plan.outputs.json)", {"a": 1}),
        ("always()", True),
        ("vars.UNKNOWN", ""),
    ],
)
def test_expressions_mean_what_github_means(expression: str, value: Any) -> None:
    contexts = {
        "matrix": {"arch": "amd64"},
        "needs": {"plan": {"result": "success", "outputs": {"count": "0", "json": '{"a": 1}'}}},
    }
    assert evaluate(expression, contexts) == value
    assert fill("a ${{ matrix.arch }} b", contexts) == "a amd64 b"
