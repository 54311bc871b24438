"""``doit [PATTERN …]``: bring pairs to their outcomes."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from fnmatch import filter as matching_names
from typing import Any, ClassVar

from doit.cmd_run import Run as DoitRun
from doit.control import TaskControl

from ...core.errors import PipelineError, UsageError
from ...core.progress import Outcome
from ...core.text import counted
from ...outcomes import index as indexes
from ...outcomes import totals
from ...plan.matrix import as_built
from ...plan.pairs import Pair
from ...publish import ledger
from ...publish.finish_run import publish
from ..workspace import Workspace, here
from .base import JSON, Strict, complain

_NEEDS_REGISTRY = ("image",)


class Run(Strict, DoitRun):  # type: ignore[misc]
    """``doit [PATTERN …]``: bring pairs to their outcomes; afterwards settle the branch names and write the index."""

    name = "run"
    doc_usage = "[TASK/PATTERN...]"
    cmd_options: ClassVar[tuple[dict[str, Any], ...]] = (
        *({**option, "default": "thread"} if option["name"] == "par_type" else option for option in DoitRun.cmd_options),
        {
            "name": "retry_failed",
            "short": "",
            "long": "retry-failed",
            "type": bool,
            "default": False,
            "help": "try pairs again whose present recipe is known to fail",
        },
        {
            "name": "check_words",
            "short": "",
            "long": "check-words",
            "type": bool,
            "default": False,
            "help": "only say which of the options and words cannot be meant; ./doit.sh asks this before it starts anything",
        },
        {**JSON, "help": "print one JSON event a step on stdout"},
    )

    def execute(self, params: Any, args: Any) -> int:
        """Run, turning every error a user can cause into one line and its status."""
        space = here()
        space.retry_failed = bool(params.get("retry_failed"))
        space.progress.as_json = bool(params.get("json"))
        space.at_once = max(1, int(params.get("num_process") or 0))
        try:
            if int(params.get("num_process") or 0) < 0:
                raise UsageError("-n takes 1 or more", hint="it is the number of pairs to build at once")
            if params.get("par_type") == "process":
                what = "--parallel-type process would lose what pairs meet"
                raise UsageError(what, hint="leave it out, pairs at once are threads")
            if any(name.startswith("DRIVER_SIGNING_KEY") for name in space.environ):
                from ...publish.signing import signer

                signer(space.environ)  # a key that cannot sign the index is said now, not after hours of building
            if params.get("check_words"):
                space.to_do = _chosen(space, args, asking=False)
                self._execute = self._check
                names = _tasks(space, args)
                return int(super().execute(params, names) or 0) if names else 0
            with space.alone():
                gc.disable()  # tens of thousands of records that all stay: the collector would go over them again and again
                chosen = _chosen(space, args)
                space.to_do = _to_do(space, chosen, always=bool(params.get("always")))
                names = _tasks(space, args)
                if names:
                    gc.freeze()
                    gc.enable()
                result = int(super().execute(params, names) or 0) if names else 0
                return self._finish(space, args, chosen, result)
        except PipelineError as error:
            return 2 if space.brake.explains(error) else max(complain(error), 2)

    def _check(self) -> int:
        """In place of a run: raises InvalidCommand for a word that is no task."""
        TaskControl(self.task_list).process(self.sel_tasks)
        return 0

    def _finish(self, space: Workspace, args: Sequence[str], chosen: Sequence[Pair], result: int) -> int:
        everything = not set(args) - {"image"}
        found = _settle(space, chosen, everything) if chosen or (everything and space.lock.pending) else {}
        if space.progress.problems or result:
            return max([2, *space.progress.problems.values()])
        return 1 if found.get("failed") else 0


def _tasks(space: Workspace, args: Sequence[str]) -> list[str]:
    """What doit is to run for ``args``."""
    return [name for name in args if not name.startswith("image")] + [f"image:{pair.id}" for pair in space.to_do or ()]


def _to_do(space: Workspace, chosen: Sequence[Pair], *, always: bool) -> list[Pair]:
    """What is left of ``chosen``. The registry is read here, once, before doit sees a task."""
    if not chosen:
        return []
    book = space.ledger
    pairs = [pair for pair in chosen if pair.exclusion is None]
    if not always and all(book.built(pair) or book.failed(pair) for pair in pairs):
        book.knows(space.plan)
    left = [pair for pair in pairs if always or not book.done(pair)]
    return as_built(left) if len(left) > 1 else left


def _settle(space: Workspace, chosen: Sequence[Pair], everything: bool) -> Mapping[str, int]:
    """Settle the branch names, bring the index up to date here and in the registry, say the outcomes; how many of each.

    A run over ``everything`` counts what the lock cannot pin yet in its last line too: nobody is to take that for done.
    """
    book, progress = space.ledger, space.progress
    kept = ledger.local_document(space.root)
    if not space.to_do and book.knows(space.plan) and book.is_published(kept):
        told = [(pair.kernel.os, book.outcome(pair)) for pair in chosen]
        failed = any(outcome == "failed" for _, outcome in told)
        found = ledger.selected(ledger.local_index(space.root).pairs, chosen) if failed else []
        serial = book.serial
    else:
        try:
            index = publish(space.ledger, space.plan, space.shop, space.to_do or ())
        except PipelineError as error:
            if not space.brake.explains(error):
                progress.problem(error)
            return _unpublished(space)
        found = ledger.selected(index.pairs, chosen)
        told, serial = [(entry.os, entry.outcome) for entry in found], index.serial
    counts = indexes.tally(outcome for _, outcome in told)
    if space.to_do:
        from ...build.parallel_gzip import deflate_is_known

        if not deflate_is_known():
            progress.note("", "this Python's zlib compresses differently: digests of this machine differ from others'")
    for entry in found:
        if entry.outcome == "failed":
            print(f"doit: {entry.id} failed: {entry.reason}", file=sys.stderr)
    text = totals.line([*told, *(totals.unpinned(space.lock.pending) if everything else ())])
    progress.event("end", "", text, totals=dict(counts), serial=serial)
    return counts


def _unpublished(space: Workspace) -> Mapping[str, int]:
    """Say the end of a run whose outcomes are in no index yet, which the next run makes of the registry's tags."""
    outcomes: list[Outcome] = [space.progress.outcomes.get(pair.id, "pending") for pair in space.to_do or ()]
    counts = indexes.tally(outcomes)
    words = ", ".join(f"{number} {name}" for name, number in counts.items())
    text = f"{counted(len(outcomes), 'pair')} worked on: {words or 'none'}; the index could not be published, the next run does"
    space.progress.event("end", "", text, totals=dict(counts))
    return counts


def _chosen(space: Workspace, args: Sequence[str], *, asking: bool = True) -> tuple[Pair, ...]:
    """The pairs that ``args`` are about; ``asking``: begin to ask the registry for its tags meanwhile."""
    if args and not any(name.startswith(_NEEDS_REGISTRY) or "*" in name for name in args):
        return ()
    patterns = [name for name in args if "*" in name and not name.startswith("image")]
    for pattern in patterns:
        if not matching_names(_shared(space), pattern):
            hint = "'doit list --all' names them" if ":" in pattern else "a pair's task is image:<os>/<arch>:<kernel>-<driver>"
            raise UsageError(f"'{pattern}' matches no task", hint=hint)
    if asking:
        space.ledger.ask()
    return space.plan.select(args)


def _shared(space: Workspace) -> list[str]:
    """The names of the tasks that are no pair's."""
    toolchains = [f"toolchain:{toolchain.name}/{toolchain.arch}" for toolchain in space.lock.toolchains]
    return [
        "render",
        "toolchain",
        *toolchains,
        "driver",
        *(f"driver:{driver.version}/{driver.arch}" for driver in space.lock.drivers),
    ]
