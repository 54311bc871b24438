"""The choice of drivers: newest of each supported branch, held, exact; and what a person is told."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.nvidia_policy import Drivers, Hold
from pipeline.upstream.nvidia import downloads, feeds
from pipeline.upstream.nvidia.selection import Known, Listed, Selection, of_data_centre, of_hints, of_redist, select

RECORDED = Path(__file__).parents[4] / "shared" / "upstream" / "nvidia"
recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded upstream metadata is not beside this checkout")
TODAY = datetime.date(2026, 11, 24)
ENDS: dict[str, datetime.date | bool] = {
    "580": datetime.date(2028, 8, 4),
    "595": False,
    "570": datetime.date(2026, 1, 31),
}


def listed(version: str, source: str = "data-centre", **more: Any) -> Listed:
    return msgspec.convert({"version": version, "source": source, "arches": ["amd64", "arm64"], **more}, Listed)


LTS = (
    listed("580.95.05", type="lts branch"),
    listed("580.178.04", type="lts branch"),
    listed("580.173.02", type="lts branch"),
)


def chosen(policy: dict[str, Any], *entries: Listed, ends: dict[str, datetime.date | bool] | None = None) -> Selection:
    known = Known(listed=entries, ends=ENDS if ends is None else ends)
    return select(msgspec.convert(policy, Drivers), known, TODAY)


def versions(selection: Selection) -> list[str]:
    return [driver.version for driver in selection.drivers]


def test_the_newest_of_each_supported_branch_is_taken() -> None:
    found = chosen({}, *LTS, listed("595.84", type="production branch"), listed("595.84.01", type="production branch"))
    assert versions(found) == ["580.178.04", "595.84.01"]
    assert found.reports == ()


def test_a_branch_that_has_ended_is_reported_and_not_taken() -> None:
    found = chosen({}, *LTS, listed("570.211.01"))
    assert versions(found) == ["580.178.04"]
    assert found.reports == ("support has ended, not taken: 570 (2026-01-31); a reason in 'reasons' takes one all the same",)


def test_a_branch_ends_on_its_day() -> None:
    entry = listed("570.211.01")
    assert versions(chosen({}, entry, ends={"570": TODAY})) == []
    assert versions(chosen({}, entry, ends={"570": TODAY + datetime.timedelta(days=1)})) == ["570.211.01"]


def test_an_ended_branch_that_is_named_with_a_reason_is_taken() -> None:
    policy = {"branches": ["570", "580"], "reasons": {"570": "Flatcar's default on arm64"}}
    found = chosen(policy, *LTS, listed("570.211.01"))
    assert [(driver.version, driver.reason) for driver in found.drivers] == [
        ("570.211.01", "Flatcar's default on arm64"),
        ("580.178.04", "newest of its branch"),
    ]


def test_an_ended_branch_that_is_named_without_a_reason_is_not() -> None:
    found = chosen({"branches": ["570", "580"]}, *LTS, listed("570.211.01"))
    assert versions(found) == ["580.178.04"]
    assert len(found.reports) == 1


def test_a_branch_without_a_known_end_is_reported_and_never_guessed() -> None:
    found = chosen({}, *LTS, listed("600.10.01"))
    assert versions(found) == ["580.178.04"]
    reason = "no source says when its support ends; give the day in 'ends', or a reason in 'reasons'"
    assert found.reports == (f"600: 600.10.01 is out and not taken: {reason}",)


def test_a_persons_day_goes_before_the_feeds() -> None:
    assert versions(chosen({"ends": {"570": "2027-01-01"}}, listed("570.211.01"))) == ["570.211.01"]


def test_a_new_feature_branch_is_reported_and_not_taken() -> None:
    found = chosen({}, *LTS, listed("610.57.04", type="new feature branch"), ends={**ENDS, "610": False})
    assert versions(found) == ["580.178.04"]
    assert found.reports == ("610: 610.57.04 is out and not taken: its type is 'new feature branch'",)


def test_a_branch_newer_than_the_named_ones_is_reported_and_an_older_one_is_not() -> None:
    found = chosen({"branches": ["580"]}, *LTS, listed("595.84"), listed("535.309.01"))
    assert versions(found) == ["580.178.04"]
    assert found.reports == ("595: 595.84 is out and not taken: newer than the policy",)


def test_a_held_branch_stays_and_the_newer_version_is_reported_with_the_reason() -> None:
    hold = {"580": {"version": "580.173.02", "reason": "newer ones hang on suspend"}}
    found = chosen({"hold": hold}, *LTS)
    assert versions(found) == ["580.173.02"]
    assert found.reports == ("580: 580.178.04 is out, held at 580.173.02: newer ones hang on suspend",)


def test_a_held_version_that_no_source_lists_is_kept_as_written_and_reported() -> None:
    found = chosen({"hold": {"535": {"version": "535.261.03", "reason": "the last with both kinds"}}})
    assert [(driver.version, driver.sources) for driver in found.drivers] == [("535.261.03", {})]
    assert found.reports == ("535: 535.261.03 is wished, and no source lists it",)


def test_an_exact_version_comes_beside_the_newest_of_its_branch() -> None:
    found = chosen({"exact": [{"version": "580.95.05", "reason": "a cluster pins it"}]}, *LTS)
    assert versions(found) == ["580.95.05", "580.178.04"]


def test_a_branch_in_the_policy_that_no_source_lists_is_reported() -> None:
    assert chosen({"branches": ["580", "999"]}, *LTS).reports == ("999: in the policy, and no source lists a driver of it",)


def test_sources_come_in_the_policys_order_and_architectures_as_each_has_them() -> None:
    entries = (listed("580.178.04", "debian", arches=["amd64"]), listed("580.178.04"), listed("580.178.04", "redist"))
    found = chosen({"sources": ["redist", "data-centre", "debian"]}, *entries)
    assert found.drivers[0].sources == {
        "amd64": ("redist", "data-centre", "debian"),
        "arm64": ("redist", "data-centre"),
    }


def test_an_architecture_that_no_source_has_is_reported() -> None:
    found = chosen({}, listed("580.178.04", arches=["amd64"]))
    assert list(found.drivers[0].sources) == ["amd64"]
    assert found.reports == ("580: no source has 580.178.04 for arm64",)


def test_kinds_of_a_branch_are_required() -> None:
    found = chosen({"kinds": {"580": ["proprietary", "open"]}}, *LTS, listed("595.84"))
    assert [driver.required for driver in found.drivers] == [("open", "proprietary"), ()]


def test_a_hint_is_reported_and_never_taken() -> None:
    found = chosen({}, *LTS, listed("580.200.01", "unofficial"), listed("304.137", "unofficial"))
    assert versions(found) == ["580.178.04"]
    assert found.reports == ("said to be out, and no source of drivers lists them: 580.200.01",)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"sources": ["unofficial"]}, "is a hint"),
        ({"hold": {"535": {"version": "580.95.05", "reason": "because so"}}}, "is not of it"),
        ({"hold": {"580": {"version": "580.9", "reason": "because so"}}}, "not an NVIDIA driver version"),
        ({"hold": {"580": {"version": "580.95.05"}}}, "reason"),
        ({"exact": [{"version": "580.95.05", "reason": "one of two"}] * 2}, "stands twice"),
        ({"branches": "newest"}, "branches"),
        ({"branch": ["580"]}, "branch"),
        ({"arches": []}, "arches"),
        ({"reasons": {"570": ""}}, "reasons"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(policy: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(policy, Drivers)


@recorded
def test_of_the_recorded_feeds_535_is_taken_by_name_alone() -> None:
    feed = feeds.parse_data_centre((RECORDED / "datacenter-releases/filtered_releases.json").read_bytes())
    hints = feeds.parse_unofficial((RECORDED / "versions/nvidia-versions.txt").read_bytes())
    fragment = (RECORDED / "redistrib/redistrib_12.9.1.nvidia_driver-fragment.json").read_bytes()
    redist = downloads.parse_redist(fragment, downloads.redist_manifest_url("12.9.1"))
    entries = (*of_data_centre(feed), *of_hints(hints), of_redist(redist))
    policy = {"branches": ["535"], "reasons": {"535": "hosts of 2023"}}
    found = chosen(policy, *entries, ends={})
    assert [(driver.version, driver.sources) for driver in found.drivers] == [
        ("535.161.08", {"amd64": ("data-centre",), "arm64": ("data-centre",)})
    ]
    assert found.reports == (
        "550: 550.54.15 is out and not taken: newer than the policy",
        "575: 575.57.08 is out and not taken: newer than the policy",
        "said to be out, and no source of drivers lists them: 580.159.04, 590.48.01, 595.71.05",
    )


VERSIONS = st.builds("{}.{:02}.{:02}".format, st.integers(515, 620), st.integers(10, 300), st.integers(0, 20))
ENTRIES = st.lists(st.builds(listed, VERSIONS, st.sampled_from(["data-centre", "debian", "unofficial"])), max_size=12)


@given(ENTRIES, st.dictionaries(st.integers(515, 620).map(str), st.booleans() | st.dates(), max_size=6))
def test_nothing_is_taken_that_no_source_lists_and_the_order_of_sources_means_nothing(
    entries: list[Listed], ends: dict[str, datetime.date | bool]
) -> None:
    found = select(Drivers(), Known(listed=tuple(entries), ends=ends), TODAY)
    assert set(versions(found)) <= {entry.version for entry in entries if entry.source != "unofficial"}
    assert found == select(Drivers(), Known(listed=tuple(reversed(entries)), ends=ends), TODAY)


def test_a_hold_written_in_python_is_checked_too() -> None:
    with pytest.raises(ValueError, match="not an NVIDIA driver version"):
        Hold(version="$(reboot)", reason="none at all")
