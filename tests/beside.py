"""What takes a compiler minutes and tests share: made once, by a process that works beside the tests that need none of it.

The compiler takes two processors for many minutes, most other tests one. So that process begins with the session where any
chosen test wants what it makes, and those tests come last (``pytest_collection_modifyitems``). Its stages, in this order:

1. ``full``: one pair as the committed files have it, every kind and every module, into an empty registry.
2. ``whole``: the whole committed lock, but of kinds only the open one and of modules only ``nvidia`` (minutes
   instead of a quarter of an hour). ``DRIVER_TEST_FULL=1`` makes that run full as well.
3. ``standin_kernels``: the stand-in kernel under each vendor's name (tests/standins/vendors.py).
4. ``host_disk``: a virtual machine's disk on which our installer was run (tests/host_vm.py).
5. ``host_tests``, in a run of everything: the tests in virtual machines themselves (tests/second_pytest.py).

A pytest plugin; ``python -m tests.beside ROOT FOLDER STAGE…`` is the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from pipeline import engine
from pipeline.build import MODULES as MODULES_NAME
from pipeline.errors import PipelineError
from pipeline.pinned import Lock
from tests import budgets, host_vm, second_pytest
from tests.checkout import KERNEL, KINDS, MODULES, OTHER, ROOT, Checkout, Place, Ran, Whole
from tests.host_vm import Disk
from tests.registry_process import running_registry
from tests.standins import vendors

STAGES: Final = ("full", "whole", "standin_kernels", "host_disk", "host_tests")
PARTS: Final = {"full": "thread", "whole": "thread", "standin_kernels": "coreos", "host_disk": "host"}
"""Whose minutes a stage's are (tests/budgets.py); the tests in virtual machines say that themselves."""
ALONE: Final = {"standin_kernels", "host_disk"}
"""Those that need none of the others."""
KEPT_DISK: Final = "DRIVER_TEST_DISK"
"""A folder that keeps the host's disk between runs, for who works on these tests."""
IMAGES: Final = "DRIVER_TEST_IMAGES"
"""A registry that has the images, which are built otherwise."""
KEPT_NAME: Final = "driver-test-kept"
"""An image name of the engine: second names of what ``whole`` compiled."""
_CHOSEN: Final = "chosen"
"""The file of the folder with the names of the tests in virtual machines."""
_seconds: Final[dict[str, float]] = {}
"""How long each took, most of that beside the tests."""


@dataclass(frozen=True)
class Full:
    """The first run, and what there was after it: ``build/index.json``, and every tag of the registry with its digest."""

    ran: Ran
    index: dict[str, Any]
    tags: dict[str, str]


class Beside:
    """The process and what it has made so far, in ``folder``; ``checkout`` is where pairs are built."""

    def __init__(self, checkout: Checkout, folder: Path) -> None:
        self.checkout, self.folder = checkout, folder
        folder.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self, *stages: str) -> None:
        """Let it build ``stages``; one process at a time."""
        words = [sys.executable, "-m", "tests.beside", str(self.checkout.root), str(self.folder), *stages]
        with (self.folder / "log").open("wb") as log:
            environ = {**self.checkout.environ, "PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(
                words, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def result(self, stage: str) -> dict[str, Any]:
        """What ``stage`` came to, when it has; raises RuntimeError where it failed."""
        place, asked = self.folder / f"{stage}.json", time.time()
        while not place.exists():
            if self._process is None:
                self.begin(*([stage] if stage in ALONE else STAGES[: STAGES.index(stage) + 1]))
            elif self._process.poll() == 0:
                self._process = None  # it was asked for less
            elif self._process.returncode:
                raise RuntimeError(f"'{stage}' could not be made:\n{(self.folder / 'log').read_text(errors='replace')[-6000:]}")
            time.sleep(0.2)
        found: dict[str, Any] = json.loads(place.read_bytes())
        if "error" in found:
            raise RuntimeError(f"'{stage}' could not be made:\n{found['error']}")
        begun, ended = found.pop("begun"), found.pop("ended")
        if stage in PARTS:
            budgets.waited(asked, time.time())
            if stage not in _seconds:
                budgets.worked(PARTS[stage], begun, ended)
        _seconds[stage] = ended - begun
        return found

    def close(self) -> None:
        """End the process and what it started, and let the engine forget what it kept for the tests."""
        if process := self._process:
            for deadly in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, deadly)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(60)
        with contextlib.suppress(PipelineError):  # an engine that has gone keeps nothing
            engine.Engine(self.checkout.environ["DOCKER_HOST"]).keep_newest(KEPT_NAME, 0)


def build(checkout: Checkout, folder: Path, stages: Collection[str]) -> None:
    """Make what of ``stages`` is not in ``folder`` yet, and put there what each came to; one that fails is no other's affair."""
    makers = (make_full, make_whole, make_kernels, make_host_disk, make_host_tests)
    for stage, make in zip(STAGES, makers, strict=True):
        place = folder / f"{stage}.json"
        if stage not in stages or place.exists():
            continue
        begun = time.time()
        try:
            made = {**make(checkout, folder), "begun": begun, "ended": time.time()}
        except (AssertionError, OSError, RuntimeError, PipelineError, subprocess.SubprocessError):
            made = {"error": traceback.format_exc()[-6000:]}
        place.with_suffix(".new").write_text(json.dumps(made))
        place.with_suffix(".new").rename(place)


def make_full(checkout: Checkout, _folder: Path) -> dict[str, Any]:
    """``doit 'image:*6.1.0-47*'`` on the committed files, into an empty registry."""
    ran = checkout.doit("--json", f"image:*{KERNEL}*").ended(0)
    registry = checkout.space().registry
    tags = {tag: str(registry.digest(tag)) for tag in registry.tags()}
    return {"ran": asdict(ran), "index": checkout.index(), "tags": tags}


def make_whole(checkout: Checkout, folder: Path) -> dict[str, Any]:
    """The whole lock in three runs, the first of which is killed."""
    assert "error" not in json.loads((folder / "full.json").read_bytes()), "'full' could not be made"
    checkout.only(modules=MODULES, kinds=KINDS)
    committed = (checkout.root / "versions.lock").read_bytes()
    checkout.relock(without(OTHER))
    killed = kill_after_a_pair(checkout)
    keep_compiled(checkout)
    resumed = checkout.doit("--json").ended(0)
    (checkout.root / "versions.lock").write_bytes(committed)
    added = checkout.doit("--json").ended(0)
    keep_compiled(checkout)
    return {"killed": asdict(killed), "resumed": asdict(resumed), "added": asdict(added)}


def keep_compiled(checkout: Checkout) -> None:
    """Let the engine keep what it compiled for ``checkout``.

    Other tests build dozens of pairs on it, and of all pairs' it keeps the newest (pipeline/build.py, KEEP).
    """

    def docker(*words: str) -> str:
        return subprocess.run(["docker", *words], env=checkout.environ, check=True, capture_output=True, text=True).stdout

    for tag in docker("image", "ls", "--format", "{{.Tag}}", MODULES_NAME).split():
        docker("image", "tag", f"{MODULES_NAME}:{tag}", f"{KEPT_NAME}:{tag}")


def make_kernels(checkout: Checkout, folder: Path) -> dict[str, Any]:
    """The stand-in kernels, below ``folder``."""
    return {"place": str(vendors.kernels(folder, checkout.space().inputs))}


def make_host_disk(_checkout: Checkout, folder: Path) -> dict[str, Any]:
    """The disk, below ``folder``."""
    disk, _ = disk_in(folder / "host")
    return {"folder": str(disk.folder)}


def disk_in(folder: Path) -> tuple[Disk, str]:
    """The disk in ``folder`` and what the installer said, which lies beside it; made where there is none."""
    if not (folder / "installed.qcow2").exists():
        disk, said = host_vm.make_disk(host_vm.make_root(ROOT / "build/vm"), folder)
        (disk.folder / "said").write_text(said)
    return Disk(folder, "installed.qcow2"), (folder / "said").read_text()


def make_host_tests(_checkout: Checkout, folder: Path) -> dict[str, Any]:
    """The tests in virtual machines, on the images of ``whole`` and the disk of ``host_disk``: their reports."""
    whole, disk = (json.loads((folder / f"{stage}.json").read_bytes()) for stage in ("whole", "host_disk"))
    assert "error" not in {**whole, **disk}, "what they need could not be made"
    environ = {name: value for name, value in os.environ.items() if name not in ("DRIVER_REGISTRY", "PYTHONPATH")}
    environ |= {IMAGES: os.environ["DRIVER_REGISTRY"], KEPT_DISK: disk["folder"], **budgets.left()}
    tests = json.loads((folder / _CHOSEN).read_bytes())
    return {"reports": second_pytest.run(tests, folder / "host_tests.told", environ, ROOT)}


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


def without(kernel: str) -> Callable[[Lock], Lock]:
    """A change of the lock: ``kernel`` is not pinned."""

    def change(lock: Lock) -> Lock:
        return msgspec.structs.replace(lock, kernels=tuple(k for k in lock.kernels if k.kernel != kernel))

    return change


def wanted(item: pytest.Item) -> set[str]:
    """The stages that a test needs: ``whole`` takes the checkout as ``full`` left it."""
    names = set(getattr(item, "fixturenames", ()))
    if "images" in names and not os.environ.get(IMAGES) and not _skipped(item):
        names.add("whole")
    if "installed" in names and not os.environ.get(KEPT_DISK) and not _skipped(item):
        names.add("host_disk")
    return names & set(STAGES) | ({"full"} if "whole" in names else set())


def _skipped(item: pytest.Item) -> bool:
    return item.get_closest_marker("skip") is not None or any(
        mark.args and mark.args[0] is True for mark in item.iter_markers("skipif")
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules of tests that need nothing of it come first, then in the order in which it is made."""
    rank = {item.path: 0 for item in items}
    for item in items:
        found = [STAGES.index(stage) + 1 for stage in wanted(item)]
        rank[item.path] = max([rank[item.path], *found])
    items.sort(key=lambda item: rank[item.path])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for what no test's own time has in it, though its part's minutes do."""
    if _seconds:
        words = ", ".join(f"'{stage}' {seconds / 60:.1f}" for stage, seconds in _seconds.items())
        terminalreporter.write_line(f"made beside the tests, in so many minutes by the clock: {words}")


@pytest.fixture(scope="session", autouse=True)
def _begun_ahead(request: pytest.FixtureRequest) -> None:
    """Begin with the session what any of its tests wants."""
    items = request.session.items
    stages = {stage for item in items for stage in wanted(item)}
    if not stages:
        return
    with contextlib.suppress(PipelineError):  # no engine answers: the tests that need it say so
        beside: Beside = request.getfixturevalue("beside")
        if stages == set(STAGES) - {"host_tests"}:  # there is much else to do meanwhile
            stages.add("host_tests")
            tests = [item.nodeid for item in items if "host_disk" in wanted(item)]
            (beside.folder / _CHOSEN).write_text(json.dumps(tests))
            others = second_pytest.Others(frozenset(tests), lambda: beside.result("host_tests")["reports"])
            request.session.stash[second_pytest.OTHERS] = others
        beside.begin(*(stage for stage in STAGES if stage in stages))


@pytest.fixture(scope="session")
def engine_host() -> str:
    """Address of the engine that ``./doit.sh test`` found or started."""
    host = engine.address(os.environ, "", ROOT / engine.ENGINE_FILE)
    engine.Engine(host)  # none answers: its one line says what to do
    return host


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder on the disk of the download cache, so that inputs are linked, not copied."""
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "build", prefix="e2e.") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def registry(scratch: Path) -> Iterator[Place]:
    """A registry, empty at first."""
    with running_registry(scratch / "registry") as address:
        yield Place(address.replace("127.0.0.1", "localhost"), scratch / "registry/registry.log")


@pytest.fixture(scope="session")
def environ(engine_host: str) -> dict[str, str]:
    """Where a test's checkout finds engine and downloaded packages; the registry is its own affair."""
    cache = os.environ.get("DRIVER_CACHE") or str(ROOT / "build/cache")
    return {"DOCKER_HOST": engine_host, "DRIVER_CACHE": cache}


@pytest.fixture(scope="session")
def checkout(scratch: Path, environ: dict[str, str], registry: Place) -> Checkout:
    """The checkout that ``full`` and ``whole`` are built in."""
    return Checkout(scratch / "checkout", DRIVER_REGISTRY=registry.address, **environ)


@pytest.fixture(scope="session")
def beside(checkout: Checkout, scratch: Path) -> Iterator[Beside]:
    """What makes them."""
    made = Beside(checkout, scratch / "beside")
    yield made
    made.close()


@pytest.fixture(scope="session")
def full(beside: Beside) -> Full:
    """The first run."""
    found = beside.result("full")
    return Full(Ran(**found["ran"]), found["index"], found["tags"])


@pytest.fixture(scope="session")
def whole(beside: Beside, registry: Place) -> Whole:
    """The three runs over the whole lock."""
    runs = {name: Ran(**ran) for name, ran in beside.result("whole").items()}
    return Whole(beside.checkout, registry, **runs, changed=bool(MODULES))


@pytest.fixture(scope="session")
def standin_kernels(beside: Beside) -> Path:
    """A folder with the stand-in kernels; ``DRIVER_STANDINS`` names one that is kept between runs."""
    return Path(beside.result("standin_kernels")["place"])


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest) -> tuple[Disk, str]:
    """A virtual machine's disk on which our shell line was run, and what that said."""
    kept = os.environ.get(KEPT_DISK) or request.getfixturevalue("beside").result("host_disk")["folder"]
    return disk_in(Path(kept))


if __name__ == "__main__":
    _root, _folder, *_stages = sys.argv[1:]
    _environ = {name: os.environ[name] for name in ("DOCKER_HOST", "DRIVER_REGISTRY")}
    build(Checkout(Path(_root), **_environ), Path(_folder), _stages)
