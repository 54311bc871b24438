"""The power goes: run, engine and containerd end at once, and files that were not yet on the disk are empty afterwards."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.registry.client import Registry
from tests import registry_process
from tests.registry_process import running_registry
from tests.small_project import ROOT
from tests.tiny_project import TinyProject, digests, served_packages, walk

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.full,
    pytest.mark.area("scale"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a container engine"),
    pytest.mark.skipif(not registry_process.installed(), reason=registry_process.MISSING),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="docker.io is not installed (./doit.sh installs it)"),
    pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox-static is not installed (./doit.sh test installs it)"),
]
FUNCTIONS = """
set -euo pipefail
ROOT={root} PYTHON={python}
say() {{ printf '%s\\n' "$*" >&2; }}
die() {{ say "$@"; exit 2; }}
as_root() {{ "$@"; }}
need_root() {{ :; }}
. "$ROOT/bootstrap/processes.sh"
. "$ROOT/bootstrap/engine.sh"
"""
CUT = """
for pid in "$(engine_pid)" "$(containerd_pid)" $(processes_with containerd-shim "$ENGINE_RUN/containerd.sock"); do
    kill -KILL "$pid"
done
"""


class PrivateEngine:
    """The engine that ``doit.sh`` would start for a checkout at ``root``, by the same functions."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(ROOT / "bootstrap", root / "bootstrap")
        (root / "build").mkdir()

    def call(self, script: str) -> None:
        """Run ``script`` with bootstrap/engine.sh's functions."""
        words = {"root": shlex.quote(str(self.root)), "python": shlex.quote(sys.executable)}
        subprocess.run(
            ["bash", "-c", FUNCTIONS.format(**words) + script],
            check=True,
            timeout=200,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
        )

    def start(self) -> str:
        """Its address, once it answers."""
        self.call("start_engine")
        return (self.root / "build" / "engine.env").read_text().strip().removeprefix("DOCKER_HOST=")


@pytest.fixture
def engine() -> Iterator[PrivateEngine]:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # tmpfs may not carry an engine's layers
        made = PrivateEngine(Path(folder))
        try:
            yield made
        finally:
            made.call("stop_engine")


def lose(folder: Path, rng: random.Random) -> int:
    """Empty some of the files below ``folder``, as a file system may that had not written them yet; how many."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1]
    lost = [path for path in files if rng.random() < 0.5]
    for path in lost:
        path.write_bytes(b"")
    return len(lost)


def test_after_a_power_cut_the_next_run_goes_on_and_gives_the_same_digests(tmp_path: Path, engine: PrivateEngine) -> None:
    kernels, salt, rng = ("6.1.40", "6.1.41", "6.1.42"), uuid.uuid4().hex, random.Random(20261124)
    with served_packages(tmp_path / "archive") as (archive, packages), running_registry(tmp_path / "registry") as place:
        host = engine.start()
        project = TinyProject(
            tmp_path / "project", archive, packages, registry=place, salt=salt, kernels=kernels, DOCKER_HOST=host
        )
        with project.start("--json") as run:
            assert run.stdout is not None
            while '"outcome": "built"' not in run.stdout.readline():
                assert run.poll() is None
            engine.call(f"kill -KILL -- -{run.pid}; {CUT}")
            run.communicate()
        assert run.returncode == -signal.SIGKILL
        assert lose(project.root / "build", rng) > 5
        walk(Registry(place, environ={}))

        dead = project.doit()
        assert dead.returncode == 2
        assert "no container engine answers" in dead.stderr
        assert "Traceback" not in dead.stderr

        engine.start()
        after = project.doit()
        assert after.returncode == 0, after.stderr
        assert "3 of 3 pairs built" in after.stderr
        there = digests(Registry(place, environ={}))
        walk(Registry(place, environ={}))
        with running_registry(tmp_path / "calm") as other:
            calm = TinyProject(
                tmp_path / "other", archive, packages, registry=other, salt=salt, kernels=kernels, DOCKER_HOST=host
            )
            assert calm.doit().returncode == 0
            assert digests(Registry(other, environ={})) == there
