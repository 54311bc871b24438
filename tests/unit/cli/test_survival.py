"""What a run has done survives its death, and pairs can be built several at once.

The pipeline is real (command, tasks, locks, registry, index); the build step stands in for the compiler (bench/stand_in.py).
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.text import counted
from tests import forked, samples
from tests.faults import Asked, Fault, FaultyProxy, small_disk
from tests.registry_process import MISSING, installed, running_registry
from tests.small_project import SmallProject

pytestmark = pytest.mark.skipif(not installed(), reason=MISSING)
COUNT = 6


@pytest.fixture
def project(tmp_path: Path) -> Iterator[SmallProject]:
    kernels = tuple(samples.kernel(f"6.1.0-{n}-cloud-amd64", f"6.1.{n}") for n in range(40, 40 + COUNT))
    with running_registry(tmp_path / "registry") as registry:
        yield SmallProject(
            tmp_path / "project",
            samples.a_lock(kernels=kernels),
            registry=registry,
            STAND_IN_LOG=str(tmp_path / "builds"),
            DOCKER_HOST="unix:///nowhere/docker.sock",
        )


def start(project: SmallProject, *words: str, seconds: float = 0.0) -> subprocess.Popen[str]:
    """The stand-in's doit, its stderr on a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench.stand_in", *words],
        cwd=project.root,
        env={**project.environ, "STAND_IN_SECONDS": str(seconds)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(project: SmallProject, *words: str, seconds: float = 0.0) -> tuple[int, str, str]:
    """The stand-in's doit to its end: exit status, stdout and stderr."""
    environ = {**project.environ, "STAND_IN_SECONDS": str(seconds)}
    done = forked.doit(words, project.root, environ, 120, "bench.stand_in")
    return done.returncode, done.stdout, done.stderr


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def builds(project: SmallProject) -> list[str]:
    """The pairs whose build was started, in order, with repetitions."""
    return [name for word, name in log_of(project) if word == "begin"]


def log_of(project: SmallProject) -> list[list[str]]:
    """What the builds noted: ``begin`` or ``end``, and the pair."""
    return [line.split() for line in Path(project.environ["STAND_IN_LOG"]).read_text().splitlines()]


def outcomes(project: SmallProject) -> dict[str, Any]:
    """The index on disk: entries by kernel."""
    return {entry["kernel"]: entry for entry in json.loads((project.root / "build/index.json").read_bytes())["pairs"]}


@pytest.mark.parametrize("deadly", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_run_that_is_killed_keeps_every_pair_it_had_finished(project: SmallProject, deadly: signal.Signals) -> None:
    process = start(project, seconds=0.5)
    assert process.stderr is not None
    finished = 0
    for line in process.stderr:
        finished += ": built sha256:" in line
        if finished == 2:
            break
    time.sleep(0.2)  # into the third
    process.send_signal(deadly)
    finish(process)
    assert process.returncode == -deadly
    before = builds(project)
    assert len(before) == 3
    status, _, err = run(project)
    assert status == 0, err
    assert builds(project)[3:] == [before[2], *builds(project)[4:]], "the pair it died in is the first to be built"
    assert len(builds(project)) == COUNT + 1, "and no finished one is built again"
    found = outcomes(project)
    assert [entry["outcome"] for entry in found.values()] == ["built"] * COUNT
    assert [found[f"6.1.0-{n}-cloud-amd64"]["seconds"]["proof"] for n in (40, 41)] == [1.5, 1.5], "details too are kept"


def test_without_doits_database_and_without_any_local_state_nothing_is_built_again(project: SmallProject) -> None:
    assert run(project)[0] == 0
    for place in (project.root / "build").rglob("*"):
        if place.is_file():
            place.unlink()
    status, _, err = run(project)
    assert status == 0
    assert len(builds(project)) == COUNT
    assert f"{COUNT} of {COUNT} pairs built" in err


def test_status_after_a_run_is_the_index_that_the_run_published(project: SmallProject) -> None:
    assert run(project)[0] == 0
    document = (project.root / "build/index.json").read_bytes()
    assert json.loads(project.doit("status", "--json").stdout) == json.loads(document)
    (project.root / "build/index.json").write_bytes(document.replace(b'"built"', b'"failed"'))
    told = json.loads(project.doit("status", "--json").stdout)
    assert [entry["outcome"] for entry in told["pairs"]] == ["built"] * COUNT, (
        "a file that is not what was published is not believed"
    )


def test_pairs_are_built_several_at_once_each_once_with_a_log_each_and_lines_that_stay_whole(project: SmallProject) -> None:
    status, out, err = run(project, "-n", "3", seconds=1.0)
    assert (status, out) == (0, "")
    assert sorted(builds(project)) == sorted(set(builds(project)))
    steps = [1 if word == "begin" else -1 for word, _ in log_of(project)]
    assert max(itertools.accumulate(steps)) == 3
    lines = err.splitlines()
    assert all(line.startswith("[") and " s] " in line for line in lines), err
    assert sum(": built sha256:" in line for line in lines) == COUNT
    logs = list((project.root / "build/log").glob("*.log"))
    assert len(logs) == COUNT
    assert all("stands in" in log.read_text() for log in logs)


def test_events_of_pairs_built_at_once_are_whole_json_lines(project: SmallProject) -> None:
    status, out, _ = run(project, "--json", "-n", "3", seconds=0.1)
    assert status == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert {event["pair"] for event in events if event["event"] == "outcome"} == {
        f"debian/amd64:{kernel}-535.261.03" for kernel in outcomes(project)
    }
    assert events[-1]["event"] == "end"
    assert events[-1]["totals"] == {"built": COUNT}


def test_a_second_run_in_one_checkout_is_refused_with_the_first_ones_number(project: SmallProject) -> None:
    first = start(project, seconds=1.0)
    assert first.stderr is not None
    while not (project.root / "build/run.lock").exists() or not Path(project.environ["STAND_IN_LOG"]).exists():
        time.sleep(0.02)
    status, _, err = run(project)
    first.send_signal(signal.SIGTERM)
    finish(first)
    assert status == 2
    assert err.count("\n") == 1
    assert f"process {first.pid}" in err
    assert run(project)[0] == 0, "the lock of a dead run blocks nobody"


def refuse_pushes(fault: Fault) -> Callable[[Asked], Fault | None]:
    """The registry lists what it has, and takes nothing."""
    return lambda asked: fault if asked.method in ("POST", "PUT") else None


def said(err: str) -> list[str]:
    """The problems that a run said."""
    return [line for line in err.splitlines() if line.startswith("doit: ")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_registry_is_said_once_and_no_further_pair_is_begun(project: SmallProject, tmp_path: Path) -> None:
    project.environ["STAND_IN_BYTES"] = "600000"
    with small_disk(tmp_path / "disk", 2) as grow, running_registry(tmp_path / "disk" / "registry") as place:
        project.environ["DRIVER_REGISTRY"] = place
        status, _, err = run(project)
        assert status == 2
        assert len(said(err)) == 1, err
        assert said(err)[0].endswith("free space where the registry keeps its data, then run it again")
        begun = len(builds(project))
        assert 1 < begun < COUNT
        left = counted(COUNT - begun, "pair")
        assert err.count(f"nothing more is begun, since it would end alike; {left} for the next run\n") == 1
        grow(100)
        status, _, err = run(project)
        assert status == 0, err
        assert len(builds(project)) == COUNT + 1, "only the pair that had no room is built again"


def test_a_login_that_is_refused_ends_the_run_with_the_pairs_at_work(project: SmallProject) -> None:
    with FaultyProxy(project.environ["DRIVER_REGISTRY"], refuse_pushes(Fault("status", status=403))) as proxy:
        project.environ["DRIVER_REGISTRY"] = proxy.place
        status, _, err = run(project, "-n", "2", seconds=0.3)
        assert status == 2
        assert len(said(err)) == 1, err
        assert "403" in said(err)[0]
        assert "log in with" in said(err)[0]
        assert len(builds(project)) <= 3
        proxy.decide = lambda asked: None
        assert run(project)[0] == 0


def test_a_registry_that_takes_nothing_is_tried_with_three_pairs_and_not_with_every_one(project: SmallProject) -> None:
    fault = Fault("status", status=501)  # final: no pauses, after which the same would be said
    with FaultyProxy(project.environ["DRIVER_REGISTRY"], refuse_pushes(fault)) as proxy:
        project.environ["DRIVER_REGISTRY"] = proxy.place
        status, out, _ = run(project, "--json")
        assert status == 2
        assert len(builds(project)) == 3
        notes = [event["text"] for event in map(json.loads, out.splitlines()) if event["event"] == "note"]
        assert notes == [f"nothing more is begun, since it would end alike; {counted(COUNT - 3, 'pair')} for the next run"]


def test_a_run_that_cannot_publish_its_index_still_ends_with_its_totals_and_the_next_one_publishes(project: SmallProject) -> None:
    def decide(asked: Asked) -> Fault | None:
        return Fault("status", status=501) if asked.method == "PUT" and asked.path.endswith("/manifests/index") else None

    with FaultyProxy(project.environ["DRIVER_REGISTRY"], decide) as proxy:
        project.environ["DRIVER_REGISTRY"] = proxy.place
        status, out, err = run(project, "--json")
        events = [json.loads(line) for line in out.splitlines()]
        assert (status, len(said(err))) == (2, 1), err
        assert [event["text"] for event in events if event["event"] == "problem"] == [said(err)[0].removeprefix("doit: ")]
        assert (events[-1]["event"], events[-1]["totals"], "serial" in events[-1]) == ("end", {"built": COUNT}, False)
        assert "the index could not be published" in events[-1]["text"]
        proxy.decide = lambda asked: None
        status, out, _ = run(project, "--json")
        assert (status, json.loads(out.splitlines()[-1])["serial"], len(builds(project))) == (0, 1, COUNT)


def test_pairs_at_once_in_processes_are_refused_since_their_problems_would_stay_there(project: SmallProject) -> None:
    project.environ["STAND_IN_LOG"] = "/dev/full"
    status, out, err = run(project, "-n", "2", "-P", "process")
    assert (status, out) == (3, "")
    assert err == "doit: --parallel-type process would lose what pairs meet: leave it out, pairs at once are threads\n"


def test_any_file_that_has_no_room_is_the_disks_fault_and_no_internal_error(project: SmallProject) -> None:
    project.environ["STAND_IN_LOG"] = "/dev/full"
    status, _, err = run(project)
    assert (status, said(err)) == (
        2,
        ["doit: a file below build/: No space left on device: free some disk space, or mend its rights"],
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_an_own_disk_that_is_full_is_said_once_too(project: SmallProject, tmp_path: Path) -> None:
    project.environ["STAND_IN_BYTES"] = "3000000"
    kernels = tuple(samples.kernel(f"6.1.0-{n}-cloud-amd64", f"6.1.{n}") for n in range(40, 40 + COUNT))
    with small_disk(tmp_path / "disk", 2) as grow:
        cramped = SmallProject(tmp_path / "disk" / "project", samples.a_lock(kernels=kernels))
        cramped.environ = project.environ
        status, _, err = run(cramped)
        assert (status, len(builds(cramped)), len(said(err))) == (2, 1, 1), err
        assert "No space left on device" in said(err)[0]
        grow(100)
        assert run(cramped)[0] == 0
