"""Two runners over one registry that end at the same moment. The build step stands in for the real one (bench/stand_in.py)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.outcomes.index import Entry
from pipeline.publish.ledger import Ledger
from pipeline.registry.client import Registry
from tests import registry_process, samples
from tests.faults import Asked, Fault, FaultyProxy
from tests.registry_process import running_registry
from tests.small_project import ROOT, SmallProject
from tests.tiny_project import walk

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.area("scale"),
    pytest.mark.skipif(not registry_process.installed(), reason=registry_process.MISSING),
]
OLD, NEW = "535.261.03", "535.309.01"
KERNEL = "6.1.0-47-cloud-amd64"


class Runner(SmallProject):
    """A checkout of its own."""

    def work(self, pattern: str) -> None:
        """Do the pairs that ``pattern`` names, to the end."""
        done = subprocess.run(
            [sys.executable, "-m", "bench.stand_in", "run", pattern],
            check=False,
            cwd=self.root,
            env={**self.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr


def index(place: str, root: Path) -> list[Entry]:
    return [entry for entry in Ledger(Registry(place, environ={}), root).published.pairs if entry.outcome == "built"]


@pytest.mark.parametrize("moment", ["index", f"{KERNEL}-535"])
def test_the_last_to_publish_sees_what_the_other_has_done(tmp_path: Path, moment: str) -> None:
    """While the first runner pushes ``moment``, the second one does all its work and ends."""
    lock = samples.a_lock(
        drivers=(samples.driver(OLD), samples.driver(NEW)),
        kernels=(samples.kernel(drivers=(OLD, NEW)), samples.kernel("6.1.0-50-cloud-amd64", "6.1.176", drivers=(OLD, NEW))),
    )
    with running_registry(tmp_path / "registry") as place:
        second = Runner(tmp_path / "second", lock, registry=place)
        once, failed = threading.Lock(), list[BaseException]()

        def decide(asked: Asked) -> Fault | None:
            if asked.method == "PUT" and asked.path.endswith(f"/manifests/{moment}") and once.acquire(blocking=False):
                try:
                    second.work(f"image:debian/amd64:*-{NEW}")
                except AssertionError as error:
                    failed.append(error)
            return None

        with FaultyProxy(place, decide) as proxy:
            Runner(tmp_path / "first", lock, registry=proxy.place).work(f"image:debian/amd64:{KERNEL}-{OLD}")
        assert failed == []
        assert once.locked()
        built = index(place, tmp_path)
        assert {(entry.kernel, entry.driver) for entry in built} == {(KERNEL, OLD), (KERNEL, NEW), ("6.1.0-50-cloud-amd64", NEW)}
        registry = Registry(place, environ={})
        digests = {entry.driver: entry.digest for entry in built if entry.kernel == KERNEL}
        assert registry.digest(f"{KERNEL}-535") == digests[NEW]
        assert registry.digest(f"{KERNEL}-{OLD}") == digests[OLD]
        walk(registry)


@pytest.mark.parametrize("moment", [f"{samples.FLATCAR}-535.261.03", f"{samples.FLATCAR}-535", "index"])
def test_runners_of_two_architectures_leave_one_index_under_each_name_they_share(tmp_path: Path, moment: str) -> None:
    """amd64's runner pushes ``moment``; before it arrives, arm64's does all its work. No lock is between the two."""
    lock = samples.both_arches()
    with running_registry(tmp_path / "registry") as place:
        second = Runner(tmp_path / "second", lock, registry=place)
        once, failed = threading.Lock(), list[BaseException]()

        def decide(asked: Asked) -> Fault | None:
            if asked.method == "PUT" and asked.path.endswith(f"/manifests/{moment}") and once.acquire(blocking=False):
                try:
                    second.work("image:flatcar/arm64:*")
                except AssertionError as error:
                    failed.append(error)
            return None

        with FaultyProxy(place, decide) as proxy:
            Runner(tmp_path / "first", lock, registry=proxy.place).work("image:flatcar/amd64:*")
        assert failed == []
        assert once.locked()
        registry = Registry(place, environ={})
        digests = {entry.arch: entry.digest for entry in index(place, tmp_path)}
        shared = {tag for tag in registry.tags() if not tag.startswith(("r-", "index"))}
        assert shared >= {f"{samples.FLATCAR}-535.261.03", f"{samples.FLATCAR}-535"}
        for tag in shared:
            manifest = registry.manifest(tag)
            assert manifest is not None
            assert {p["platform"]["architecture"]: p["digest"] for p in json.loads(manifest.data)["manifests"]} == digests
        assert walk(registry)
        idle = second.doit()
        assert idle.returncode == 0
        assert "2 of 2 pairs built" in idle.stderr
        assert "moves" not in idle.stderr


def test_a_runner_that_died_before_it_published_is_made_good_by_whoever_comes_next(tmp_path: Path) -> None:
    lock = samples.a_lock()

    def decide(asked: Asked) -> Fault | None:
        return Fault("status", status=403) if asked.path.endswith("/manifests/index") else None

    with running_registry(tmp_path / "registry") as place:
        with FaultyProxy(place, decide) as proxy, pytest.raises(AssertionError, match="403"):
            Runner(tmp_path / "dead", lock, registry=proxy.place).work(f"image:debian/amd64:{KERNEL}*")
        assert index(place, tmp_path) == []
        other = Runner(tmp_path / "other", lock, registry=place)
        published = other.doit("status", "--publish", "--json")
        assert published.returncode == 0, published.stderr
        assert [entry.kernel for entry in index(place, tmp_path)] == [KERNEL]
        assert json.loads(other.doit("matrix").stdout)["count"] == 1
