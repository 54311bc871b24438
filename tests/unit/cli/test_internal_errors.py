"""An error that no code foresaw is named, kept whole in a file, and ends the run with status 2."""

from __future__ import annotations

from pathlib import Path

from tests import samples
from tests.small_project import SmallProject


def test_an_exception_in_a_task_is_one_line_with_the_place_of_its_traceback(tmp_path: Path) -> None:
    project = SmallProject(tmp_path / "project", samples.a_lock())
    dodo = project.root / "dodo.py"
    dodo.write_text(dodo.read_text() + "\n\ndef task_driver():\n    yield {'name': 'x', 'actions': [lambda: 1 // 0]}\n")
    ran = project.doit("driver:x")
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert line.startswith("doit: driver:x: internal error: ZeroDivisionError: ")
    assert line.endswith("please report it with build/log/internal-error.log")
    assert "Traceback" in (project.root / "build/log/internal-error.log").read_text()
