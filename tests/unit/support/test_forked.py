"""``doit`` as most tests run it, forked from a process that has it loaded, does what the one does that a person starts."""

from __future__ import annotations

import importlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked, samples
from tests.small_project import DOIT, ROOT, SmallProject
from tests.told_server import Told, in_turn, refusal, says

WORDS = [
    ["help"],
    ["list", "--all"],
    ["info", "render"],
    ["status", "--json"],
    ["matrix"],
    ["page"],
    ["host", "debian"],
    ["prune", "--local"],
    ["fetch", "nosuch"],
    ["update", "now"],
    ["render"],
    [],
]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_it_is_the_program_that_a_person_starts(words: list[str], tmp_path: Path) -> None:
    with Told(in_turn(says(404, refusal("NAME_UNKNOWN", "no such repository")))) as empty:
        both = [
            SmallProject(tmp_path / way, samples.a_lock(), registry=empty.place, DOCKER_HOST="unix:///nowhere")
            for way in ("started", "the_same")
        ]
        for project in both:
            (project.root / "host").symlink_to(ROOT / "host")  # what doit host reads
        started = subprocess.run(
            [DOIT, *words], cwd=both[0].root, env=both[0].environ, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        ended = both[1].doit(*words)
    assert (told(ended), files(both[1])) == (told(started), files(both[0]))
    assert "Traceback" not in ended.stderr


def told(done: subprocess.CompletedProcess[str]) -> list[object]:
    """How it ended and what it said, without when and where; the digest of an index follows from its time."""
    times = r"\[ *[0-9.]+ s\]|\d{4}-\d\d-\d\d[T ][0-9:.]+(Z| UTC)|sha256:[0-9a-f]{64}|the_same|started"
    return [done.returncode, *(re.sub(times, "…", text) for text in (done.stdout, done.stderr))]


def files(project: SmallProject) -> list[str]:
    """What there is in its folder."""
    return sorted(str(path.relative_to(project.root)) for path in project.root.rglob("*") if "__pycache__" not in path.parts)


def test_all_that_is_loaded_ahead_can_be() -> None:
    for name in forked.LOADED:
        importlib.import_module(name)


def test_what_one_run_sets_is_not_there_for_the_next_and_not_here(tmp_path: Path) -> None:
    project = SmallProject(tmp_path, samples.a_lock(), registry="127.0.0.1:9")
    here, environ = Path.cwd(), dict(os.environ)
    wrong = project.doit("list", DRIVER_MIRRORS=str(tmp_path / "none.toml"), DRIVER_INSECURE="nonsense")
    assert wrong.returncode == 3
    assert project.doit("list").returncode == 0
    assert (Path.cwd(), dict(os.environ)) == (here, environ)


def test_one_that_does_not_end_is_ended(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        project = SmallProject(tmp_path, samples.a_lock(), registry=f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(subprocess.TimeoutExpired):
            project.doit("matrix", seconds=0.5)


def test_its_standard_input_is_empty_and_its_arguments_are_its_own(tmp_path: Path) -> None:
    project = SmallProject(tmp_path, samples.a_lock())
    (tmp_path / "dodo.py").write_text("import sys\nprint(sys.argv, repr(sys.stdin.read()), file=sys.stderr)\n")
    assert project.doit("list").stderr == "['doit', 'list'] ''\n"
    assert sys.argv[1:2] != ["list"]
