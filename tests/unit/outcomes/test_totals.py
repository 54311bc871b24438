"""The last line of a run, and the order in which a run comes to its pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.workspace import Workspace
from pipeline.config import distributions
from pipeline.config.records import Os, Pending
from pipeline.core.versions import numbers_of
from pipeline.outcomes import index as indexes
from pipeline.outcomes import totals
from pipeline.outcomes.totals import Told
from pipeline.plan.matrix import as_built
from tests import samples
from tests.documents import ROOT
from tests.registry_process import MISSING, installed, running_registry
from tests.small_project import SmallProject


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ([], "0 of 0 pairs built"),
        ([("debian", "built")], "1 of 1 pair built"),
        ([("debian", "built")] * 3, "3 of 3 pairs built"),
        (
            [("debian", "built")] * 3 + [("fedora-coreos", "pending")] * 3 + [("flatcar", "pending")] * 18,
            "3 of 24 pairs built; 21 pending: 18 Flatcar, 3 Fedora CoreOS: doit status",
        ),
        ([("debian", "failed"), ("debian", "built")], "1 of 2 pairs built; 1 failed: doit status"),
        ([("debian", "excluded")], "0 of 1 pair built; 1 excluded: doit status"),
        (
            [("debian", "pending"), ("host", "pending"), ("flatcar", "excluded"), ("flatcar", "failed")],
            "0 of 4 pairs built; 1 failed; 1 excluded; 2 pending: 1 Debian, 1 this machine's: doit status",
        ),
        (
            [("container-linux", "pending"), ("plum-os", "pending")],
            "0 of 2 pairs built; 2 pending: 1 Container Linux, 1 Plum Os: doit status",
        ),
    ],
)
def test_the_line_counts_every_pair_once_and_says_whose_are_pending(told: list[Told], line: str) -> None:
    assert totals.line(told) == line


def waiting(os: Os, kernel: str, *drivers: str) -> Pending:
    """A kernel that is known and not pinned."""
    return Pending(
        os=os, arch="amd64", kernel=kernel, drivers=drivers, releases=(samples.flatcar_release(),), reason="no key of its vendor"
    )


PENDING = (
    waiting("flatcar", "6.12.102-flatcar", "535.309.01", "580.178.04"),
    waiting("flatcar", "6.6.150-flatcar", "535.309.01"),
    waiting("fedora-coreos", ""),
)


def test_what_is_not_pinned_is_counted_as_the_index_counts_it() -> None:
    assert totals.unpinned(PENDING) == [(e.os, e.outcome) for known in PENDING for e in indexes.pending(known)]


def test_every_family_has_a_name_that_people_use() -> None:
    titles = {os: distributions.title(os) for os in (*distributions.NO_FEED, *distributions.names())}
    assert titles["fedora-coreos"] == "Fedora CoreOS"
    assert titles["flatcar"] == "Flatcar"
    assert len(set(titles.values())) == len(titles)


def project_of(tmp_path: Path, registry: str, *, kernels: int, pending: tuple[Pending, ...] = PENDING) -> SmallProject:
    """Pairs that a rule leaves out, so that a run needs no engine, and kernels that wait."""
    found = tuple(samples.kernel(f"6.1.0-{n}-cloud-amd64", f"6.1.{n}") for n in range(40, 40 + kernels))
    wishes = "[[exclude]]\ndriver = '535'\nreason = 'not wanted here'\n"
    return SmallProject(tmp_path / "project", samples.a_lock(kernels=found, pending=pending), wishes, registry=registry)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    if not installed():
        pytest.skip(MISSING)
    with running_registry(tmp_path / "registry") as address:
        yield address


def last(project: SmallProject, *words: str) -> str:
    """The last line of a run, without its seconds."""
    done = project.doit(*words, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()[-1].partition("] ")[2]


def test_a_run_over_everything_counts_what_waits_and_one_over_a_selection_its_own(tmp_path: Path, registry: str) -> None:
    project = project_of(tmp_path, registry, kernels=2)
    everything = "0 of 6 pairs built; 2 excluded; 4 pending: 3 Flatcar, 1 Fedora CoreOS: doit status"
    assert last(project) == everything
    assert last(project) == everything, "and so does a run that finds nothing to do"
    assert last(project, "image") == everything
    assert last(project, "image:*6.1.0-40*") == "0 of 1 pair built; 1 excluded: doit status"
    events = project.doit("--json", DOCKER_HOST="unix:///nowhere/docker.sock").stdout.splitlines()
    assert json.loads(events[-1])["totals"] == {"excluded": 2}, "totals are those of the pairs that a run can work on"
    told = json.loads(project.doit("status", "--json").stdout)["pairs"]
    assert len(told) == 6, "status, which the line names, has as many"


def test_a_lock_that_pins_nothing_yet_is_not_passed_over_in_silence(tmp_path: Path, registry: str) -> None:
    assert (
        last(project_of(tmp_path, registry, kernels=0))
        == "0 of 4 pairs built; 4 pending: 3 Flatcar, 1 Fedora CoreOS: doit status"
    )
    nothing = project_of(tmp_path / "other", registry, kernels=0, pending=()).doit()
    assert (nothing.returncode, nothing.stderr) == (0, "")


def test_the_committed_lock_has_few_pairs_for_debian_and_a_first_run_begins_with_what_is_soonest_done() -> None:
    space = Workspace(ROOT, {})
    ours = [pair for pair in space.plan.pairs if pair.kernel.os == "debian"]
    assert 1 < len(ours) <= 3
    assert not [pair for pair in ours if pair.exclusion]
    assert [len(pair.kinds) for pair in ours].count(2) == 1, "one with both kinds"
    first = as_built(ours)[0]
    assert len(first.kinds) == 1
    assert first.kernel.version == max((pair.kernel.version for pair in ours), key=numbers_of)


def test_a_run_comes_to_newer_kernels_first_then_to_fewer_kinds_then_to_newer_drivers() -> None:
    drivers = (
        samples.driver("535.261.03"),
        samples.driver("535.309.01", open=()),
        samples.driver("470.256.02", open=()),
    )
    versions = tuple(driver.version for driver in drivers)
    kernels = (
        samples.kernel("6.1.0-9-amd64", "6.1.9", drivers=versions),
        samples.kernel("6.1.0-47-amd64", "6.1.170", drivers=versions),
        samples.kernel("6.1.0-47-cloud-amd64", "6.1.170", drivers=versions),
    )
    plan = samples.plan(samples.a_lock(drivers=drivers, kernels=kernels))
    made = [pair.id.removeprefix("debian/amd64:6.1.0-") for pair in as_built(plan.pairs)]
    each = ("535.309.01", "470.256.02", "535.261.03")
    assert made == [f"{kernel}-{driver}" for kernel in ("47-amd64", "47-cloud-amd64", "9-amd64") for driver in each]
