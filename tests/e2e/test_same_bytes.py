"""The same lock in another checkout, with an engine and a registry that are both empty, gives the same images."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engine.client import Engine
from tests.checkout import DRIVER, KERNEL, KINDS, MODULES, OTHER, Checkout
from tests.private_engine import daemon, private_engine, why_not
from tests.registry_process import running_registry
from tests.support.pairs import Whole

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.full,
    pytest.mark.area("thread"),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
]


@pytest.fixture(scope="module")
def elsewhere(room: Path, environ: dict[str, str]) -> Iterator[Checkout]:
    """A second checkout with a private engine and a registry of its own."""
    checkout = Checkout(room / "elsewhere", **environ)
    with private_engine(checkout.root) as host, running_registry(room / "elsewhere.registry") as address:
        checkout.environ |= {"DOCKER_HOST": host, "DRIVER_REGISTRY": address}
        checkout.only(modules=MODULES, kinds=KINDS)
        yield checkout


def test_another_machine_makes_the_same_digests_from_the_same_lock(whole: Whole, elsewhere: Checkout) -> None:
    pair = elsewhere.pair(KERNEL, DRIVER)
    assert not Engine(elsewhere.environ["DOCKER_HOST"]).has(pair.rendered.tag, pair.recipe), "the engine is empty"
    ran = elsewhere.doit("--json", f"image:{pair.id}").ended(0)
    assert {"base:amd64", f"driver:{DRIVER}/amd64", pair.id} <= set(ran.steps("build"))
    here, there = whole.checkout.space().registry, elsewhere.space().registry
    made = set(there.tags()) - {"index"}
    assert {pair.recipe_tag, *pair.tags, *pair.aliases} < made
    assert any(tag.startswith("base-") for tag in made)
    assert any(tag.startswith(f"userspace-{DRIVER}-") for tag in made)
    assert {tag: there.digest(tag) for tag in made} == {tag: here.digest(tag) for tag in made}


def test_an_engine_that_dies_in_the_middle_of_a_build_costs_that_pair_and_nothing_else(elsewhere: Checkout) -> None:
    built, pair = elsewhere.pair(KERNEL, DRIVER), elsewhere.pair(OTHER, DRIVER)
    registry = elsewhere.space().registry
    held = registry.digest(built.recipe_tag)
    with elsewhere.start("--json", f"image:{pair.id}") as run:
        _compiling(elsewhere, OTHER)
        os.kill(daemon(elsewhere.root), signal.SIGKILL)
        _, err = run.communicate(timeout=300)
    assert run.returncode == 2, err
    (line,) = err.splitlines()
    assert line.startswith("doit: the engine at unix://")
    assert "run again" in line or "is it running" in line
    assert elsewhere.outcomes()[pair.id] == "pending"
    assert elsewhere.outcomes()[built.id] == "built"
    assert registry.digest(built.recipe_tag) == held
    assert not {pair.recipe_tag, pair.failed_tag} & set(registry.tags())


def _compiling(checkout: Checkout, kernel: str, seconds: float = 300) -> None:
    """Wait until the log of a build of ``kernel`` shows the compiler at work."""
    deadline = time.monotonic() + seconds
    while not any("CONFTEST:" in log.read_text() for log in (checkout.root / "build/log").glob(f"*{kernel}*.log")):
        assert time.monotonic() < deadline, "the compiler did not begin"
        time.sleep(0.1)
