"""``doit`` as this project starts it: doit's own program, in which every word that cannot be meant is one line and status 3.

``.venv/bin/doit`` comes from here (pyproject.toml, ``[project.scripts]``). Nothing but this is imported before a Ctrl-C is
waited for, so that one in the first moments is one line too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .environment import complain, damaged

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``doit`` with ``arguments``, those of the command line where none are given; its exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if words[:1] == ["--version"]:
            return _print_version()
        if not Path("dodo.py").is_file():
            return complain(f"there is no dodo.py in {Path.cwd()}: run it in the checkout, or run ./doit.sh of the checkout")
        if "" in words and words[0] != "test":  # pytest takes one, for -k
            return complain("'' is neither a command nor a task: leave the empty word out")
        from .commands.doit_overrides import Program

        return int(Program().run(_help(words)) or 0)
    except KeyboardInterrupt:
        print("doit: interrupted: run it again, what was finished is kept", file=sys.stderr)
        return _INTERRUPTED
    except ImportError as error:
        return damaged(error)


def _print_version() -> int:
    from importlib.metadata import version

    from .. import VERSION

    print(f"coreos-nvidia {VERSION} (doit {version('doit')})")
    return 0


def _help(words: list[str]) -> list[str]:
    """``doit help COMMAND`` for ``doit COMMAND --help``; pytest has a ``--help`` of its own."""
    if words[:1] == ["test"] or not {"-h", "--help"}.intersection(words):
        return words
    return ["help", *[word for word in words if not word.startswith("-")][:1]]
