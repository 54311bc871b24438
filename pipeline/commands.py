"""doit commands of our own: run (with our exit statuses), update, status, fetch, test.

They are plugins, so that their stdout is the document alone, they take options, and ``update`` works with a broken lock.
Exit status: 3 wrong use or a bad file; else 2 the system could not do its work; else 1 a selected pair failed; else 0.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from doit.cmd_base import Command
from doit.cmd_run import Run as DoitRun
from doit.exceptions import InvalidCommand, InvalidDodoFile, InvalidTask

from . import index as indexes
from . import ledger, lock, update
from .assemble import deflate_is_known
from .contexts import lay, write
from .errors import PipelineError, RegistryError, UsageError
from .plan import Pair
from .workspace import Workspace, here

_JSON = {"name": "json", "short": "", "long": "json", "type": bool, "default": False}
_NEEDS_REGISTRY = ("image",)


def complain(error: PipelineError) -> int:
    """Say ``error`` in one line on stderr; its exit status."""
    print(f"doit: {error}", file=sys.stderr)
    return error.exit_status


def or_exit(creator: Callable[[], Iterator[dict[str, Any]]]) -> Callable[[], Iterator[dict[str, Any]]]:
    """A task creator that ends the program with one line, not a traceback, where a file of the project is bad."""

    @functools.wraps(creator)
    def create() -> Iterator[dict[str, Any]]:
        try:
            yield from creator()
        except PipelineError as error:
            raise SystemExit(complain(error)) from None

    return create


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
        {**_JSON, "help": "print one JSON event a step on stdout"},
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
            book, shop = space.ledger, space.shop
            open_before = [pair for pair in chosen if not book.done(pair)]
            if open_before:
                book.refresh()
                book.settle_aliases(space.plan, open_before, shop)
            local = ledger.local_index(space.root)
            index = book.index(space.plan, local)
            book.push_index(index, shop)
            if index != local:
                ledger.save_index(space.root, index)
            found = ledger.selected(index.pairs, chosen)
            totals = indexes.count(found)
            words = ", ".join(f"{number} {name}" for name, number in totals.items())
            if open_before and not deflate_is_known():
                progress.note("", "this Python's zlib compresses differently: digests of this machine differ from others'")
            progress.event("note", "", f"{len(found)} pairs: {words or 'none'}; index {index.serial}", outcome=totals)
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


class _Plain(Command):  # type: ignore[misc]
    """A command without tasks: parses options, runs, ends with a status."""

    def execute(self, params: Any, args: Any) -> int:
        try:
            return self.work(here(), params, list(args))
        except PipelineError as error:
            return complain(error)

    def work(self, space: Workspace, params: Any, args: list[str]) -> int:
        raise NotImplementedError


class Update(_Plain):
    """``doit update``: read the upstreams, write versions.lock."""

    name = "update"
    doc_purpose = "refresh versions.lock from the upstreams"
    doc_usage = ""
    doc_description = "Reads versions.toml and the upstreams, and writes versions.lock whole. Nothing else reads upstreams."
    cmd_options = (
        {
            "name": "dry_run",
            "short": "",
            "long": "dry-run",
            "type": bool,
            "default": False,
            "help": "show what would change and write nothing",
        },
        {**_JSON, "help": "print the changes as JSON"},
    )

    def work(self, space: Workspace, params: Any, args: list[str]) -> int:
        """Update; status 2 where an upstream could not be read (what it gave before is kept)."""
        if args:
            raise UsageError(f"update takes no '{args[0]}'", hint="see 'doit help update'")
        path = space.root / lock.LOCK_FILE
        try:
            old = lock.load(path)
        except PipelineError as error:
            if path.exists():
                print(f"doit: {error}; it is written anew from the upstreams", file=sys.stderr)
            old = lock.empty()
        result = update.update(space.wanted, old, space.fetcher, space.archives)
        data = lock.dump(result.lock)
        lock.parse(data)  # what we write we can read
        for problem in result.problems:
            print(f"doit: {problem}", file=sys.stderr)
        if not params["dry_run"]:
            lock.write(path, data)
        if params["json"]:
            print(msgspec.json.encode({**result.json, "written": not params["dry_run"]}).decode())
        else:
            print("\n".join(result.changes) if result.changes else "nothing changed")
        return 2 if result.problems else 0


class Status(_Plain):
    """``doit status``: every pair with outcome and reason."""

    name = "status"
    doc_purpose = "show every pair with its outcome and reason"
    doc_usage = ""
    doc_description = "Asks the registry; where that does not answer, shows the last index ('source': 'cache')."
    cmd_options = ({**_JSON, "help": "print the index as JSON"},)

    def work(self, space: Workspace, params: Any, args: list[str]) -> int:
        """Print; status 0 whatever the outcomes."""
        local = ledger.local_index(space.root)
        try:
            index = space.ledger.index(space.plan, local)
        except RegistryError as error:
            print(f"doit: {error}; showing what was known last", file=sys.stderr)
            index = ledger.cached(space.plan, local)
        if params["json"]:
            sys.stdout.write(indexes.dump(index).decode())
        else:
            sys.stdout.write(indexes.table(index.pairs))
        return 0


class Fetch(_Plain):
    """``doit fetch [PATTERN …]``: lay out build contexts with every pinned file, for building by hand or offline."""

    name = "fetch"
    doc_purpose = "download pinned files and lay out the build contexts"
    doc_usage = "[PATTERN...]"
    doc_description = "Afterwards everything below build/docker can be built with docker build, and doit needs no network."
    cmd_options = ()

    def work(self, space: Workspace, params: Any, args: list[str]) -> int:
        """Fetch for the selected pairs that are not excluded."""
        from .contexts import root_tar

        shop, renderer = space.shop, space.renderer
        for pair in space.plan.select(args):
            if pair.exclusion is not None:
                continue
            toolchain = space.lock.toolchain(pair.kernel)
            texts = [renderer.base(space.lock.base(pair.kernel.arch)), renderer.userspace(pair.driver), pair.rendered]
            for rendered in (renderer.toolchain(toolchain), *texts):
                write(rendered, shop.docker, lambda line: space.progress.note("", line))
                context = lay(rendered, shop.docker, shop.inputs, renderer.program if rendered is pair.rendered else ())
                if rendered.name.startswith("toolchain/"):
                    root_tar(toolchain, context, shop.inputs)
                print(f"docker build --network none --tag {rendered.tag} {context.relative_to(space.root)}")
            for file in pair.kernel.image:
                shop.inputs.path(file)
        return 0


class Test(_Plain):
    """``doit test [WORD …]``: every test; further words go to pytest."""

    name = "test"
    doc_purpose = "run the tests; further words go to pytest"
    doc_usage = "[PYTEST WORDS...]"
    doc_description = None
    cmd_options = ()

    def parse_execute(self, in_args: Sequence[str]) -> int:
        """Hand every word on untouched: they are pytest's."""
        program = [sys.executable, "-m", "pytest", *in_args]
        return subprocess.run(program, check=False, cwd=Path.cwd(), env={**os.environ}).returncode
