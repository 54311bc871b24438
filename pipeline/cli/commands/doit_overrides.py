"""The commands that are doit's own (list, info, help, …), with errors in one line as ours have them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from doit.cmd_base import DoitCmdBase
from doit.cmd_dumpdb import DumpDB
from doit.cmd_help import Help as DoitHelp
from doit.cmd_info import Info as DoitInfo
from doit.doit_cmd import DoitMain
from doit.exceptions import BaseFail, InvalidCommand
from doit.reporter import ZeroReporter

from ...core.errors import UsageError
from .base import Strict, unknown


class Help(Strict, DoitHelp):  # type: ignore[misc]
    """``doit help [WORD]``: where doit shows the list of commands for a word it does not know, this says so."""

    name = "help"

    def execute(self, params: Any, args: Sequence[str]) -> int:
        """Print; UsageError for more than one word, or one that is neither a command nor a task."""
        if len(args) > 1:
            raise UsageError(f"help takes one word, not '{args[1]}' too", hint="see 'doit help'")
        if args and args[0] != "task" and args[0] not in self.cmds:
            if not DoitCmdBase.execute(self, params, args):
                raise unknown(args[0], self.cmds)
            return 0
        return int(super().execute(params, args) or 0)


class Info(Strict, DoitInfo):  # type: ignore[misc]
    """``doit info TASK``: of a task that is none, doit gives a traceback."""

    name = "info"

    def _execute(self, pos_args: Sequence[str], hide_status: bool = False) -> int:
        if len(pos_args) != 1:
            raise UsageError("info takes one task", hint="'doit list --all' names them")
        if pos_args[0] not in {task.name for task in self.task_list}:
            raise InvalidCommand(not_found=pos_args[0])
        return int(super()._execute(pos_args, hide_status) or 0)


def _strict(command: type) -> type:
    own = {kind.name: kind for kind in (Help, Info)}
    name = command.get_name()  # type: ignore[attr-defined]
    return own.get(name) or type(command.__name__, (Strict, command), {"name": name})


class Program(DoitMain):  # type: ignore[misc]
    """doit's program with the commands above. A word with ``=`` in it is a word: we have no variables that it could set."""

    BIN_NAME = "doit"
    DOIT_CMDS: ClassVar[tuple[type, ...]] = tuple(_strict(kind) for kind in DoitMain.DOIT_CMDS if kind is not DumpDB)
    """Not ``dumpdb``: it reads a database of another make than ours, and gives a traceback."""

    def get_cmds(self) -> Any:
        """All commands, whose names every one of them is told."""
        found = super().get_cmds()
        Strict.commands.update(found)
        return found

    def process_args(self, cmd_args: Sequence[str]) -> list[str]:
        """All of ``cmd_args``."""
        return list(cmd_args)


KEPT: Final = Path("build/log/internal-error.log")


class Faults(ZeroReporter):  # type: ignore[misc]
    """doit's quiet reporter, which would swallow such an exception: a task's own problems never come here."""

    def add_failure(self, task: Any, fail: BaseFail) -> None:
        """Say what failed, and where the traceback is."""
        text = fail.get_msg().rstrip()
        last = text.rpartition("\n")[2]
        try:
            KEPT.parent.mkdir(parents=True, exist_ok=True)
            with KEPT.open("a") as file:
                file.write(f"{task.name}\n{text}\n")
            where = f"please report it with {KEPT}"
        except OSError as error:
            where = f"please report it ({KEPT} could not be written: {error.strerror})"
        print(f"doit: {task.name}: internal error: {last}: {where}", file=sys.stderr)
