"""bootstrap/words.sh: what doit.sh says of the words of its command line before there is any Python."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from pipeline.cli.commands.doit_overrides import Program

ROOT = Path(__file__).parents[3]
NEED_AN_ENGINE = {"run", "test", "strace"}


def shell(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """``script`` with the functions of bootstrap/words.sh."""
    functions = 'ROOT=$1; shift; refuse() { echo "$*"; exit 3; }; . "$ROOT/bootstrap/words.sh"'
    command = ["bash", "-euc", f"{functions}\n{script}", "bash", str(ROOT), *words]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_the_shell_knows_the_commands_that_doit_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    known = set(shell("commands").stdout.split())
    assert known == {"down", *Program().get_cmds()}
    assert {"status", "run", "help"} <= known


def test_the_shell_knows_the_tasks_of_the_graph() -> None:
    assert shell("tasks").stdout.split() == ["image", "toolchain", "driver", "render"]


def test_each_command_is_known_to_need_an_engine_or_to_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    listed = re.search(r"no engine, no registry and no root\.\n((?:.*\\\n)*.*)\)\n", (ROOT / "doit.sh").read_text())
    assert listed is not None
    without = set(re.findall(r"[a-z-]+", listed[1])) - {"--version", "render"}  # which is a task
    assert without | NEED_AN_ENGINE == set(Program().get_cmds())
    assert not without & NEED_AN_ENGINE


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("stauts", "status"),
        ("statu", "status"),
        ("statuss", "status"),
        ("imgae", "image"),
        ("toolchian", "toolchain"),
        ("tets", "test"),
        ("dwon", "down"),
        ("STATUS", ""),
        ("zzz", ""),
        ("build-everything", ""),
        ("x y", ""),
        ("a\nb", ""),
        ("$(touch x)", ""),
        ("\\n", ""),
    ],
)
def test_a_word_that_is_nothing_is_answered_with_what_may_be_meant(word: str, meant: str) -> None:
    done = shell('refuse_unknown "$@"', word)
    shown = "".join(letter if letter.isprintable() else "?" for letter in word)
    hint = f"did you mean '{meant}'? " if meant else ""
    said = f"'{shown}' is neither a command nor a task: {hint}'./doit.sh help' names the commands\n"
    assert (done.returncode, done.stdout, done.stderr) == (3, said, "")


@pytest.mark.parametrize(
    "words", [[], ["image"], ["status"], ["image:x"], ["--json"], [""], ["*9*"], ["run", "nosuch"], ["strace"]]
)
def test_a_word_that_may_be_something_is_left_to_doit(words: list[str]) -> None:
    done = shell('refuse_unknown "$@"', *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "sure"),
    [
        ([], True),
        (["image"], True),
        (["image", "render"], True),
        (["image", "stauts"], False),
        (["image:*"], False),
        (["--json"], False),
        (["ima"], False),
        ([""], False),
        ([".*"], False),
    ],
)
def test_only_the_very_names_of_tasks_need_no_question(words: list[str], sure: bool) -> None:
    assert shell('are_tasks "$@"', *words).returncode == (0 if sure else 1)
