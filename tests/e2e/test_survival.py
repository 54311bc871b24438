"""Whatever happens to a run, the next one goes on where it was, and nothing in the registry points to what is not there.

Builds are tiny here (tests/tiny_project.py); engine, registry, assembly and doit are the real ones.
"""

from __future__ import annotations

import os
import re
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.registry.client import Registry
from tests import registry_process, tiny_project
from tests.faults import Asked, Fault, FaultyProxy, Killer, at_random, small_disk
from tests.registry_process import running_registry
from tests.tiny_project import FAILS, TinyProject, digests, served_packages, walk

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.area("scale"),
    pytest.mark.skipif(not registry_process.installed(), reason=registry_process.MISSING),
]
SEED = 20261124
MANY = tuple(f"6.1.{number}" for number in range(10, 18))
"""FAILS is one of them."""
FEW = ("6.1.20", "6.1.21")


class Place:
    """A registry, an archive and projects that use them."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        if reason := tiny_project.missing():
            pytest.skip(reason)
        self.root, self.stack = root, stack
        self.salt = uuid.uuid4().hex
        self.archive, self.packages = stack.enter_context(served_packages(root / "archive"))
        self.address = stack.enter_context(running_registry(root / "registry"))
        self.projects: list[TinyProject] = []
        stack.callback(self.forget)

    def forget(self) -> None:
        """Let the engine forget every step of every project here."""
        for project in self.projects:
            project.forget()

    def registry(self) -> Registry:
        return Registry(self.address, environ={})

    def project(
        self, name: str, kernels: Sequence[str], *, root: Path | None = None, registry: str = "", **environ: str
    ) -> TinyProject:
        made = TinyProject(
            root or self.root / name, self.archive, self.packages, registry=registry or self.address, salt=self.salt,
            kernels=kernels, **environ,
        )  # fmt: skip
        self.projects.append(made)
        return made


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, stack)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Place, Sequence[str]], dict[str, str]]:
    """Digests of a run that nothing happens to, in a registry of its own, after the engine forgot the other run's steps."""

    def run(place: Place, kernels: Sequence[str]) -> dict[str, str]:
        place.forget()
        root = tmp_path_factory.mktemp("undisturbed")
        with running_registry(root / "registry") as address:
            project = place.project("calm", kernels, root=root / "calm", registry=address)
            done = project.doit()
            assert done.returncode == (FAILS in kernels), done.stderr
            return digests(Registry(address, environ={}))

    return run


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.full)])
def test_kills_at_random_then_one_clean_run_give_the_digests_of_an_undisturbed_run(
    place: Place, undisturbed: Callable[[Place, Sequence[str]], dict[str, str]], kills: int
) -> None:
    project, killer = place.project("struck", MANY), Killer(SEED, events=4, seconds=0.4)
    for _ in range(kills + 2):
        if not killer.strike(project.start("--json")):
            break
        walk(place.registry())
    assert len(killer.strikes) >= kills
    assert {how for _, how in killer.strikes} == {signal.SIGTERM, signal.SIGKILL}

    left = project.root / "build" / ".kinds.of-a-killed-run"
    left.mkdir()
    clean = project.doit()
    assert clean.returncode == 1, clean.stderr  # FAILS is an outcome
    assert "7 of 8 pairs built; 1 failed" in clean.stderr
    assert "Traceback" not in clean.stderr
    assert walk(place.registry()) > len(MANY)
    assert list((project.root / "build").glob(".[a-z]*")) == []

    again = project.doit()
    assert "compiled" not in again.stderr
    assert digests(place.registry()) == undisturbed(place, MANY)


def test_a_second_run_on_one_checkout_says_who_is_at_work_and_ends(place: Place) -> None:
    project = place.project("one", FEW)
    with project.start("--json") as first:
        assert first.stdout is not None
        first.stdout.readline()
        second = project.doit()
        assert second.returncode == 2
        assert re.fullmatch(
            rf"doit: another run \(process {first.pid}\) works in {re.escape(str(project.root))}: wait for it, or end it\n",
            second.stderr,
        )
        first.communicate()
    assert first.returncode == 0


def test_a_registry_that_is_restarted_in_the_middle_only_delays_the_run(place: Place) -> None:
    with ExitStack() as own:
        address = own.enter_context(running_registry(place.root / "second"))
        project = place.project("patient", FEW, registry=address)
        with project.start("--json") as run:
            assert run.stdout is not None
            while '"outcome": "built"' not in run.stdout.readline():
                pass
            own.close()
            time.sleep(0.5)
            with running_registry(place.root / "second", port=int(address.rpartition(":")[2])):
                _, err = run.communicate(timeout=300)
                assert run.returncode == 0, err
                assert walk(Registry(address, environ={})) > 0


def test_a_login_that_expires_in_the_middle_ends_the_run_and_the_next_one_goes_on(place: Place) -> None:
    expired = False

    def decide(asked: Asked) -> Fault | None:
        return Fault("status", status=401, headers={"WWW-Authenticate": 'Basic realm="test"'}) if expired else None

    with FaultyProxy(place.address, decide) as proxy:
        project = place.project("guest", FEW, registry=proxy.place)
        with project.start("--json") as run:
            assert run.stdout is not None
            while '"outcome": "built"' not in run.stdout.readline():
                pass
            expired = True
            _, err = run.communicate(timeout=300)
        assert run.returncode == 2
        assert "Traceback" not in err
        assert "401" in err
        assert "docker login" in err or "log in" in err
        walk(place.registry())
        expired = False
        after = project.doit()
        assert after.returncode == 0, after.stderr
        assert "2 of 2 pairs built" in after.stderr


@pytest.mark.parametrize("where", ["registry", "archive"])
def test_a_proxy_that_breaks_every_tenth_exchange_is_outlived(
    place: Place, where: str, undisturbed: Callable[[Place, Sequence[str]], dict[str, str]]
) -> None:
    target = place.address if where == "registry" else place.archive.url.removeprefix("http://")
    with FaultyProxy(target, at_random(SEED, 0.1 if where == "registry" else 0.5)) as proxy:
        through = f"debian=http://{proxy.place}/debian"
        if where == "registry":
            project = place.project("unlucky", FEW, registry=proxy.place)
        else:
            project = place.project("unlucky", FEW, DRIVER_ARCHIVES=through)
        for _ in range(10):
            done = project.doit()
            assert "Traceback" not in done.stderr
            assert done.returncode in (0, 2), done.stderr
            walk(place.registry())
            if done.returncode == 0:
                break
        assert done.returncode == 0
        assert len(proxy.faults) > 3
    assert digests(place.registry()) == undisturbed(place, FEW)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_ends_the_run_with_one_line_and_the_next_one_goes_on(place: Place) -> None:
    with small_disk(place.root / "disk", 2) as grow:
        project = place.project("cramped", FEW, root=place.root / "disk" / "project")
        full = project.doit()
        assert full.returncode == 2
        assert "Traceback" not in full.stderr
        assert re.search(r"^doit: .*No space left on device: free some", full.stderr, re.MULTILINE), full.stderr
        grow(200)
        after = project.doit()
        assert after.returncode == 0, after.stderr
        walk(place.registry())
