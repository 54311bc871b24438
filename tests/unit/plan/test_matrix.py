"""Missing pairs as jobs of a CI matrix."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Sequence
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.records import Kernel, OsRelease
from pipeline.plan.matrix import MAX_JOBS, Job, Matrix, matrix
from pipeline.plan.pairs import Pair, Plan
from tests import samples

DRIVERS = ("535.261.03", "550.163.01", "470.256.02")


def flatcar(kernel: str, *releases: tuple[str, str], drivers: tuple[str, ...] = DRIVERS[:1]) -> Kernel:
    places = tuple(OsRelease(channel=c, version=v, id="flatcar", version_id=v) for c, v in releases)
    return samples.kernel(kernel, "6.12.1", os="flatcar", releases=places, drivers=drivers)


def coreos(kernel: str, release: OsRelease) -> Kernel:
    return samples.kernel(kernel, "6.19.5", os="fedora-coreos", releases=(release,), drivers=DRIVERS[:1])


def plan_of(*kernels: Kernel) -> Plan:
    return samples.plan(samples.a_lock(kernels=kernels, drivers=tuple(samples.driver(d) for d in DRIVERS)))


def all_of(plan: Plan, **limits: int) -> Matrix:
    return matrix(plan.pairs, plan.pairs, **limits)


def chosen(job: Job, plan: Plan) -> list[str]:
    """What ``doit $select`` would take."""
    return [p.id for p in plan.pairs if any(fnmatchcase(f"image:{p.id}", word) for word in job.select.split())]


def test_a_job_is_one_kernel_with_all_its_drivers() -> None:
    plan = plan_of(samples.kernel(drivers=DRIVERS), samples.kernel("6.1.0-50-cloud-amd64", "6.1.176", drivers=DRIVERS[:2]))
    made = all_of(plan)
    assert made.count == 2
    assert made.waiting == 0
    first, second = made.include
    assert first == Job("debian-amd64-6.1.0-50-cloud-amd64", "image:debian/amd64:6.1.0-50-cloud-amd64-*", 2, "debian", "amd64")
    assert second.pairs == 3


def test_nothing_missing_is_an_empty_matrix() -> None:
    assert matrix(samples.plan().pairs, ()) == Matrix((), 0, 0)


def test_newest_stable_comes_first_then_other_channels_then_what_is_still_run_then_the_rest() -> None:
    plan = plan_of(
        flatcar("6.6.1-flatcar", ("stable", "4000.2.9")),
        flatcar("6.6.2-flatcar", ("stable", "4000.2.10")),
        flatcar("6.12.1-flatcar", ("stable", "4230.2.1")),
        flatcar("6.12.9-flatcar", ("alpha", "4500.0.0")),
        flatcar("6.12.8-flatcar", ("alpha", "4400.0.0")),
    )
    order = [job.id.removeprefix("flatcar-amd64-") for job in all_of(plan).include]
    assert order == ["6.12.1-flatcar", "6.12.9-flatcar", "6.6.2-flatcar", "6.12.8-flatcar", "6.6.1-flatcar"]


def test_what_a_feed_says_is_rolled_out_comes_before_the_newest_stable() -> None:
    older, newest = ("stable", "44.20260621.3.1"), ("stable", "44.20260707.3.1")
    plan = plan_of(
        flatcar("6.12.102-flatcar", ("stable", "4593.2.5")),
        coreos("6.18.1-300.fc44.x86_64", OsRelease(channel=older[0], version=older[1], id="fedora", version_id="44")),
        coreos("6.19.5-300.fc44.x86_64", OsRelease(channel=newest[0], version=newest[1], id="fedora", version_id="44")),
    )
    before = [job.id for job in all_of(plan).include]
    assert before == [
        "fedora-coreos-amd64-6.19.5-300.fc44.x86_64",
        "flatcar-amd64-6.12.102-flatcar",
        "fedora-coreos-amd64-6.18.1-300.fc44.x86_64",
    ]
    rolled = OsRelease(channel="testing", version="44.20260720.2.1", id="fedora", version_id="44", rollout=True)
    plan = plan_of(*plan.lock.kernels, coreos("6.20.1-300.fc44.x86_64", rolled))
    assert [job.id for job in all_of(plan).include] == ["fedora-coreos-amd64-6.20.1-300.fc44.x86_64", *before]


def test_a_kernel_that_serves_an_urgent_release_is_urgent_whatever_else_it_serves() -> None:
    plan = plan_of(
        flatcar("6.6.1-flatcar", ("stable", "1.0.0"), ("beta", "9.0.0")),
        flatcar("6.6.2-flatcar", ("stable", "2.0.0")),
        flatcar("6.6.3-flatcar", ("stable", "3.0.0")),
    )
    assert [job.id.rpartition("amd64-")[2] for job in all_of(plan).include] == ["6.6.3-flatcar", "6.6.1-flatcar", "6.6.2-flatcar"]


def test_what_does_not_fit_waits_and_is_counted() -> None:
    kernels = [samples.kernel(f"6.1.0-{n}-cloud-amd64", f"6.1.{n}") for n in range(300)]
    made = all_of(plan_of(*kernels), per_job=1)
    assert made.count == len(made.include) == MAX_JOBS
    assert made.waiting == 300 - MAX_JOBS
    assert "6.1.0-299-cloud" in made.include[0].id
    assert not any("6.1.0-0-cloud" in job.select for job in made.include)


def test_more_kernels_than_jobs_share_jobs_by_toolchain() -> None:
    kernels = [samples.kernel(f"6.1.0-{n}-cloud-amd64", f"6.1.{n}") for n in range(300)]
    plan = plan_of(*kernels)
    made = all_of(plan)
    assert made.waiting == 0
    assert made.count <= MAX_JOBS
    assert sum(job.pairs for job in made.include) == 300
    assert sorted(name for job in made.include for name in chosen(job, plan)) == sorted(pair.id for pair in plan.pairs)


def test_a_kernel_with_more_pairs_than_a_job_takes_is_split_by_name() -> None:
    plan = plan_of(samples.kernel(drivers=DRIVERS))
    made = all_of(plan, per_job=2)
    assert [job.pairs for job in made.include] == [2, 1]
    assert len({job.id for job in made.include}) == 2
    assert [name for job in made.include for name in chosen(job, plan)] == [pair.id for pair in plan.pairs]


def test_a_pattern_never_takes_another_kernels_pairs() -> None:
    plan = plan_of(flatcar("6.6.1", ("stable", "1.0")), flatcar("6.6.1-rt", ("stable", "2.0")))
    taken = {job.id: chosen(job, plan) for job in all_of(plan).include}
    assert taken == {
        "flatcar-amd64-6.6.1": ["flatcar/amd64:6.6.1-535.261.03"],
        "flatcar-amd64-6.6.1-rt": ["flatcar/amd64:6.6.1-rt-535.261.03"],
    }


def test_two_builds_of_one_kernel_string_are_jobs_of_their_own() -> None:
    other = flatcar("6.6.1-flatcar", ("stable", "2.0"))
    other = samples.changed(other, headers=(samples.package("linux-headers-other"),))
    plan = plan_of(flatcar("6.6.1-flatcar", ("stable", "1.0")), other)
    made = all_of(plan)
    assert len({job.id for job in made.include}) == 2
    assert sorted(name for job in made.include for name in chosen(job, plan)) == sorted(pair.id for pair in plan.pairs)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_missing_the_jobs_take_it_and_each_pair_once(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from([f"6.{a}.{b}{c}" for a in (1, 2) for b in (1, 11) for c in ("", "-x", "-x-y")]),
                               unique=True, min_size=1))  # fmt: skip
    plan = plan_of(*(flatcar(name, ("stable", f"{n}.0"), drivers=DRIVERS) for n, name in enumerate(names)))
    missing = [pair for pair in plan.pairs if data.draw(st.booleans())]
    made = matrix(plan.pairs, missing, jobs=data.draw(st.integers(1, 5)), per_job=data.draw(st.integers(1, 4)))
    assert made.count == len(made.include)
    assert made.waiting + sum(job.pairs for job in made.include) == len(missing)
    taken = [name for job in made.include for name in chosen(job, plan)]
    assert len(taken) == len(set(taken))
    if not made.waiting:
        assert {pair.id for pair in missing} <= set(taken)
    kernels = {pair.id: pair.kernel.key for pair in plan.pairs}
    assert {kernels[name] for name in taken} <= {pair.kernel.key for pair in missing}


@pytest.fixture(scope="module")
def many() -> tuple[Pair, ...]:
    kernels = [samples.kernel(f"6.1.0-{n}-cloud-amd64", f"6.1.{n}", drivers=DRIVERS[:2]) for n in range(5000)]
    return plan_of(*kernels).pairs


def calls(pairs: Sequence[Pair]) -> int:
    """Of functions, which is what no machine's load changes; the seconds are bench.noop's."""
    profile = cProfile.Profile()
    profile.runcall(matrix, pairs, pairs)
    found: int = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]
    return found


def test_ten_thousand_missing_pairs_fit_and_a_further_one_costs_no_more_among_many_than_among_few(many: tuple[Pair, ...]) -> None:
    made = matrix(many, many)
    assert made.count <= MAX_JOBS
    assert made.waiting == 0
    assert sum(len(job.select) for job in made.include) < 500_000
    few, some, all_of_them = (calls(many[:count]) for count in (2000, 6000, 10000))
    assert all_of_them - some <= 1.05 * (some - few)
