"""What a run takes of memory and disk does not grow with its pairs, nor memory with their layers.

The build step stands in for the compiler (bench/stand_in.py); layers are assembled, kept, pushed and dropped as real ones.
tests/e2e/test_footprint.py has the same through a real engine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench.footprint import Peak, Watched, pss, size_of
from pipeline.proof.boot import ROOM, at_once
from pipeline.registry.client import Registry
from tests import samples
from tests.registry_process import MISSING, installed, running_registry
from tests.small_project import SmallProject

MB = 1_000_000
PAIRS = 4


def run(place: Path, layer: int) -> tuple[Peak, int, int]:
    """``doit -n 4`` on two processors over four pairs, each with a layer of so many bytes: peak, disk after it, bytes pushed."""
    kernels = tuple(samples.kernel(f"6.1.0-{n}-cloud-amd64", f"6.1.{n}") for n in range(40, 40 + PAIRS))
    processors = ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))
    with running_registry(place / "registry") as registry:
        project = SmallProject(place / "project", samples.a_lock(kernels=kernels), registry=registry)
        environ = {**project.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock", "STAND_IN_BYTES": str(layer)}
        command = ["taskset", "-c", processors, sys.executable, "-m", "bench.stand_in", "-n", str(PAIRS)]
        process = subprocess.Popen(command, cwd=project.root, env=environ, stderr=subprocess.PIPE, text=True)
        with Watched(process.pid, project.root / "build", pause=0.05) as watched:
            _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        there = Registry(registry, environ={})
        return watched.peak, size_of(project.root / "build"), sum(layers(there).values())


def layers(registry: Registry) -> dict[str, int]:
    """The layers of all pairs, by digest, and their bytes."""
    manifests = [registry.manifest(tag) for tag in registry.tags() if tag.startswith("r-")]
    return {layer["digest"]: layer["size"] for found in manifests if found for layer in json.loads(found.data)["layers"]}


@pytest.mark.skipif(not installed(), reason=MISSING)
def test_four_pairs_at_once_take_the_same_memory_whatever_their_layers_have_and_leave_no_layer_behind(tmp_path: Path) -> None:
    small, _, _ = run(tmp_path / "small", 12 * MB)
    large, left, pushed = run(tmp_path / "large", 48 * MB)
    assert pushed > PAIRS * 48 * MB, "the layers are in the registry"
    assert large.memory < small.memory + 36 * MB, "where one layer were in memory as a whole, it would be that much more"
    assert large.disk > 48 * MB, "layers lie on disk until they are pushed"
    assert left < MB, "index, outcomes and logs"


def test_memory_of_children_and_files_without_a_name_are_seen(tmp_path: Path) -> None:
    hold = "import sys; held = bytearray(b'x' * 50_000_000); print('ready', flush=True); sys.stdin.read()"
    shell = f'{sys.executable} -c "{hold}"; true'
    with tempfile.TemporaryFile(dir=tmp_path) as unnamed:
        unnamed.write(b"y" * 5 * MB)
        unnamed.flush()
        process = subprocess.Popen(["sh", "-c", shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with process, Watched(process.pid, tmp_path, pause=0.01) as watched:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert pss(process.pid) < 10 * MB, "the shell itself is small"
            seen = watched.peak.samples
            while watched.peak.samples < seen + 3:
                pass
            process.communicate()
        assert watched.peak.memory > 50 * MB
        assert size_of(tmp_path) == 0
        assert size_of(tmp_path, [os.getpid()]) >= 5 * MB


def test_a_link_to_a_file_elsewhere_takes_no_room_and_two_names_below_count_once(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "build").mkdir()
    (tmp_path / "cache/input").write_bytes(b"x" * 8192)
    os.link(tmp_path / "cache/input", tmp_path / "build/input")
    assert size_of(tmp_path / "build") == 0
    (tmp_path / "build/own").write_bytes(b"x" * 8192)
    os.link(tmp_path / "build/own", tmp_path / "build/twin")
    assert size_of(tmp_path / "build") == 8192


@pytest.mark.parametrize(("processors", "room", "machines"), [(2, 8, 2), (64, 8, 8), (1, 100, 1), (8, 0, 1)])
def test_virtual_machines_are_as_many_as_processors_and_memory_have_room_for(processors: int, room: int, machines: int) -> None:
    assert at_once(processors, room * ROOM) == machines
