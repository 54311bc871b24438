"""When a run begins no further pair."""

from __future__ import annotations

import threading

import pytest

from pipeline.cli.circuit_breaker import Brake
from pipeline.core.errors import (
    DiskError,
    EngineError,
    IntegrityError,
    LoginError,
    NetworkError,
    PipelineError,
    RegistryError,
    RegistryFullError,
)


@pytest.mark.parametrize("kind", [DiskError, RegistryFullError, LoginError])
def test_what_holds_for_every_pair_ends_the_run_at_once(kind: type[PipelineError]) -> None:
    brake, error = Brake(), kind("no")
    assert brake.begins()
    assert brake.met(error) == "cause"
    assert not brake.begins()
    assert (brake.begun, brake.cause) == (1, error)
    assert brake.met(kind("no again")) == "more", "it is the cause once"


def test_pairs_that_meet_the_same_at_one_moment_have_one_cause_between_them() -> None:
    """With two pairs at work both were said, where the second asked for the cause before the first had named it."""
    for _ in range(50):
        brake, gate = Brake(8), threading.Barrier(8)
        found: list[str] = []

        def pair(brake: Brake = brake, gate: threading.Barrier = gate, found: list[str] = found) -> None:
            gate.wait()
            found.append(brake.met(LoginError("no")))

        pairs = [threading.Thread(target=pair) for _ in range(8)]
        for thread in pairs:
            thread.start()
        for thread in pairs:
            thread.join()
        assert sorted(found) == ["cause", *["more"] * 7]


@pytest.mark.parametrize(("at_once", "times"), [(1, 3), (2, 3), (8, 9)])
@pytest.mark.parametrize("kind", [RegistryError, EngineError])
def test_what_may_pass_ends_it_when_more_pairs_than_are_at_work_met_it_in_a_row(
    kind: type[PipelineError], at_once: int, times: int
) -> None:
    brake = Brake(at_once)
    for _ in range(times - 1):
        assert brake.met(kind("away")) == "its own"
    brake.went_well()
    for _ in range(times - 1):
        assert brake.met(kind("away")) == "its own"
    assert brake.begins()
    assert brake.met(kind("away")) == "cause"


@pytest.mark.parametrize("kind", [NetworkError, IntegrityError, PipelineError])
def test_what_is_about_one_pairs_inputs_ends_nothing(kind: type[PipelineError]) -> None:
    brake = Brake()
    assert {brake.met(kind("gone")) for _ in range(20)} == {"its own"}
    assert brake.begins()


def test_more_of_the_same_is_explained_and_what_is_new_is_not() -> None:
    brake = Brake()
    assert not brake.explains(RegistryError("away"))
    brake.met(RegistryFullError("full"))
    assert brake.explains(RegistryFullError("full"))
    assert brake.explains(RegistryError("reads back as None"))
    assert not brake.explains(DiskError("full"))
    assert not brake.explains(IntegrityError("no"))
