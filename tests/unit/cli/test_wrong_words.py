"""Words that doit cannot mean are one line on stderr and exit status 3, with what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import forked, samples
from tests.small_project import SmallProject
from tests.told_server import Told, in_turn, refusal, says
from tests.unit.plan.test_pair_rules import NEEDS_PATCH, PATCH

ROOT = Path(__file__).parents[3]
PROGRAM = (sys.executable, "-m", "pipeline")
"""What .venv/bin/doit starts, in an environment that was made before it had that script too."""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch"], "'nosuch' is neither a command nor a task: 'doit help' names the commands, 'doit list --all' the tasks"),
        (["stauts"], "'stauts' is neither a command nor a task: did you mean 'status'? 'doit help' names the commands, "),
        (["toolchan"], "'toolchan' is neither a command nor a task: did you mean 'toolchain'? 'doit help' names the commands, "),
        (["help", "prnue"], "'prnue' is neither a command nor a task: did you mean 'prune'? 'doit help' names the commands, "),
        (["--json", "status"], "'status' is a command, not a task: a command comes first, its options behind it"),
        (["image", "status"], "'status' is a command, not a task: a command comes first, its options behind it"),
        (["--jsn"], "option --jsn not recognized: did you mean '--json'? see 'doit help run'"),
        (["driver:9*"], "'driver:9*' matches no task: 'doit list --all' names them"),
        (["toolchain:*nosuch*"], "'toolchain:*nosuch*' matches no task: 'doit list --all' names them"),
        (["--check-words", "image:*1.2.3*"], "'image:*1.2.3*' matches no pair of the lock: "),
        (["--check-words", "nosuch"], "'nosuch' is neither a command nor a task: "),
        (["--check-words", "driver:nosuch"], "'driver:nosuch' is neither a command nor a task: "),
        (["run", "nosuch"], "'nosuch' is neither a command nor a task: 'doit help' names the commands, "),
        (["image:debian/amd64:1.2-3"], "'image:debian/amd64:1.2-3' matches no pair of the lock: 'doit list --all' names them"),
        (["image:*1.2.3*"], "'image:*1.2.3*' matches no pair of the lock: "),
        (["image:host*"], "'image:host*' matches no pair of the lock: 'doit update --host' pins this machine's kernel"),
        (["*1.2.3*"], "'*1.2.3*' matches no task: a pair's task is image:<os>/<arch>:<kernel>-<driver>"),
        (["image", "--json"], "option --json stands behind a word: options come first"),
        (["matrix", "image:*", "--jobs", "2"], "option --jobs stands behind a word: options come first"),
        (["--nosuch"], "option --nosuch not recognized: see 'doit help run'"),
        (["status", "--nosuch"], "option --nosuch not recognized: see 'doit help status'"),
        (["update", "--json=yes"], "option --json must not have an argument: see 'doit help update'"),
        (["update", "now"], "update takes no 'now': see 'doit help update'"),
        (["matrix", "nosuch"], "'nosuch' is no pattern of pairs: it looks like 'image:*6.1.0-50*'"),
        (["fetch", "nosuch"], "'nosuch' is no pattern of pairs: it looks like 'image:*6.1.0-50*'"),
        (["fetch", "image:*1.2.3*"], "'image:*1.2.3*' matches no pair of the lock: "),
        ([""], "'' is neither a command nor a task: leave the empty word out"),
        (["status", ""], "'' is neither a command nor a task: leave the empty word out"),
        (["info", "nosuch"], "'nosuch' is neither a command nor a task: 'doit help' names the commands"),
        (["info"], "info takes one task: 'doit list --all' names them"),
        (["help", "nosuch"], "'nosuch' is neither a command nor a task: 'doit help' names the commands"),
        (["help", "run", "list"], "help takes one word, not 'list' too: see 'doit help'"),
        (["list", "--nosuch"], "option --nosuch not recognized: see 'doit help list'"),
        (["list", "nosuch"], "'nosuch' is not a task: 'doit help' names the commands"),
        (["forget", "nosuch"], "'nosuch' is not a task: "),
        (["clean", "nosuch"], "'nosuch' is not a task: "),
        (["info", "--nosuch"], "option --nosuch not recognized: see 'doit help info'"),
        (["help", "--nosuch"], "option --nosuch not recognized: see 'doit help help'"),
        (["dumpdb"], "'dumpdb' is neither a command nor a task: "),
        (["image=*6.1.0-50*"], "'image=*6.1.0-50*' matches no pair of the lock: "),
        (["status", "os=debian"], "status takes no 'os=debian': see 'doit help status'"),
        (["-n", "x"], "Error parsing parameter 'num_process' "),
        (["-n", "-1"], "-n takes 1 or more: it is the number of pairs to build at once"),
    ],
    ids=" ".join,
)
def test_a_word_that_cannot_be_meant(words: list[str], said: str, tmp_path: Path) -> None:
    with Told(in_turn(says(404, refusal("NAME_UNKNOWN", "no such repository")))) as empty:
        done = SmallProject(tmp_path, samples.a_lock(), registry=empty.place).doit(*words)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"doit: {said}"), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["", "\n", "# nothing but a comment\n"])
def test_wishes_that_are_blank_are_a_bad_file(text: str, tmp_path: Path) -> None:
    project = SmallProject(tmp_path, samples.a_lock())
    (tmp_path / "versions.toml").write_text(text)
    done = project.doit("list", "--all")
    assert done.returncode == 3
    assert done.stderr.endswith("versions.toml is blank: it is part of the project; restore it\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("file", ["versions.toml", "compat.toml"])
def test_an_escape_code_in_a_reason_is_a_bad_file(file: str, tmp_path: Path) -> None:
    project = SmallProject(tmp_path, samples.a_lock())
    name = {"versions.toml": "exclude", "compat.toml": 'rule]]\nname = "x"\noutcome = "exclude"\nsee = "https://e.org/"\n#'}[file]
    (tmp_path / file).write_text(f'[[{name}]]\ndriver = "535"\nreason = "it does not \\u001b[2J compile"\n')
    done = project.doit("list", "--all")
    assert done.returncode == 3, done.stderr
    assert f"{file}: " in done.stderr
    assert "[0].reason" in done.stderr
    assert "\x1b" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["status", "matrix", "page", "prune", "list", "list --all", "render", "fetch", "run"])
def test_a_mistake_in_the_table_of_a_source_is_a_bad_file_to_who_reads_no_source_too(command: str, tmp_path: Path) -> None:
    project = SmallProject(tmp_path, samples.a_lock(), '[flatcar]\nchannels = ["stabel"]\n', registry="localhost:1")
    done = project.doit(*command.split())
    assert (done.returncode, done.stdout) == (3, "")
    assert "versions.toml: " in done.stderr
    assert "`$.flatcar.channels[0]`" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ("[fedora-coreos]\nstraems = []\n", "unknown field `straems` - at `$.fedora-coreos`"),
        ('[fedora-coreos]\nkeep = "3"\n', "`$.fedora-coreos.keep`"),
        ('[flatcar]\nsince = "yesterday"\n', "`$.flatcar.since`"),
        ('[container-linux]\nkernels = {"1967.6.0" = "?"}\n', "`$.container-linux`"),
        ("[container-linux]\nenabled = true\n", "say in `reason` why it is still wanted"),
        ('[nvidia]\nbranches = ["five"]\n', "`$.nvidia.branches"),
        ('[kernel-org]\nkeys = ["x"]\n', "`$.kernel-org.keys[0]`"),
    ],
)
def test_every_table_of_a_source_is_read_by_every_command(table: str, place: str, tmp_path: Path) -> None:
    done = SmallProject(tmp_path, samples.a_lock(), table).doit("list", "--all")
    assert done.returncode == 3, done.stdout
    assert place in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_script_doit_is_our_program() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"doit": "pipeline.cli.program:main"}


@pytest.mark.parametrize("words", [[], ["list"], ["status", "--json"], ["nosuch"], [""]], ids=str)
def test_a_directory_that_is_no_checkout_is_said_in_one_line(words: list[str], tmp_path: Path) -> None:
    done = forked.doit(words, tmp_path, os.environ)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"doit: there is no dodo.py in {tmp_path}: run it in the checkout, or run ./doit.sh of the checkout\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["help"], ["list"], ["help", "status"]], ids=" ".join)
def test_what_can_be_meant_ends_well(command: list[str]) -> None:
    done = subprocess.run([*PROGRAM, *command], check=False, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 1


def test_a_bad_file_that_only_a_task_reads_is_wrong_use_too(tmp_path: Path) -> None:
    project = SmallProject(tmp_path, samples.a_lock())
    (tmp_path / "compat.toml").write_text((NEEDS_PATCH + PATCH).replace("fc6b54ff", "00000000"))
    done = project.doit("render")
    assert done.returncode == 3, done.stderr
    assert "535-pci-resize-resource.patch: its sha256 is fc6b54ff" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--help"], ["help"]),
        (["-h"], ["help"]),
        (["update", "--help"], ["help", "update"]),
        (["prune", "--apply", "-h"], ["help", "prune"]),
        (["list", "--help"], ["help", "list"]),
    ],
    ids=" ".join,
)
def test_help_is_also_what_other_programs_call_it(words: list[str], shown: list[str]) -> None:
    said, meant = (forked.doit(which, ROOT, os.environ) for which in (words, shown))
    assert said.returncode == meant.returncode == 0
    assert said.stdout == meant.stdout != ""
    assert said.stderr == ""


@pytest.mark.parametrize(
    "words", [[], ["image"], ["render", "toolchain"], ["image:*", "driver:*"], ["--json", "-n", "2", "image"]]
)
def test_words_that_can_be_meant_are_checked_and_nothing_is_done(tmp_path: Path, words: list[str]) -> None:
    done = SmallProject(tmp_path, samples.a_lock()).doit("run", "--check-words", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in (tmp_path / "build").rglob("*")] in ([], ["doit.db"])
