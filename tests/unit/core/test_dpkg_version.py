"""Debian's order of versions: Policy 5.6.12 in its own examples, and dpkg itself as the judge."""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess

import pytest

from pipeline.core.dpkg_version import DpkgVersion

VERSIONS = (
    "1.0~~",
    "1.0~~a",
    "1.0~",
    "1.0~rc1-1",
    "1.0",
    "1.0-1~deb12u1",
    "1.0-1",
    "1.0-1+b1",
    "1.0-1+deb12u2",
    "1.0-1+deb12u10",
    "1.0a",
    "1.0+dfsg-2",
    "1.0.1",
    "1.9",
    "1.10",
    "535.54.03-1",
    "535.171.04-1~deb12u1",
    "535.261.03-1",
    "535.309.01-0+deb12u1",
    "0:536",
    "1:0.1",
    "2:0.0.1-1-1",
)


def test_the_policys_own_example_is_in_its_order() -> None:
    written = ["~~", "~~a", "~", "", "a"]
    ordered = [DpkgVersion(f"1{part}") for part in written]
    assert all(a < b for a, b in itertools.pairwise(ordered))


def test_versions_are_in_order_of_epoch_then_upstream_then_revision() -> None:
    mixed = random.Random(4).sample(VERSIONS, len(VERSIONS))
    assert [v.text for v in sorted(map(DpkgVersion, mixed))] == list(VERSIONS)


@pytest.mark.parametrize(("one", "other"), [("1.0", "0:1.0"), ("1.0", "1.00"), ("1.0-0", "1.0"), ("1.0a", "1.0a0")])
def test_two_spellings_of_one_version_are_equal(one: str, other: str) -> None:
    assert DpkgVersion(one) == DpkgVersion(other)
    assert hash(DpkgVersion(one)) == hash(DpkgVersion(other))
    assert not DpkgVersion(one) < DpkgVersion(other)


@pytest.mark.parametrize(
    ("text", "upstream"),
    [("535.309.01-0+deb12u1", "535.309.01"), ("1:1.35.0-4+b1", "1.35.0"), ("2.0-rc1-3", "2.0-rc1"), ("37", "37")],
)
def test_the_upstream_part_is_what_stands_between_epoch_and_last_dash(text: str, upstream: str) -> None:
    assert DpkgVersion(text).upstream == upstream


def test_dpkg_itself_agrees_on_made_up_versions() -> None:
    if shutil.which("dpkg") is None:
        pytest.skip("dpkg is not installed: this is no Debian")
    made = random.Random(12)
    for _ in range(200):
        one, other = ("1" + "".join(made.choices("01~a+.-", k=made.randint(0, 4))).rstrip("-") for _ in range(2))
        if made.random() < 0.3:
            other = one + made.choice(("~", "~1", "0", "a", "+b1", "-1"))
        mine = "lt" if DpkgVersion(one) < DpkgVersion(other) else "eq" if DpkgVersion(one) == DpkgVersion(other) else "gt"
        asked = subprocess.run(["dpkg", "--compare-versions", one, mine, other], capture_output=True, text=True)
        assert (asked.returncode, asked.stderr) == (0, ""), f"{one} {mine} {other}"
