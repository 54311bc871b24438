"""Many pairs at once through a real engine: memory and disk stay bounded, and afterwards nothing is left but what is of use.

Builds are tiny (tests/tiny_project.py), their modules are not: 20 MB a pair that nothing compresses.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from bench.footprint import Watched, size_of
from tests import registry_process, tiny_project
from tests.registry_process import running_registry
from tests.tiny_project import TinyProject, served_packages

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.full,
    pytest.mark.area("scale"),
    pytest.mark.skipif(not registry_process.installed(), reason=registry_process.MISSING),
]
MB = 1_000_000
KERNELS = tuple(f"6.1.{number}" for number in range(30, 36))
LARGE = 20 * MB
"""Modules of one pair: two kinds, five each."""
AT_ONCE = 3


def test_six_pairs_three_at_once_take_the_room_of_three_and_give_it_back(tmp_path: Path) -> None:
    if reason := tiny_project.missing():
        pytest.skip(reason)
    with served_packages(tmp_path / "archive") as (archive, packages), running_registry(tmp_path / "registry") as registry:
        project = TinyProject(
            tmp_path / "project", archive, packages, registry=registry, salt=uuid.uuid4().hex, kernels=KERNELS,
            DRIVER_CACHE=str(tmp_path / "cache"),
        )  # fmt: skip
        build = project.root / "build"
        half_made = [
            build / "layers/passing/of-a-killed-run",
            build / "layers/sha256/.layer.of-a-killed-run",
            build / "trees/.x.tar.y/part",
        ]
        for place in half_made:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"x" * LARGE)
        try:
            with project.start("-n", str(AT_ONCE)) as run, Watched(run.pid, build) as watched:
                _, said = run.communicate(timeout=600)
            assert run.returncode == 0, said
            assert watched.peak.memory < 300 * MB, watched.peak
            # A pair at work has its modules as the engine gave them, and packed. All six would have 240 MB.
            assert LARGE < watched.peak.disk < AT_ONCE * 2.2 * LARGE, watched.peak
            assert size_of(build) < 5 * MB, "base, userspace, logs and index; not one pair's modules"
            assert [place for place in build.rglob(".*") if place.name != ".rendered"] == []
            assert {path.name for path in (build / "docker").rglob("*") if path.is_file()} == {"Dockerfile", ".rendered"}
        finally:
            project.forget()
