"""Words that doit cannot mean are one line on stderr and exit status 3, with what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import samples
from tests.small_project import SmallProject
from tests.unit.test_plan_compat import NEEDS_PATCH, PATCH

ROOT = Path(__file__).parents[2]
DOIT = Path(sys.executable).with_name("doit")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch"], "'nosuch' is neither a command nor a task: 'doit help' names the commands, 'doit list --all' the tasks"),
        (["run", "nosuch"], "'nosuch' is neither a command nor a task: 'doit help' names the commands, "),
        (["image:debian/amd64:1.2-3"], "'image:debian/amd64:1.2-3' matches no pair of the lock: 'doit list --all' names them"),
        (["image:*1.2.3*"], "'image:*1.2.3*' matches no pair of the lock: "),
        (["*1.2.3*"], "'*1.2.3*' matches no task: a pair's task is image:<os>/<arch>:<kernel>-<driver>"),
        (["--nosuch"], "option --nosuch not recognized: see 'doit help run'"),
        (["status", "--nosuch"], "option --nosuch not recognized: see 'doit help status'"),
        (["update", "--json=yes"], "option --json must not have an argument: see 'doit help update'"),
        (["update", "now"], "update takes no 'now': see 'doit help update'"),
        (["matrix", "nosuch"], "'nosuch' is no pattern of pairs: it looks like 'image:*6.1.0-50*'"),
        (["fetch", "nosuch"], "'nosuch' is no pattern of pairs: it looks like 'image:*6.1.0-50*'"),
        (["fetch", "image:*1.2.3*"], "'image:*1.2.3*' matches no pair of the lock: "),
    ],
    ids=" ".join,
)
def test_a_word_that_cannot_be_meant(words: list[str], said: str) -> None:
    done = subprocess.run([DOIT, *words], check=False, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"doit: {said}"), done.stderr
    assert done.stderr.count("\n") == 1


def test_a_bad_file_that_only_a_task_reads_is_wrong_use_too(tmp_path: Path) -> None:
    project = SmallProject(tmp_path, samples.a_lock())
    (tmp_path / "compat.toml").write_text((NEEDS_PATCH + PATCH).replace("fc6b54ff", "00000000"))
    done = project.doit("render")
    assert done.returncode == 3, done.stderr
    assert "535-pci-resize-resource.patch: its sha256 is fc6b54ff" in done.stderr
    assert done.stderr.count("\n") == 1
