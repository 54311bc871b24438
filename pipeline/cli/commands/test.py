"""``doit test``: the tests of the project, in two sizes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ...core.errors import UsageError
from .base import Plain, complain

AREAS: Final = {
    "thread": "one driver for Debian's kernels, from pinned packages to images that clients pull; doit.sh on a bare machine",
    "coreos": "Flatcar, Fedora CoreOS, Container Linux and one's own machine, from their feeds to a booted module",
    "arm64": "a pair compiled on amd64 and booted as arm64",
    "host": "what runs on hosts: real engines, virtual machines, GPU containers, operators",
    "scale": "many runners, kills, faults, pruning, workflows, the page",
}
"""Each area of the end-to-end tests and what it shows. CONTRIBUTING.md has their minutes."""
FULL: Final = "--full"
CHECK: Final = "--check-words"
_WRONG_USE: Final = 4
_PYTEST: Final = (sys.executable, "-m", "pytest")
WORKERS: Final = ("-n", "2", "--no-loadscope-reorder")
"""Two workers, since what compiles uses every processor itself; each takes a test file at a time, the longest first."""


class Test(Plain):
    """``doit test [--full [AREA…]] [WORD…]``: the short run, or whole areas; further words go to pytest."""

    name = "test"
    doc_purpose = "run the tests that every change wants; --full [AREA...] runs all, or whole areas"
    doc_usage = "[--full [AREA...]] [PYTEST WORDS...]"
    doc_description = None
    cmd_options = ()

    def parse_execute(self, in_args: Sequence[str]) -> int:
        """Run pytest; its exit status, or 3 for a word that is no area, file or option."""
        only_check = list(in_args[:1]) == [CHECK]  # ./doit.sh asks before it installs or starts anything
        try:
            words = pytest_words(in_args[only_check:], Path.cwd())
            refuse_options(words)
        except UsageError as error:
            return complain(error)
        return 0 if only_check else subprocess.run([*_PYTEST, *words], check=False).returncode


def pytest_words(words: Sequence[str], root: Path) -> list[str]:
    """Return what pytest is called with for ``doit test WORDS`` in ``root``.

    Names of areas behind ``--full`` choose those; every other word stays as it is. A run in which no files are chosen is shared
    out to workers and ends with its 20 slowest tests. Raises UsageError for a name that is neither area nor file.
    """
    rest = list(words)
    if any(not word and (before == FULL or not before.startswith("-")) for before, word in zip(["", *rest], rest, strict=False)):
        raise UsageError("'' is no test file", hint="leave the empty word out")
    size: list[str] = []
    if FULL in rest[:1]:
        size.append(rest.pop(0))
        while rest and (rest[0] in AREAS or _is_name(rest[0], root)):
            if rest[0] not in AREAS:
                raise UsageError(f"there is no area and no file '{rest[0]}'", hint=f"areas: {', '.join(AREAS)}")
            size.append(f"--area={rest.pop(0)}")  # one word: pytest takes the folder host/ for a place to search
    elif rest and (rest[0] in AREAS or _is_name(rest[0], root)):
        raise UsageError(f"there is no test file '{rest[0]}'", hint=f"whole areas: 'doit test {FULL} AREA'")
    chosen = any(not _is_name(word, root) and not word.startswith("-") for word in rest)
    alone = chosen or any(word.startswith(("-n", "--dist", "--pdb", "-s", "--collect-only", "--co")) for word in rest)
    return [*(() if alone else (*WORKERS, "--durations=20")), *size, *rest]


def refuse_options(words: Sequence[str]) -> None:
    """Raise UsageError where pytest takes no such option, in one line instead of its own five."""
    if not any(word.startswith("-") and word not in (FULL, *WORKERS, "--durations=20") for word in words):
        return
    asked = subprocess.run([*_PYTEST, "--markers", *words], check=False, capture_output=True, text=True, errors="replace")
    if asked.returncode == _WRONG_USE and not {"-h", "--help", "--version", "-V"} & set(words):
        found = re.search(r"^.*error: (.+)|^ERROR: (?!usage)(.+)", asked.stderr, re.MULTILINE)
        said = (found[1] or found[2]) if found else "it takes no such words"
        raise UsageError(f"pytest: {said}", hint="'doit test --help' lists its options")


def _is_name(word: str, root: Path) -> bool:
    """Whether ``word`` is neither an option nor a test file or folder."""
    return not word.startswith("-") and not (root / word.partition("::")[0]).exists()
