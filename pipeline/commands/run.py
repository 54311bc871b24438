"""``doit [PATTERN …]``: bring pairs to their outcomes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, ClassVar

from doit.cmd_run import Run as DoitRun
from doit.exceptions import InvalidCommand, InvalidDodoFile, InvalidTask

from .. import index as indexes
from .. import ledger
from ..assemble import deflate_is_known
from ..errors import PipelineError, UsageError
from ..plan import Pair
from ..publishing import publish
from ..workspace import Workspace, here
from .plain import JSON, complain

_NEEDS_REGISTRY = ("image",)


class Run(DoitRun):  # type: ignore[misc]
    """``doit [PATTERN …]``: bring pairs to their outcomes; afterwards settle the branch names and write the index."""

    name = "run"
    doc_usage = "[TASK/PATTERN...]"
    cmd_options: ClassVar[tuple[dict[str, Any], ...]] = (
        *DoitRun.cmd_options,
        {
            "name": "retry_failed",
            "short": "",
            "long": "retry-failed",
            "type": bool,
            "default": False,
            "help": "try pairs again whose present recipe is known to fail",
        },
        {**JSON, "help": "print one JSON event a step on stdout"},
    )

    def execute(self, params: Any, args: Any) -> int:
        """Run, turning every error a user can cause into one line and its status."""
        space = here()
        space.retry_failed = bool(params.get("retry_failed"))
        space.progress.as_json = bool(params.get("json"))
        try:
            with space.alone():
                chosen = _chosen(space, args)
                if chosen:
                    _ = space.ledger.tags  # read once, before doit asks for each pair
                result = int(super().execute(params, args) or 0)
                return self._finish(space, chosen, result)
        except PipelineError as error:
            return max(complain(error), 2)
        except (InvalidCommand, InvalidTask, InvalidDodoFile) as error:
            return complain(UsageError(str(error), hint="'doit list --all' names every task"))

    def _finish(self, space: Workspace, chosen: Sequence[Pair], result: int) -> int:
        progress = space.progress
        if chosen:
            open_before = [pair for pair in chosen if not space.ledger.done(pair)]
            index = publish(space, open_before)
            found = ledger.selected(index.pairs, chosen)
            totals = indexes.count(found)
            words = ", ".join(f"{number} {name}" for name, number in totals.items())
            if open_before and not deflate_is_known():
                progress.note("", "this Python's zlib compresses differently: digests of this machine differ from others'")
            text = f"{len(found)} pairs: {words or 'none'}; index {index.serial}"
            progress.event("end", "", text, totals=dict(totals), serial=index.serial)
            for entry in found:
                if entry.outcome == "failed":
                    print(f"doit: {entry.id} failed: {entry.reason}", file=sys.stderr)
            if progress.problems or result:
                return 2
            return 1 if totals.get("failed") else 0
        return 2 if progress.problems or result else 0


def _chosen(space: Workspace, args: Sequence[str]) -> tuple[Pair, ...]:
    names = list(args)
    if names and not any(name.startswith(_NEEDS_REGISTRY) or "*" in name for name in names):
        return ()
    known = ("render", "toolchain", "driver", "image")
    for name in names:
        if "*" in name and not name.startswith(known):
            raise UsageError(f"'{name}' matches no task", hint="a pair's task is image:<os>/<arch>:<kernel>-<driver>")
    return space.plan.select(names)
