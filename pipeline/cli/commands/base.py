"""What commands share: an error is one line on stderr and an exit status, never a traceback."""

from __future__ import annotations

import functools
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from doit.cmd_base import Command
from doit.cmdparse import CmdParseError
from doit.dependency import DatabaseException
from doit.exceptions import InvalidCommand, InvalidDodoFile, InvalidTask

from ...core.errors import DiskError, PipelineError, UsageError
from ..environment import damaged
from ..workspace import Workspace, here

INTERRUPTED: Final = 130
"""Exit status after Ctrl-C, as shells give it: 128 and the signal's number."""
TERMINATED: Final = 143
"""The same after SIGTERM."""
UNKNOWN_HINT: Final = "'doit help' names the commands, 'doit list --all' the tasks"
DATABASE: Final = Path("build/doit.db")
JSON: Final = {"name": "json", "short": "", "long": "json", "type": bool, "default": False}


class Terminated(KeyboardInterrupt):
    """SIGTERM came to a command that has something to clear away; whatever lets Ctrl-C through lets this through."""


def clear_away_on_sigterm() -> None:
    """Make SIGTERM end the command as Ctrl-C does, with its own status."""

    def end(_number: int, _frame: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, end)


def complain(error: PipelineError) -> int:
    """Say ``error`` in one line on stderr; its exit status."""
    print(f"doit: {error}", file=sys.stderr)
    return error.exit_status


def late_option(word: str) -> UsageError:
    """The error for an option that stands where a task, a pattern or a name is read."""
    return UsageError(f"option {word} stands behind a word", hint="options come first")


def unknown(word: str, commands: Iterable[str], tasks: Iterable[str] = ()) -> UsageError:
    """The error for a word that is no task, where one is read, or the first of a command line and no command either."""
    if word in commands:
        return UsageError(f"'{word}' is a command, not a task", hint="a command comes first, its options behind it")
    return UsageError(f"'{word}' is neither a command nor a task", hint=guess(word, [*commands, *tasks]) + UNKNOWN_HINT)


def guess(word: str, names: Sequence[str]) -> str:
    """``did you mean 'status'? `` where one of ``names`` is close to ``word``; else nothing."""
    from difflib import get_close_matches

    return "".join(f"did you mean '{name}'? " for name in get_close_matches(word, names, n=1, cutoff=0.7))


def only_pairs(words: Sequence[str]) -> None:
    """Raise UsageError for a word that can be no pattern of pairs: nothing chosen would read as nothing to do."""
    for word in words:
        if not word.startswith("image"):
            raise UsageError(f"'{word}' is no pattern of pairs", hint="it looks like 'image:*6.1.0-50*'")


def or_exit(creator: Callable[[], Iterator[dict[str, Any]]]) -> Callable[[], Iterator[dict[str, Any]]]:
    """A task creator that ends the program with one line, not a traceback, where a file of the project is bad."""

    @functools.wraps(creator)
    def create() -> Iterator[dict[str, Any]]:
        try:
            yield from creator()
        except PipelineError as error:
            raise SystemExit(complain(error)) from None

    return create


class Strict:
    """A command that says in one line which option it does not know, or that it was interrupted; doit's own words are long."""

    name = ""
    commands: ClassVar[set[str]] = set()
    """The names of all commands, once the program knows them."""

    def parse_execute(self, in_args: Sequence[str]) -> int:
        """Parse and execute; status 3 for what cannot be parsed, 130 after Ctrl-C."""
        try:
            return int(super().parse_execute(in_args) or 0)  # type: ignore[misc]
        except CmdParseError as error:
            what = str(error).partition(" (parsing options")[0].removeprefix("Error parsing Command: ")
            option = re.match(r"option (--\S+) not recognized", what)
            names = [f"--{known.long}" for known in self.cmdparser.options if known.long]  # type: ignore[attr-defined]
            return complain(UsageError(what, hint=f"{guess(option[1], names) if option else ''}see 'doit help {self.name}'"))
        except (InvalidCommand, InvalidTask, InvalidDodoFile) as error:
            word = getattr(error, "not_found", None)
            if word and word.startswith("-"):
                return complain(late_option(word))
            if word:
                return complain(unknown(word, self.commands, (task.name for task in getattr(self, "task_list", ()))))
            return complain(UsageError(str(error).rstrip("."), hint=UNKNOWN_HINT))
        except DatabaseException as error:
            what = str(error).rpartition("Original error: ")[2].strip()
            hint = "free some disk space; if that is not it, delete the file: the registry holds all that counts"
            return complain(DiskError(f"{DATABASE}: {what}", hint=hint))
        except PipelineError as error:
            return complain(error)
        except ImportError as error:
            return damaged(error)
        except Terminated:
            print(f"doit: {self.name} was ended by a signal: run it again, what was finished is kept", file=sys.stderr)
            return TERMINATED
        except KeyboardInterrupt:  # doit lets it through to Python, which prints where in the program it came
            print(f"doit: {self.name} was interrupted: run it again, what was finished is kept", file=sys.stderr)
            return INTERRUPTED


def state_file() -> str:
    """Where doit keeps its state, in a folder that is there: sqlite makes the file alone."""
    place = DATABASE
    try:
        place.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise SystemExit(complain(DiskError(f"{place.parent}: {error.strerror}", hint="mend its rights"))) from None
    return str(place)


class Plain(Strict, Command):  # type: ignore[misc]
    """A command without tasks: parses options, runs, ends with a status."""

    def execute(self, params: Any, args: Any) -> int:
        """Run; ``parse_execute`` says every error that a user can cause."""
        for word in args:
            if word.startswith("-"):
                raise late_option(word)
        return self.work(here(), params, list(args))

    def work(self, space: Workspace, params: Any, args: list[str]) -> int:
        """What the command does; its exit status."""
        raise NotImplementedError
