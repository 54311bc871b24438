"""One checkout: its lock and wishes, and the things a run talks to, each opened at its first use."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..config import compat, host_lockfile, versions_toml
from ..config.policies import policies
from ..config.records import Lock, Os
from ..config.versions_toml import Settings, Wanted
from ..core import scratch_dirs
from ..core.errors import ROOM_HINT, DiskError, PipelineError
from ..core.lazy import lazy
from ..core.progress import Progress
from ..fetch import user_cache
from ..plan.pairs import Pair, Plan
from ..plan.render import Renderer
from ..publish.ledger import Ledger
from .circuit_breaker import Brake

if TYPE_CHECKING:  # a run that finds all done opens a registry and nothing else, and need not pay for the rest
    from ..build.shared_layers import Workshop
    from ..config.source_policy import SourcePolicy
    from ..engine.client import Engine
    from ..fetch.apt_sources import Archives
    from ..fetch.fetcher import Fetcher
    from ..fetch.mirrors import Mirrors
    from ..fetch.store import Inputs
    from ..registry.client import Registry


_HALF_MADE: Final = (".kinds.*", ".proof.*", ".export.*", "trees/.*", "docker/toolchain/**/.root.*")
"""Folders below ``build`` that a run makes for itself."""


def _policy_of(os: Os) -> type[SourcePolicy]:
    from ..update import families  # with all that reads that family's feeds

    return families.policy_of(os)


class Busy(PipelineError):
    """Another run works in this checkout."""


class Workspace:
    """Lazily opened parts of one run. ``root`` is the checkout."""

    def __init__(self, root: Path, environ: Mapping[str, str] = os.environ) -> None:
        self.root, self.environ = root, environ
        self.progress = Progress()
        self.retry_failed = False
        self.at_once = 1
        self.to_do: Sequence[Pair] | None = None
        """The pairs that a run has found not done; None where nobody asked."""
        self.impatient = False
        """True where something is at hand that is shown instead of what the registry does not say at once."""

    @lazy
    def wanted(self) -> Wanted:
        """``versions.toml``, all of it read: a mistake in a table that only ``doit update`` uses is one for every command."""
        found = versions_toml.load(self.root / versions_toml.WANTED_FILE)
        policies(found, kind_of=_policy_of)
        return found

    @lazy
    def lock(self) -> Lock:
        """``versions.lock``, and the machine's own kernel where ``versions.host.lock`` pins one."""
        return host_lockfile.load(self.root)

    @lazy
    def settings(self) -> Settings:
        """Settings with the environment on top, which is looked over as a whole.

        Raises UsageError for a variable that cannot be meant.
        """
        found = versions_toml.settings(self.wanted, self.environ)
        if self.environ.get("DRIVER_ARCHIVES"):
            self.archives.check(self._pinned_archives)
        return found

    def _pinned_archives(self) -> set[str]:
        """Names of archives in the lock; none where it cannot be read, which whoever needs it says."""
        with contextlib.suppress(PipelineError):
            return {file.archive for file in self.lock.files() if file.archive is not None}
        return set()

    @lazy
    def renderer(self) -> Renderer:
        """Templates to text."""
        settings = self.settings
        return Renderer(self.wanted, self.lock, epoch=settings.source_date_epoch, source_url=settings.source_url)

    @lazy
    def plan(self) -> Plan:
        """The pairs."""
        return Plan(self.wanted, self.lock, self.renderer, compat.load(self.root / compat.COMPAT_FILE))

    @lazy
    def mirrors(self) -> Mirrors:
        """DRIVER_MIRRORS."""
        from ..fetch import mirrors

        return mirrors.load(self.settings.mirrors)

    @lazy
    def registry(self) -> Registry:
        """Where images go."""
        from ..registry import local_writer
        from ..registry.client import Registry

        place, environ = self.settings.registry, self.environ
        if self.impatient:
            return Registry(place, environ=environ, attempts=2, timeout=(4, 4), sleep=lambda wish: time.sleep(min(wish, 1.0)))
        return Registry(place, writer=local_writer.find(place, self.root / local_writer.WRITER_FILE), environ=environ)

    @lazy
    def ledger(self) -> Ledger:
        """What is done."""
        return Ledger(self.registry, self.root, retry_failed=self.retry_failed)

    @lazy
    def fetcher(self) -> Fetcher:
        """HTTP."""
        from ..fetch.fetcher import Fetcher

        return Fetcher(self.store / "http", mirrors=self.mirrors)

    @lazy
    def archives(self) -> Archives:
        """Base addresses of package archives."""
        from ..fetch.apt_sources import Archives

        return Archives(self.wanted, self.environ)

    @lazy
    def store(self) -> Path:
        """Where downloads are kept: pinned files, and the feeds below ``http``. Every checkout of a user has the same.

        Raises DiskError where there can be no such folder.
        """
        given = self.environ.get("DRIVER_CACHE")
        place = Path(given) if given else user_cache.cache_home(self.environ) / "downloads"
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"{place}: {error.strerror}", hint="mend it, or name another folder in DRIVER_CACHE") from error
        return place

    @property
    def scratch(self) -> Path:
        """A directory on the same disk for what is on its way."""
        return self.root / "build"

    @lazy
    def inputs(self) -> Inputs:
        """Pinned files on this machine."""
        from ..fetch.store import Inputs

        return Inputs(self.store, self.fetcher, self.archives.bases, max_unpacked=self.settings.max_unpacked)

    def engine(self) -> Engine:
        """Open the container engine."""
        from ..engine import client

        named = self.wanted.settings.docker_host
        host = client.address(self.environ, named, self.root / client.ENGINE_FILE)
        return client.Engine(host, hint=client.hint(self.environ, named), environ=self.environ)

    @lazy
    def brake(self) -> Brake:
        """What ends a run before every pair was begun."""
        return Brake(self.at_once)

    @lazy
    def shop(self) -> Workshop:
        """What builds."""
        from ..build.assemble import Store
        from ..build.shared_layers import Workshop

        return Workshop(
            root=self.root,
            renderer=self.renderer,
            registry=self.registry,
            inputs=self.inputs,
            store=Store(self.root / "build" / "layers"),
            progress=self.progress,
            open_engine=self.engine,
            at_once=self.at_once,
            mirror=self.mirrors.registry,
        )

    def _sweep(self) -> None:
        """Remove what a run that was killed left half made; only who holds the checkout may."""
        for pattern in _HALF_MADE:
            for place in (self.root / "build").glob(pattern):
                shutil.rmtree(place, ignore_errors=True)
        for place in (*self.root.glob("build/layers/passing/*"), *self.root.glob("build/layers/sha256/.layer.*")):
            place.unlink(missing_ok=True)
        scratch_dirs.sweep(self.root / "build", scratch_dirs.UPDATE)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the checkout against a second run.

        Raises Busy where another run holds it.
        """
        place = self.root / "build" / "run.lock"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            handle = place.open("a+")
        except OSError as error:
            raise DiskError(f"{place}: {error.strerror}", hint=ROOM_HINT) from error
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                number = _holder(place)
                who = f"another run (process {number})" if number else "another run"
                raise Busy(f"{who} works in {self.root}", hint="wait for it, or end it") from error
            self._sweep()
            try:
                os.truncate(handle.fileno(), 0)
                os.write(handle.fileno(), f"{os.getpid()}\n".encode())
            except OSError as error:
                raise DiskError(f"{place}: {error.strerror}", hint=ROOM_HINT) from error
            yield


def _holder(place: Path) -> str:
    """The number of who holds the checkout, waited for a moment: it is written after a sweep. Empty where none is said."""
    for _ in range(20):
        with contextlib.suppress(OSError):
            number = place.read_text(errors="replace").strip()
            if number.isascii() and number.isdigit() and Path("/proc", number).exists():
                return number
        time.sleep(0.05)
    return ""


_open: dict[Path, Workspace] = {}


def here() -> Workspace:
    """The workspace of the current directory; one for a process."""
    root = Path.cwd()
    return _open.get(root) or _open.setdefault(root, Workspace(root))
