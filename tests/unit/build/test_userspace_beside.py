"""A driver's userspace is made beside the compiling of its first pair: what either meets ends both, and is said once.

Builds are tiny (tests/tiny_project.py); engine, registry, assembly and doit are the real ones.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.registry.client import Registry
from tests import tiny_project
from tests.registry_process import MISSING, installed, running_registry
from tests.tiny_project import FAILS, TinyProject, served_packages

pytestmark = [
    pytest.mark.skipif(not installed(), reason=MISSING),
    pytest.mark.skipif(bool(tiny_project.missing()), reason=tiny_project.missing() or "-"),
]
COMPILES = "6.1.11"


class Place:
    """Two pairs of one driver, of which the second does not compile, and the archive that their packages come from."""

    def __init__(self, root: Path, registry: str) -> None:
        self.registry = Registry(registry, environ={})
        self._served = served_packages(root / "archive")
        archive, self.packages = self._served.__enter__()
        self.project = TinyProject(
            root / "project", archive, self.packages, registry=registry, salt=secrets.token_hex(8), kernels=(COMPILES, FAILS)
        )
        (self.userspace,) = self.packages.rglob("libcuda1*.deb")

    def close(self) -> None:
        """End the archive; let the engine keep nothing."""
        self.project.forget()
        self._served.__exit__(None, None, None)

    def run(self, kernel: str, *statuses: int) -> tuple[list[dict[str, Any]], list[str]]:
        """``doit --json`` for one pair: its events, and the lines on stderr."""
        done = self.project.doit("--json", f"image:*6.1.0-{kernel.rpartition('.')[2]}-*")
        assert done.returncode in statuses, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.splitlines()

    def userspace_tags(self) -> list[str]:
        """What the registry has of the driver's userspace."""
        return [tag for tag in self.registry.tags() if tag.startswith("userspace-")]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with running_registry(tmp_path / "registry") as registry:
        made = Place(tmp_path, registry)
        try:
            yield made
        finally:
            made.close()


def test_a_pair_and_its_userspace_are_both_made(place: Place) -> None:
    events, said = place.run(COMPILES, 0)
    assert said == []
    made = [event["pair"] for event in events if event.get("step") == "build"]
    assert made.count("driver:535.261.03/amd64") == 1
    assert made[:2] == ["toolchain:debian-12/amd64", "base:amd64"], "which both need"
    assert len(made) == 3 + 3, "probes and two kinds"
    assert len(place.userspace_tags()) == 1


def test_what_the_userspace_meets_is_said_once_and_the_pair_is_left_to_the_next_run(place: Place) -> None:
    data = place.userspace.read_bytes()
    place.userspace.unlink()
    events, said = place.run(COMPILES, 2)
    assert len(said) == 1
    assert "libcuda1" in said[0]
    assert not [event for event in events if event["event"] == "outcome"], "that says nothing about the pair"
    assert not [event for event in events if event.get("step") in ("proof", "push") and "debian/" in event["pair"]]
    place.userspace.write_bytes(data)
    events, _ = place.run(COMPILES, 0)
    assert [event["outcome"] for event in events if event["event"] == "outcome"] == ["built"]


def test_where_nothing_compiles_the_userspace_is_at_its_end_before_the_run_is(place: Place) -> None:
    events, said = place.run(FAILS, 1)
    assert "too few arguments" in said[0]
    assert [event["outcome"] for event in events if event["event"] == "outcome"] == ["failed"]
    assert len(place.userspace_tags()) == 1, "the next pair finds it made"
    assert not list((place.project.root / "build").glob(".export.*"))


def test_where_both_go_wrong_the_run_ends_with_what_was_met_first(place: Place) -> None:
    place.userspace.unlink()
    events, said = place.run(FAILS, 1, 2)
    assert len(said) == 1
    outcomes = [event["outcome"] for event in events if event["event"] == "outcome"]
    assert (outcomes, "too few arguments" in said[0], "libcuda1" in said[0]) in [(["failed"], True, False), ([], False, True)]
