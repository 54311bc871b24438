"""The table of outcomes: readable in 80 columns, with the reason below each pair, and filters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import UsageError
from pipeline.outcomes.index import Bytes, Entry, Index, Missing
from pipeline.outcomes.table import Filter, age, size, summary, table, why

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


def entry(kernel: str = "6.1.0-50-cloud-amd64", driver: str = "535.261.03", outcome: Any = "built", **changes: Any) -> Entry:
    values: dict[str, Any] = {"os": "debian", "arch": "amd64", "kernel": kernel, "driver": driver, "outcome": outcome}
    if outcome == "built":
        values |= {"kinds": ("open", "proprietary"), "bytes": Bytes(312_400_000, 5), "built": "2026-11-21T11:00:00Z"}
    return Entry(**{**values, **changes})


EXCLUDED = entry(
    "6.1.0-56-cloud-amd64",
    outcome="excluded",
    reason="does not compile: pci_resize_resource() takes 4 arguments there, the driver passes 3 since a change in 6.1.178",
    lift="a patch for it, or driver 535.309.01, whose own probe knows both forms",
    see="https://github.com/gardenlinux/gardenlinux-nvidia-installer/issues/344",
    rule="535-pci",
)


def test_a_pair_is_a_line_below_its_os_with_age_and_size() -> None:
    assert table([entry()], width=80, now=NOW) == (
        "debian/amd64\n"
        "  KERNEL                DRIVER      KINDS  OUTCOME  AGE    SIZE\n"
        "  6.1.0-50-cloud-amd64  535.261.03  both   built    3 d  312 MB\n"
    )


@pytest.mark.parametrize("width", [80, 100, 120])
def test_reasons_are_wrapped_below_the_pair_and_only_addresses_run_over(width: int) -> None:
    text = table([entry(), EXCLUDED], width=width, now=NOW)
    assert all(len(line) <= width or "https://" in line for line in text.splitlines())
    flat = " ".join(text.split())
    assert str(EXCLUDED.reason) in flat
    assert f"lifted by {EXCLUDED.lift}" in flat
    assert f"rule 535-pci of compat.toml; see {EXCLUDED.see}" in flat


def test_each_os_has_its_own_heading() -> None:
    lines = table([entry(), entry(os="flatcar", kernel="6.12.102-flatcar")], width=80, now=NOW).splitlines()
    assert lines[0] == "debian/amd64"
    assert lines[4] == "flatcar/amd64"
    assert lines[3] == ""


def test_pairs_of_one_architecture_stand_together_in_the_order_of_the_index() -> None:
    entries = [entry("6.1.0-1", arch=a) for a in ("amd64", "arm64")] + [entry("6.1.0-2", arch=a) for a in ("amd64", "arm64")]
    lines = table(entries, width=80, now=NOW).splitlines()
    assert [line for line in lines if line.startswith("debian/")] == ["debian/amd64", "debian/arm64"]
    assert [line.split()[0] for line in lines if line.startswith("  6.1")] == ["6.1.0-1", "6.1.0-2"] * 2


def test_a_failure_says_that_it_is_not_tried_again_and_how_to() -> None:
    assert why(entry(outcome="failed", reason="nv.c:3: error: no")) == [
        "nv.c:3: error: no",
        "not tried again by itself: its recipe changes with the lock, or use --retry-failed",
    ]


def test_a_kind_that_is_missing_and_an_image_that_is_left_over_say_so() -> None:
    said = why(entry(missing=(Missing("open", "left out by rule x"),), wanted=False, stale=True))
    assert said[0] == "without open: left out by rule x"
    assert any("stale" in sentence for sentence in said)
    assert any("no longer in versions.lock" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("then", "text"),
    [
        (None, "-"),
        ("2026-11-24T11:59:30Z", "0 min"),
        ("2026-11-24T10:01:00Z", "119 min"),
        ("2026-11-24T10:00:00Z", "2 h"),
        ("2026-11-22T12:00:00Z", "2 d"),
        ("2024-11-24T12:00:00Z", "730 d"),
        ("2026-11-24T12:00:09Z", "0 min"),
    ],
)
def test_ages_are_said_in_one_unit(then: str | None, text: str) -> None:
    assert age(then, NOW) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "-"), (20, "0.1 MB"), (5_240_000, "5.2 MB"), (312e6, "312 MB"), (1.25e9, "1.2 GB")]
)
def test_sizes_are_said_in_megabytes(number: float, text: str) -> None:
    assert size(int(number)) == text


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        ({}, {"a", "b", "c"}),
        ({"os": ("flatcar",)}, {"c"}),
        ({"os": ("debian/amd64", "flatcar")}, {"a", "b", "c"}),
        ({"kernel": ("6.1.0-5*",)}, {"b"}),
        ({"driver": ("535",)}, {"a", "b"}),
        ({"driver": ("535.309.01",)}, {"b"}),
        ({"driver": ("53",)}, set()),
        ({"outcome": ("failed", "pending")}, {"c"}),
        ({"os": ("debian",), "driver": ("580",)}, set()),
    ],
)
def test_filters_narrow_and_several_words_of_one_filter_widen(words: dict[str, tuple[str, ...]], taken: set[str]) -> None:
    entries = {
        "a": entry("6.1.0-47-cloud-amd64"),
        "b": entry(driver="535.309.01"),
        "c": entry("6.12.1-flatcar", "580.1.2", "failed", os="flatcar"),
    }
    chosen = Filter(**words)
    assert {name for name, e in entries.items() if chosen.takes(e)} == taken


def test_an_outcome_that_is_none_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="'done' is no outcome: one of built, failed"):
        Filter(outcome=("done",))


def test_the_summary_counts_what_is_shown_and_names_the_index() -> None:
    index = Index(serial=7, generated="2026-11-24T11:00:00Z", pairs=(entry(), EXCLUDED))
    assert summary(index, index.pairs) == "2 pairs: 1 built, 1 excluded; index 7 of 2026-11-24T11:00:00Z, from the registry"
    assert summary(index, ()) == "0 of 2 pairs: none; index 7 of 2026-11-24T11:00:00Z, from the registry"


@given(st.text(min_size=1, max_size=300), st.integers(40, 160))
def test_no_reason_whatever_it_holds_breaks_the_table(reason: str, width: int) -> None:
    text = table([entry(outcome="failed", reason=reason)], width=width, now=NOW)
    assert text.endswith("\n")
    assert text.startswith("debian/amd64\n")
