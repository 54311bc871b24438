"""``doit prune``: images that no supported release needs; with ``--local``, what this machine keeps and no pin needs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from ...build import image_names
from ...core import scratch_dirs
from ...core.errors import DeleteRefusedError, DiskError, RegistryError, UsageError
from ...core.lazy import lazy
from ...core.tags import of_image
from ...core.text import counted
from ...fetch import user_cache
from ...outcomes import retention
from ...outcomes.retention import Verdict
from ...publish import finish_run
from ...registry import ghcr
from ...registry.client import INDEX_TYPES
from ...registry.ghcr import Packages
from .. import leftovers
from ..workspace import Busy, Workspace
from .base import JSON, Plain

_THREADS: Final = 8


class Prune(Plain):
    """``doit prune``: list what may go; with ``--apply``, delete it."""

    name = "prune"
    doc_purpose = "list images that no supported release needs; --apply deletes them"
    doc_usage = ""
    doc_description = (
        "An image stays as long as its OS release is in versions.lock, or is the previous one of a channel that is. Deletes "
        "through the registry; on ghcr.io through GitHub's packages API where GITHUB_TOKEN is set. With --local: layers, "
        "feeds and logs on this machine that versions.lock does not need, downloads that it does not pin and no checkout "
        "has used for 30 days, and what tests have made; the registry is not asked."
    )
    cmd_options = (
        {"name": "apply", "short": "", "long": "apply", "type": bool, "default": False, "help": "delete what is listed"},
        {
            "name": "local",
            "short": "",
            "long": "local",
            "type": bool,
            "default": False,
            "help": "what this machine keeps below build/ and in the user's cache, not the registry",
        },
        {**JSON, "help": "print what goes and what stays as JSON"},
    )

    def work(self, space: Workspace, params: Any, args: list[str]) -> int:
        """List; delete where asked to. Status 2 where something that may go could not be deleted."""
        if args:
            raise UsageError(f"prune takes no '{args[0]}'", hint="see 'doit help prune'")
        if params["local"]:
            return _local(space, params)
        if not params["apply"]:
            _list(_verdicts(space), as_json=params["json"])
            return 0
        with space.alone():
            verdicts = _verdicts(space)
            _list(verdicts, as_json=params["json"])
            deleter = Deleter(space)
            refused = [verdict for verdict in verdicts if verdict.remove and not deleter.delete(verdict)]
            if len(refused) < sum(verdict.remove for verdict in verdicts):
                space.ledger.refresh()
                finish_run.publish(space.ledger, space.plan, space.shop, ())
            for verdict in refused:
                print(
                    f"doit: delete by hand: {space.registry.reference(verdict.digest)} ({' '.join(verdict.tags)})",
                    file=sys.stderr,
                )
            return 2 if refused else 0


def _local(space: Workspace, params: Any) -> int:
    with space.alone() if params["apply"] else contextlib.nullcontext():
        if params["apply"] and scratch_dirs.in_use(space.scratch, scratch_dirs.UPDATE):  # what it has got is not in the lock yet
            raise Busy(f"an update works in {space.root}", hint="wait for it, or end it")
        found = leftovers.leftovers(space.plan, space.scratch, space.store, _entries(space))
        shown = [msgspec.structs.replace(left, path=_below(left.path, space.root)) for left in found]
        if params["json"]:
            print(msgspec.json.encode(shown, enc_hook=str).decode())
        else:
            for left in shown:
                print(f"{left.path}  {left.bytes / 1e6:.1f} MB\n    {left.why}")
        if params["apply"]:
            found = [left for left in found if leftovers.remove(left)]
    done = "are gone" if params["apply"] else "may go"
    print(f"{counted(len(found), 'file')}, {sum(left.bytes for left in found) / 1e6:.1f} MB, {done}", file=sys.stderr)
    if (stay := leftovers.others(space.plan, space.store))[0]:
        what = f"{counted(stay[0], 'download')} more, {stay[1] / 1e6:.1f} MB, that this lock does not pin"
        days = leftovers.UNUSED_DAYS
        print(f"{what}: used within {days} days, maybe by another checkout; kept in {space.store}", file=sys.stderr)
    return 0


def _entries(space: Workspace) -> Path | None:
    """Where tests keep what they made; None where no folder can be told."""
    with contextlib.suppress(DiskError):
        return user_cache.entries_folder(space.environ)
    return None


def _below(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


def _verdicts(space: Workspace) -> list[Verdict]:
    ledger, registry = space.ledger, space.registry
    needs = retention.kept(space.plan)
    with ThreadPoolExecutor(_THREADS) as threads:
        tags = sorted(ledger.tags)
        found = {tag: held for tag, held in zip(tags, threads.map(registry.described, tags), strict=True) if held}
        digests = {tag: digest for tag, (digest, _) in found.items()}
        several = sorted({digest for digest, media_type in found.values() if media_type in INDEX_TYPES})
        indexes = dict(zip(several, threads.map(partial(image_names.named, registry), several), strict=True))
        images = {of_image(e.recipe): retention.image_of(e) for e in ledger.published.pairs if e.outcome == "built" and e.recipe}
        strange = retention.unknown(digests, needs, images)
        for tag, labels in zip(strange, threads.map(ledger.labels, strange), strict=True):
            if image := retention.image_from(labels):
                images[tag] = image
    return retention.judge(digests, needs, images, indexes)


def _list(verdicts: Sequence[Verdict], *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(verdicts).decode())
        return
    for verdict in verdicts:
        if verdict.remove:
            print(f"{verdict.digest}  {' '.join(verdict.tags)}\n    {verdict.why}")
    going = sum(verdict.remove for verdict in verdicts)
    print(f"{going} of {counted(len(verdicts), 'image')} may go", file=sys.stderr)


class Deleter:
    """Deletes through the registry, else through GitHub's packages API."""

    def __init__(self, space: Workspace) -> None:
        self._space, self._registry = space, space.registry

    @lazy
    def _packages(self) -> Packages:
        return Packages(self._registry.repository, self._space.environ)

    @lazy
    def _versions(self) -> dict[str, int]:
        return self._packages.versions()

    def delete(self, verdict: Verdict) -> bool:
        """False where it could not be deleted, which is said."""
        registry, progress = self._registry, self._space.progress
        if moved := [tag for tag in verdict.tags if registry.digest(tag) not in (verdict.digest, None)]:
            progress.note("", f"{moved[0]} has moved meanwhile: {verdict.digest[:19]} stays until the next time")
            return True
        try:
            if registry.host == ghcr.HOST:
                self._delete_package(verdict.digest)
            else:
                registry.delete(verdict.digest)
                if registry.digest(verdict.digest) is not None:
                    raise DeleteRefusedError(f"{registry.host} said that it deletes, and does not", hint="see its documentation")
        except RegistryError as error:
            progress.problem(error)
            return False
        return True

    def _delete_package(self, digest: str) -> None:
        if not ghcr.token(self._space.environ):
            what = f"{self._registry.host} deletes through GitHub's packages API alone"
            raise DeleteRefusedError(what, hint="set GITHUB_TOKEN to one that may delete packages")
        if digest in self._versions:
            self._packages.delete(self._versions[digest])
