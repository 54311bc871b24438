"""CoreOS Container Linux: the archived feed, off by default, and the kernel revision that no file tells.

The feed of 89 releases and the version file are QUOTATIONS (another project's tests hold them, release notes elided).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.source_policy import ContainerLinux
from pipeline.core.errors import NetworkError, UpstreamDataError
from pipeline.upstream.coreos import container_linux
from pipeline.upstream.records import Discovery, ReleaseKey

RECORDED = Path(__file__).parents[4] / "shared" / "upstream"
recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded upstream metadata is not beside this checkout")
URL = "https://feed.example/releases-stable.json"


def quoted() -> bytes:
    return (RECORDED / "coreos-legacy/releases-stable.notes-elided.json").read_bytes()


def run(data: bytes | Exception, known: dict[ReleaseKey, str] | None = None, **policy: object) -> Discovery:
    def get(url: str, immutable: bool) -> bytes:
        assert (url, immutable) == (container_linux.FEED, True)
        if isinstance(data, Exception):
            raise data
        return data

    wish = {"enabled": True, "reason": "hosts that nobody may reinstall", **policy}
    return container_linux.discover(get, msgspec.convert(wish, ContainerLinux), known or {})


def synthetic(*versions: str, kernel: str = "4.19.34") -> bytes:
    software = {"kernel": [kernel], "etcd": ["0.4.9", "2.3.7"], "fleet": [""]}
    entry = {"release_date": "2019-04-23 20:20:00 +0000", "major_software": software, "release_notes": "synthetic"}
    return json.dumps(dict.fromkeys(versions, entry)).encode()


@recorded
def test_the_quoted_feed_has_89_releases_and_52_kernels() -> None:
    feed = container_linux.parse_feed(quoted(), URL)
    document = json.loads(quoted())
    assert len(feed.releases) == len(document) == 89
    assert len({release.kernel_version for release in feed.releases}) == 52
    assert (feed.releases[0].version, feed.releases[0].kernel_version) == ("522.4.0", "3.17.7")
    assert (feed.releases[-1].version, feed.releases[-1].kernel_version) == ("2079.3.0", "4.19.34")
    assert [r.version for r in feed.releases if r.kernel_version == "4.14.96"] == ["1967.4.0", "1967.5.0", "1967.6.0"]
    assert [r.version for r in feed.releases if r.kernel_version.count(".") == 1] == ["633.1.0"]
    assert all([r.kernel_version] == document[r.version]["major_software"]["kernel"] for r in feed.releases)
    assert feed.warnings == ()
    assert feed.aliases == {}


@recorded
def test_lists_with_an_empty_string_or_two_values_do_not_matter_outside_the_kernel() -> None:
    software = [release["major_software"] for release in json.loads(quoted()).values()]
    assert sum(len(s["etcd"]) == 2 for s in software) == 40
    assert any(s["fleet"] == [""] for s in software)
    assert container_linux.parse_feed(synthetic("1.0.0"), URL).releases[0].kernel_version == "4.19.34"


@recorded
def test_the_quoted_version_files_of_2019_have_coreos_keys() -> None:
    text = (RECORDED / "coreos-legacy/version.txt.transcribed-2019").read_text()
    blocks = re.split(r"^## .*\n", text, flags=re.MULTILINE)[1:]
    served = [container_linux.parse_version_txt(block.encode(), URL) for block in blocks]
    assert [(s.vendor, s.version, s.build_id) for s in served] == [
        ("COREOS", "2023.4.0", "2019-02-26-0016"),
        ("COREOS", "2023.5.0", "2019-02-27-0343"),
        ("COREOS", "2051.1.0", "2019-02-26-0031"),
    ]
    stable = {release.version for release in container_linux.parse_feed(quoted(), URL).releases}
    assert [s.version in stable for s in served] == [True, True, False]


def test_it_is_off_by_default_and_then_asks_for_nothing() -> None:
    def get(url: str, immutable: bool) -> bytes:
        raise AssertionError(url)

    assert container_linux.discover(get, ContainerLinux(), {}) == Discovery()


def test_it_is_enabled_only_with_a_reason_and_for_amd64() -> None:
    for bad in ({"enabled": True}, {"enabled": True, "reason": "x"}, {"arches": ["arm64"]}, {"kernels": {"1": "$(x)"}}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(bad, ContainerLinux)


@recorded
def test_the_kernel_stays_unknown_as_the_feed_does_not_hold_its_revision_until_policy_names_it() -> None:
    found = run(quoted(), keep=2, kernels={"1967.6.0": "4.14.96-coreos-r1", "1855.4.0": "4.14.67-coreos"})
    assert [(r.version, r.kernel, r.kernel_version, r.need) for r in found.releases] == [
        ("1855.4.0", "4.14.67-coreos", "4.14.67", None),
        ("1967.6.0", "4.14.96-coreos-r1", "4.14.96", None),
        ("2023.5.0", None, "4.19.25", "revision"),
        ("2079.3.0", None, "4.19.34", "revision"),
    ]
    assert [r.version for r in found.releases if "current" in r.state] == ["2079.3.0"]
    assert {(r.channel, r.arch) for r in found.releases} == {("stable", "amd64")}
    assert found.releases[-1].date == "2019-04-23T20:20:00Z"
    assert (*found.warnings, *found.problems) == ()


def test_keep_and_since_are_ordered_by_number_and_date() -> None:
    data = synthetic("999.1.0", "1000.1.0", "1000.1.10", "1000.1.9")
    assert [r.version for r in run(data, keep=2).releases] == ["1000.1.9", "1000.1.10"]
    assert len(run(data, keep=0, since="2019-04-23").releases) == 4
    assert run(data, keep=0, since="2019-04-24").releases == ()


def test_a_kernel_of_another_version_and_a_release_that_does_not_exist_are_reported() -> None:
    found = run(synthetic("1.0.0"), kernels={"1.0.0": "4.19.3-coreos", "9.9.9": "4.1.1-coreos"})
    assert [(r.kernel, r.need) for r in found.releases] == [(None, "revision")]
    assert len(found.warnings) == 2


def test_the_kernel_found_before_is_kept() -> None:
    known = {("container-linux", "stable", "1.0.0", "amd64"): "4.19.34-coreos-r1"}
    assert [r.kernel for r in run(synthetic("1.0.0"), known).releases] == ["4.19.34-coreos-r1"]


@pytest.mark.parametrize("data", [NetworkError("gone"), b"<html>Red Hat</html>", b"{}", synthetic("1.0.0", kernel="$(reboot)")])
def test_a_dead_or_changed_feed_is_a_problem(data: bytes | Exception) -> None:
    found = run(data)
    assert found.releases == ()
    assert [p.url for p in found.problems] == [container_linux.FEED]


@given(st.binary(max_size=200), st.integers(0, 300), st.integers(0, 20), st.binary(max_size=8))
def test_no_bytes_and_no_mutation_raise_anything_but_our_own_error(noise: bytes, at: int, cut: int, put: bytes) -> None:
    sound = synthetic("2079.3.0", "2023.5.0")
    for data in (noise, sound[:at] + put + sound[at + cut :]):
        try:
            container_linux.parse_feed(data, URL)
        except UpstreamDataError as error:
            assert URL in str(error)
