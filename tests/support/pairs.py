"""Real pairs that tests share, each made once: a pytest plugin.

- ``pairs``: two pairs of the tests' own lock with ``nvidia`` of one kind alone, out of the cache. For tests that use images.
- ``first``, ``added``: the same runs, made anew, for the tests that prove that the pipeline makes them (test_main_job.py).
- ``full``: a pair with every kind and every module; ``whole``: the tests' whole lock in three runs. Long runs only.

The tests that take ``fresh_pairs``, ``full`` or ``whole`` share a checkout, so one worker runs them (``PAIRS`` in areas.py).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.config.records import Lock
from pipeline.engine import client
from pipeline.registry.client import Registry
from tests.checkout import DRIVER, KERNEL, KINDS, MODULES, OTHER, PINS, ROOT, Checkout, Place, Ran
from tests.registry_process import running_registry
from tests.support.cache import Cache, product
from tests.support.digests import Part


@dataclass(frozen=True)
class Made:
    """A finished ``doit``, and what there was after it: ``build/index.json``, every tag of the registry with its digest."""

    ran: Ran
    index: dict[str, Any]
    tags: dict[str, str]

    @property
    def built(self) -> dict[str, Any]:
        """The index's row of the one pair that is built."""
        (row,) = [row for row in self.index["pairs"] if row["outcome"] == "built"]
        return dict(row)


@dataclass(frozen=True)
class Pairs:
    """KERNEL's pair and then OTHER's, each after a run of its own; ``folder`` holds checkout and registry."""

    folder: Path
    first: Made
    added: Made


@dataclass
class Whole:
    """The tests' whole lock, built in three runs, and the checkout they were made in."""

    checkout: Checkout
    registry: Place
    killed: Ran
    """Over the lock without OTHER; ended by SIGKILL as soon as its first pair was built."""
    resumed: Ran
    """The same again, to the end."""
    added: Ran
    """Over the whole lock."""


def made(checkout: Checkout, *words: str) -> Made:
    """Run ``doit --json WORDS`` there; fail where it fails."""
    ran = checkout.doit("--json", *words).ended(0)
    registry = checkout.space().registry
    return Made(ran, checkout.index(), {tag: str(registry.digest(tag)) for tag in registry.tags()})


def make_pairs(folder: Path, environ: dict[str, str]) -> None:
    """Fill ``folder`` with ``checkout``, ``registry`` and ``runs.json``, by two real runs."""
    with running_registry(folder / "registry") as address:
        checkout = Checkout(folder / "checkout", DRIVER_REGISTRY=address.replace("127.0.0.1", "localhost"), **environ)
        checkout.only(modules=MODULES, kinds=KINDS)
        runs = [made(checkout, f"image:*{kernel}-{DRIVER}") for kernel in (KERNEL, OTHER)]
    (folder / "runs.json").write_text(json.dumps([asdict(run) for run in runs]))


def read_pairs(folder: Path) -> Pairs:
    """What ``make_pairs`` left in ``folder``."""
    runs = json.loads((folder / "runs.json").read_bytes())
    return Pairs(folder, *(Made(Ran(**run["ran"]), run["index"], run["tags"]) for run in runs))


def without(kernel: str) -> Callable[[Lock], Lock]:
    """Give a change of the lock after which ``kernel`` is not pinned."""

    def change(lock: Lock) -> Lock:
        return msgspec.structs.replace(lock, kernels=tuple(k for k in lock.kernels if k.kernel != kernel))

    return change


def kill_after_a_pair(checkout: Checkout) -> Ran:
    """Run ``doit`` until a pair has an outcome, then end it with SIGKILL."""
    said: list[str] = []
    with checkout.start("--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            said.append(line)
            if json.loads(line)["event"] == "outcome":
                process.send_signal(signal.SIGKILL)
                break
        err = process.stderr.read()
    return Ran(process.returncode, "".join(said), err, 0.0)


@pytest.fixture(scope="session")
def cache() -> Iterator[Cache]:
    """What tests keep between runs (tests/support/cache.py)."""
    with Cache.of_this_user() as kept:
        yield kept


@pytest.fixture(scope="session")
def engine_host() -> str:
    """Address of the engine that ``./doit.sh test`` found or started."""
    host = client.address(os.environ, "", ROOT / client.ENGINE_FILE)
    client.Engine(host)  # none answers: its one line says what to do
    return host


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder of this worker's session on the checkout's disk."""
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build", prefix="e2e.", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def environ(engine_host: str) -> dict[str, str]:
    """Where a test's checkout finds engine and downloaded packages; the registry is its own affair."""
    return {"DOCKER_HOST": engine_host}


@pytest.fixture(scope="session")
def pairs_folder(cache: Cache, scratch: Path, environ: dict[str, str]) -> tuple[Path, bool]:
    """A folder with the two pairs, and whether this worker has just made them."""
    now: list[Path] = []

    def make(folder: Path) -> None:
        now.append(folder)
        make_pairs(folder, environ)

    decided: dict[str, Part] = {"product": product(), "program": ROOT / "image", "rules": ROOT / "compat.toml", "pins": PINS}
    return cache.entry("pairs", {**decided, "code": Path(__file__)}, make), bool(now)


@pytest.fixture(scope="session")
def pairs(pairs_folder: tuple[Path, bool]) -> Pairs:
    """KERNEL's and OTHER's pair; whoever needs images takes them from here."""
    return read_pairs(pairs_folder[0])


@pytest.fixture(scope="session")
def fresh_pairs(pairs_folder: tuple[Path, bool], scratch: Path, environ: dict[str, str]) -> Pairs:
    """The same, made by this checkout in this session, in a folder that tests may change."""
    kept, new = pairs_folder
    folder = scratch / "pairs"
    if new:
        shutil.copytree(kept, folder, symlinks=True)
        for path in folder.rglob("*"):  # the cache's own are not to be written
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o200)
    else:
        folder.mkdir()
        make_pairs(folder, environ)
    return read_pairs(folder)


@pytest.fixture(scope="session")
def images_at(pairs: Pairs, scratch: Path) -> Iterator[str]:
    """``localhost:<port>`` of a registry that serves the images of ``pairs`` and takes none."""
    with running_registry(scratch / "images", storage=pairs.folder / "registry/storage", read_only=True) as address:
        yield address.replace("127.0.0.1", "localhost")


@pytest.fixture(scope="session")
def images(images_at: str) -> Registry:
    """The same as the pipeline sees it."""
    return Registry(images_at, environ={})


@pytest.fixture(scope="session")
def full_checkout(scratch: Path, environ: dict[str, str]) -> Iterator[Checkout]:
    """The checkout that ``full`` and ``whole`` are built in, with a registry of its own."""
    with running_registry(scratch / "full.registry") as address:
        yield Checkout(scratch / "full", DRIVER_REGISTRY=address.replace("127.0.0.1", "localhost"), **environ)


@pytest.fixture(scope="session")
def full(full_checkout: Checkout) -> Made:
    """KERNEL's pair as the tests' files have it: every kind, every module; into an empty registry."""
    return made(full_checkout, f"image:*{KERNEL}-{DRIVER}")


@pytest.fixture(scope="session")
def whole(full_checkout: Checkout, full: Made, scratch: Path) -> Whole:
    """The tests' whole lock with ``nvidia`` of one kind alone, in three runs, the first of which is killed."""
    assert full.built, "the registry holds the same pair with another recipe"
    checkout = full_checkout
    checkout.only(modules=MODULES, kinds=KINDS)
    committed = (checkout.root / "versions.lock").read_bytes()
    checkout.relock(without(OTHER))
    killed = kill_after_a_pair(checkout)
    resumed = checkout.doit("--json").ended(0)
    (checkout.root / "versions.lock").write_bytes(committed)
    added = checkout.doit("--json").ended(0)
    place = Place(checkout.environ["DRIVER_REGISTRY"], scratch / "full.registry/registry.log")
    return Whole(checkout, place, killed, resumed, added)
