"""Task dicts for doit. doit decides what runs and in which order; everything it runs is a plain function elsewhere.

A task never fails in doit's sense: it notes its outcome, or a problem, and the run command decides the exit status.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from ..core.errors import PairFailed, PipelineError, no_room
from ..core.text import counted
from ..plan.pairs import Pair
from .workspace import Workspace

Task: TypeAlias = dict[str, Any]
_OWN_IO: Final = {"capture": False}
"""doit would put a buffer of its own in place of the process's stdout, and threads would take each other's away."""


def _guarded(space: Workspace, action: Callable[[], object]) -> Callable[[], dict[str, str]]:
    """``action`` as doit runs it: a problem is said in one line and kept for the exit status."""

    def run() -> dict[str, str]:
        try:
            action()
        except PipelineError as error:
            return _problem(space, error)
        except OSError as error:  # a log, a scratch folder: any file may be the one that has no room
            return _problem(space, no_room(error))
        return {}

    return run


def _problem(space: Workspace, error: PipelineError) -> dict[str, str]:
    met = space.brake.met(error)
    if met != "more":
        space.progress.problem(error)
    if met == "cause":
        left = len(space.to_do or ()) - space.brake.begun
        waiting = f"; {counted(left, 'pair')} for the next run" if left > 0 else ""
        space.progress.note("", f"nothing more is begun, since it would end alike{waiting}")
    return {"problem": str(error)}


def toolchains(space: Workspace) -> Iterator[Task]:
    """``toolchain:<name>/<arch>``: what compiles, in the engine. Made by itself when a pair needs it."""
    for toolchain in space.lock.toolchains:
        yield {
            "name": f"{toolchain.name}/{toolchain.arch}",
            "doc": f"what compiles for {toolchain.os}: {counted(len(toolchain.packages), 'pinned package')}",
            "actions": [_guarded(space, lambda toolchain=toolchain: space.shop.toolchain(toolchain))],  # type: ignore[misc]
            "uptodate": [False],
            "io": _OWN_IO,
        }


def drivers(space: Workspace) -> Iterator[Task]:
    """``driver:<nvidia>/<arch>``: a driver's userspace layer, in the registry. Made by itself when a pair needs it."""
    for driver in space.lock.drivers:
        yield {
            "name": f"{driver.version}/{driver.arch}",
            "doc": f"libraries, tools and firmware of {driver.version}",
            "actions": [_guarded(space, lambda driver=driver: space.shop.userspace(driver))],  # type: ignore[misc]
            "uptodate": [False],
            "io": _OWN_IO,
        }


def images(space: Workspace) -> Iterator[Task]:
    """``image:<os>/<arch>:<kernel>-<driver>``: render, build, prove and push one pair.

    A run asks the ledger first and makes tasks of what is left alone: doit takes a third of a second for 10 000 tasks.
    """
    for pair in space.plan.pairs if space.to_do is None else space.to_do:
        note = f"excluded: {pair.exclusion.reason}" if pair.exclusion else "render, build, prove, push"
        yield {
            "name": pair.id,
            "doc": note,
            "actions": [_guarded(space, lambda pair=pair: make(pair, space))],  # type: ignore[misc]
            "uptodate": [lambda pair=pair: space.ledger.done(pair)],
            "io": _OWN_IO,
        }


def make(pair: Pair, space: Workspace) -> None:
    """Bring one pair to its outcome and keep that on disk.

    Raises PipelineError of status 2 where the system could not do its work. Where that ended the run, nothing is done.
    """
    from ..build.pair import build

    if not space.brake.begins():
        return

    ledger = space.ledger
    try:
        entry = ledger.adopt(pair, space.shop) if ledger.built(pair) else build(pair, space.shop)
    except PairFailed as error:  # a shared part (toolchain, base, userspace) failed, which is not this pair's doing
        raise PipelineError(f"{pair.id}: {error.message}", hint="see build/log") from error
    ledger.note(entry)
    space.brake.went_well()


def render(space: Workspace) -> Iterator[Task]:
    """``render``: write every Dockerfile below ``build/docker``. Needs neither engine nor network."""
    from ..build import contexts

    def write_all() -> None:
        renderer, lock = space.renderer, space.lock
        texts = [renderer.toolchain(toolchain) for toolchain in lock.toolchains]
        texts += [renderer.base(base) for base in lock.bases]
        texts += [renderer.userspace(driver) for driver in lock.drivers]
        texts += [pair.rendered for pair in space.plan.pairs]
        root = space.root / contexts.DOCKER
        changed = sum(contexts.write(text, root, lambda line: space.progress.note("", line)) for text in texts)
        space.progress.note("", f"{counted(len(texts), 'Dockerfile')} below {contexts.DOCKER}, {changed} of them new or changed")

    yield {
        "basename": "render",
        "doc": "write the Dockerfiles below build/docker (no engine, no network)",
        "actions": [_guarded(space, write_all)],
        "uptodate": [False],
        "io": _OWN_IO,
    }
