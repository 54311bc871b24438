"""When a run begins no further pair."""

from __future__ import annotations

import pytest

from pipeline.brake import Brake
from pipeline.errors import (
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
    assert brake.met(error)
    assert not brake.begins()
    assert (brake.begun, brake.cause) == (1, error)
    assert not brake.met(kind("no again")), "it is the cause once"


@pytest.mark.parametrize(("at_once", "times"), [(1, 3), (2, 3), (8, 9)])
@pytest.mark.parametrize("kind", [RegistryError, EngineError])
def test_what_may_pass_ends_it_when_more_pairs_than_are_at_work_met_it_in_a_row(
    kind: type[PipelineError], at_once: int, times: int
) -> None:
    brake = Brake(at_once)
    for _ in range(times - 1):
        assert not brake.met(kind("away"))
    brake.went_well()
    for _ in range(times - 1):
        assert not brake.met(kind("away"))
    assert brake.begins()
    assert brake.met(kind("away"))


@pytest.mark.parametrize("kind", [NetworkError, IntegrityError, PipelineError])
def test_what_is_about_one_pairs_inputs_ends_nothing(kind: type[PipelineError]) -> None:
    brake = Brake()
    assert not any(brake.met(kind("gone")) for _ in range(20))
    assert brake.begins()


def test_more_of_the_same_is_explained_and_what_is_new_is_not() -> None:
    brake = Brake()
    assert not brake.explains(RegistryError("away"))
    brake.met(RegistryFullError("full"))
    assert brake.explains(RegistryFullError("full"))
    assert brake.explains(RegistryError("reads back as None"))
    assert not brake.explains(DiskError("full"))
    assert not brake.explains(IntegrityError("no"))
