"""Flatcar: recorded feeds and version files with exact counts, and every trap met in them, by name.

REAL feeds are bytes as the project publishes them. No package list as published was found: those here are synthetic, in
the form that driverkit reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.source_policy import Flatcar
from pipeline.core.errors import NetworkError, NotFoundError, UpstreamDataError
from pipeline.core.versions import KernelRelease
from pipeline.upstream.coreos import flatcar
from pipeline.upstream.records import Discovery, ReleaseKey

RECORDED = Path(__file__).parents[4] / "shared" / "upstream"
recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded upstream metadata is not beside this checkout")
URL = "https://feed.example/releases.json"
CHANNELS = ["alpha", "beta", "edge", "lts", "lts-2021", "lts-2022", "lts-2023", "lts-2024", "stable"]
ALL = ""


def real(channel: str) -> bytes:
    return (RECORDED / "flatcar/releases-json" / flatcar.feed_url(channel).rpartition("/")[2]).read_bytes()


def version_file(name: str) -> bytes:
    return (RECORDED / "flatcar/version-txt" / name).read_bytes()


def transcribed() -> dict[str, bytes]:
    """The quoted version files of 2020, by their headings."""
    blocks = re.split(r"^## (\S+)\n", version_file("version.txt.transcribed-2020").decode(), flags=re.MULTILINE)
    return dict(zip(blocks[1::2], (block.encode() for block in blocks[2::2]), strict=True))


def entry(kernel: list[str] | None = None, channel: str = "stable", day: str = "2026-08-01", **more: object) -> object:
    software: dict[str, list[str]] = {"docker": ["28.0.1"]}
    if kernel is not None:
        software["kernel"] = kernel
    return {
        "channel": channel,
        "architectures": ["amd64", "arm64"],
        "release_date": f"{day} 10:00:00 +0000",
        "major_software": software,
        "release_notes": "synthetic",
        **more,
    }


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


class Server:
    """Answers from a table and notes what was asked."""

    def __init__(self, files: dict[str, bytes | Exception]) -> None:
        self.files = files
        self.asked: list[str] = []

    def __call__(self, url: str, immutable: bool) -> bytes:
        self.asked.append(url)
        answer = self.files.get(url, NotFoundError(f"{url}: 404"))
        if isinstance(answer, Exception):
            raise answer
        return answer


def run(server: Server, known: dict[ReleaseKey, str] | None = None, **policy: object) -> Discovery:
    return flatcar.discover(server, msgspec.convert({"ahead": False, **policy}, Flatcar), known or {})


def feeds() -> Server:
    return Server({flatcar.feed_url(channel): real(channel) for channel in CHANNELS})


# --- recorded files -------------------------------------------------------------------------------------------------


@recorded
@pytest.mark.parametrize(
    ("channel", "count", "kernels", "arm64", "aliases", "current", "kernel"),
    [
        ("alpha", 164, 155, 108, 1, "4790.0.0", "6.12.102"),
        ("beta", 151, 143, 70, 1, "4757.1.0", "6.12.102"),
        ("edge", 27, 23, 6, 1, "2466.99.0", "5.6.2"),
        ("lts", 61, 58, 39, 5, "4081.3.10", "6.6.150"),
        ("lts-2021", 21, 20, 0, 2, "2605.32.1", "5.4.210"),
        ("lts-2022", 19, 19, 19, 2, "3033.3.18", "5.10.198"),
        ("lts-2023", 9, 8, 9, 2, "3510.3.8", "5.15.189"),
        ("lts-2024", 11, 10, 11, 2, "4081.3.10", "6.6.150"),
        ("stable", 137, 121, 65, 1, "4593.2.5", "6.12.102"),
    ],
)
def test_real_channel_feeds(channel: str, count: int, kernels: int, arm64: int, aliases: int, current: str, kernel: str) -> None:
    feed = flatcar.parse_feed(real(channel), URL, channel)
    assert (len(feed.releases), len(feed.aliases)) == (count, aliases)
    assert len({release.kernel_version for release in feed.releases}) == kernels
    assert sum("arm64" in release.arches for release in feed.releases) == arm64
    assert feed.aliases["current"] == feed.releases[-1].version == current
    assert feed.releases[-1].kernel_version == kernel
    assert feed.warnings == ()


@recorded
def test_real_feed_of_all_channels_has_545_entries_of_which_5_are_aliases_and_307_kernels() -> None:
    document = json.loads(real(ALL))
    feed = flatcar.parse_feed(real(ALL), URL)
    assert len(document) == 545
    assert len(feed.releases) == 540
    assert len(feed.aliases) == 5
    assert len({release.kernel_version for release in feed.releases}) == 307
    assert sum(len(flatcar.parse_feed(real(c), URL).releases) for c in ("alpha", "beta", "edge", "lts", "stable")) == 540
    for release in feed.releases:
        assert [release.kernel_version] == document[release.version]["major_software"]["kernel"]
        assert list(release.arches) == document[release.version]["architectures"]
        assert str(KernelRelease(flatcar.uname(release.kernel_version))).endswith("-flatcar")


@recorded
def test_arm64_begins_with_2345_0_1_and_is_read_from_each_release() -> None:
    arm64 = [r for r in flatcar.parse_feed(real(ALL), URL).releases if "arm64" in r.arches]
    assert min(arm64, key=lambda r: r.date).version == "2345.0.1"
    assert min(r.date for r in arm64) == "2019-12-09T10:28:08Z"
    assert len(arm64) == 288


@recorded
def test_lts_aliases_give_each_line_its_year_and_2605_15_1_belongs_to_one_though_its_year_file_lacks_it() -> None:
    feed = flatcar.parse_feed(real("lts"), URL, "lts")
    assert feed.aliases == {
        "current": "4081.3.10",
        "current-2021": "2605.32.1",
        "current-2022": "3033.3.18",
        "current-2023": "3510.3.8",
        "current-2024": "4081.3.10",
    }
    lines = [flatcar.line_of(release, feed) for release in feed.releases]
    assert {line: lines.count(line) for line in lines} == {
        "lts-2021": 22,
        "lts-2022": 19,
        "lts-2023": 9,
        "lts-2024": 11,
    }
    assert "2605.15.1" not in {r.version for r in flatcar.parse_feed(real("lts-2021"), URL).releases}


@recorded
def test_every_flatcar_release_that_kernel_crawler_lists_is_in_the_feed_as_an_os_version() -> None:
    ours = {release.version for release in flatcar.parse_feed(real(ALL), URL).releases}
    for arch, count in (("x86_64", 273), ("aarch64", 64)):
        document = json.loads((RECORDED / f"kernel-crawler/list-{arch}.fedora-flatcar-centos.json").read_bytes())
        theirs = [item["kernelrelease"] for item in document["Flatcar"]]
        assert len(theirs) == count
        assert set(theirs) <= ours


@recorded
def test_real_version_files_and_the_nightly() -> None:
    for name in ("stable-4593.2.5", "beta-4757.1.0", "alpha-4790.0.0", "lts-4081.3.10"):
        served = flatcar.parse_version_txt(version_file(f"{name}.version.txt"), URL)
        assert (served.vendor, served.version) == ("FLATCAR", name.partition("-")[2])
        assert (served.suffix, served.build_id, served.date) == ("", "", None)
        feed = flatcar.parse_feed(real(name.partition("-")[0]), URL)
        assert flatcar.disagreement(feed, served, URL) is None
    nightly = flatcar.parse_version_txt(version_file("main-nightly.version.txt"), URL)
    assert (nightly.version, nightly.suffix) == ("4799.0.0", "+nightly-20260821-2100")
    alpha = flatcar.parse_feed(real("alpha"), URL)
    assert "is a nightly, not a release" in str(flatcar.disagreement(alpha, nightly, URL))


@recorded
def test_quoted_version_files_of_2020_have_quotes_around_the_build_id() -> None:
    served = {name: flatcar.parse_version_txt(data, URL) for name, data in transcribed().items()}
    assert [(s.vendor, s.version, s.build_id) for s in served.values()] == [
        ("FLATCAR", "2303.3.1", "2019-12-17-1953"),
        ("FLATCAR", "2303.4.0", "2020-02-08-0830"),
        ("FLATCAR", "2345.2.0", "2020-02-08-0832"),
    ]
    assert served["Stable2303_3_1"].date == "2019-12-17T19:53:00Z"
    known = {release.version for release in flatcar.parse_feed(real(ALL), URL).releases}
    assert {s.version for s in served.values()} <= known


@recorded
def test_discovery_over_the_real_feeds_builds_the_current_channels_and_not_the_ended_ones() -> None:
    server = feeds()
    found = run(server)
    assert len(server.asked) == 4
    assert found.problems == ()
    assert found.warnings == ()
    assert [(r.channel, r.version, r.kernel) for r in found.releases if r.arch == "arm64"] == [
        ("alpha", "4722.0.0", "6.12.93-flatcar"),
        ("alpha", "4757.0.0", "6.12.95-flatcar"),
        ("alpha", "4790.0.0", "6.12.102-flatcar"),
        ("beta", "4694.1.0", "6.12.93-flatcar"),
        ("beta", "4722.1.0", "6.12.95-flatcar"),
        ("beta", "4757.1.0", "6.12.102-flatcar"),
        ("lts", "4081.3.8", "6.6.141-flatcar"),
        ("lts", "4081.3.9", "6.6.144-flatcar"),
        ("lts", "4081.3.10", "6.6.150-flatcar"),
        ("stable", "4593.2.3", "6.12.93-flatcar"),
        ("stable", "4593.2.4", "6.12.95-flatcar"),
        ("stable", "4593.2.5", "6.12.102-flatcar"),
    ]
    assert [r.version for r in found.releases if "current" in r.state and r.arch == "amd64"] == [
        "4790.0.0",
        "4757.1.0",
        "4081.3.10",
        "4593.2.5",
    ]
    assert found.releases[-1].date == "2026-08-13T15:48:35Z"
    assert found.releases[-1].kernel_version == "6.12.102"


@recorded
def test_an_ended_channel_is_built_only_when_it_is_named_with_a_reason() -> None:
    named = run(feeds(), channels=["lts", "lts-2022", "edge"], keep=1, reason="a site of ours still runs these")
    assert [(r.channel, r.version) for r in named.releases if r.arch == "amd64"] == [
        ("edge", "2466.99.0"),
        ("lts", "3033.3.18"),
        ("lts", "4081.3.10"),
    ]
    for channel in ("edge", "lts-2021", "lts-2022", "lts-2023"):
        with pytest.raises(msgspec.ValidationError, match=f"{channel} has ended"):
            run(feeds(), channels=[channel])


@recorded
def test_since_adds_every_release_of_that_day_or_later() -> None:
    found = run(feeds(), channels=["stable"], arches=["amd64"], keep=1, since="2026-01-01")
    dates = [release["release_date"] for key, release in json.loads(real("stable")).items() if key != "current"]
    assert len(found.releases) == sum(day >= "2026-01-01" for day in dates) > 3


# --- traps of the feed ----------------------------------------------------------------------------------------------


def test_alias_keys_repeat_a_release_and_are_not_releases() -> None:
    same, older = entry(["6.12.102"]), entry(["6.12.93"], day="2026-07-01")
    feed = flatcar.parse_feed(as_json({"4593.2.5": same, "4593.2.4": older, "current": same, "current-2024": older}), URL)
    assert [r.version for r in feed.releases] == ["4593.2.4", "4593.2.5"]
    assert feed.aliases == {"current": "4593.2.5", "current-2024": "4593.2.4"}


def test_an_alias_that_could_be_two_releases_or_none_says_nothing() -> None:
    same = entry(["6.12.102"])
    document = {"1.0.0": same, "1.0.1": same, "current": same, "current-2024": entry(["6.6.1"])}
    feed = flatcar.parse_feed(as_json(document), URL)
    assert feed.aliases == {}
    assert feed.warnings == (f"{URL}: 2 skipped, an alias that repeats no one release: current, current-2024",)


def test_keep_counts_each_lts_line_for_itself() -> None:
    versions = ["4081.3.1", "4081.3.2", "5000.3.1", "5000.3.2", "5000.3.3"]
    document = {version: entry(["6.6.1"], "lts", f"2026-08-0{n + 1}") for n, version in enumerate(versions)}
    document["current-2024"] = document["4081.3.2"]
    found = run(Server({flatcar.feed_url("lts"): as_json(document)}), channels=["lts"], arches=["amd64"], keep=2)
    assert [r.version for r in found.releases] == ["4081.3.1", "4081.3.2", "5000.3.2", "5000.3.3"]
    feed = flatcar.parse_feed(as_json(document), URL)
    assert [flatcar.line_of(release, feed) for release in feed.releases] == ["lts-2024"] * 2 + ["lts-5000"] * 3


def test_keys_that_are_neither_version_nor_alias_are_counted() -> None:
    document = {key: entry(["6.1.1"]) for key in ("1.2.3", "../../x", "$(reboot)", "4593.2.5+foo", "current")}
    feed = flatcar.parse_feed(as_json(document), URL)
    assert [r.version for r in feed.releases] == ["1.2.3"]
    assert feed.warnings == (f"{URL}: 3 skipped, not a version: ../../x, $(reboot), 4593.2.5+foo",)


def test_string_ordered_object_is_sorted_by_number() -> None:
    document = {key: entry(["5.10.1"], "lts") for key in ("3033.3.1", "3033.3.10", "3033.3.9", "10000.0.0", "4081.3.0")}
    feed = flatcar.parse_feed(as_json(document), URL)
    assert [r.version for r in feed.releases] == ["3033.3.1", "3033.3.9", "3033.3.10", "4081.3.0", "10000.0.0"]
    found = run(
        Server({flatcar.feed_url("stable"): as_json({k: entry(["6.1.1"]) for k in ("1.0.9", "1.0.10")})}),
        channels=["stable"],
        keep=1,
    )
    assert {r.version for r in found.releases} == {"1.0.10"}


@pytest.mark.parametrize("kernel", [None, [], [""], ["6.1.1", "6.1.2"]])
def test_a_release_without_exactly_one_kernel_is_skipped_with_a_counted_warning(kernel: list[str] | None) -> None:
    feed = flatcar.parse_feed(as_json({"1.0.0": entry(kernel), "1.0.1": entry(kernel), "1.0.2": entry(["6.1.1"])}), URL)
    assert [r.version for r in feed.releases] == ["1.0.2"]
    assert feed.warnings == (f"{URL}: 2 skipped, not exactly one kernel named: 1.0.0, 1.0.1",)


def test_a_feed_without_any_release_is_an_error_and_not_an_empty_list() -> None:
    for document in ({}, {"1.0.0": entry()}, {"current": entry(["6.1.1"])}, {"1.0.0": entry(["6.1.1"], "nightly")}):
        with pytest.raises(UpstreamDataError, match="no release with a kernel"):
            flatcar.parse_feed(as_json(document), URL)


def test_the_feed_of_another_channel_is_refused() -> None:
    server = Server({flatcar.feed_url("stable"): as_json({"1.0.0": entry(["6.1.1"], "beta")})})
    found = run(server, channels=["stable"])
    assert found.releases == ()
    assert [p.channel for p in found.problems] == ["stable"]


@pytest.mark.parametrize("kernel", ["$(reboot)", "../../x", "6.1.1-flatcar", "6.1.1\n", "6.1.1 ", "9" * 99 + ".1", "latest"])
def test_a_kernel_that_is_a_command_a_path_or_no_version_refuses_the_feed(kernel: str) -> None:
    with pytest.raises(UpstreamDataError, match=r"feed\.example"):
        flatcar.parse_feed(as_json({"1.0.0": entry(["6.1.1"]), "1.0.1": entry([kernel])}), URL)


def test_an_unknown_architecture_is_skipped_with_a_counted_warning() -> None:
    document = {
        "1.0.0": entry(["6.1.1"], architectures=["amd64", "riscv64"]),
        "1.0.1": entry(["6.1.2"], architectures=["amd64"]),
    }
    found = run(Server({flatcar.feed_url("stable"): as_json(document)}), channels=["stable"])
    assert [(r.version, r.arch) for r in found.releases] == [("1.0.0", "amd64"), ("1.0.1", "amd64")]
    assert found.warnings == (f"{flatcar.feed_url('stable')}: 1 skipped, unknown architecture: 1.0.0 riscv64",)


def test_a_release_candidate_kernel_keeps_its_name() -> None:
    feed = flatcar.parse_feed(as_json({"1.0.0": entry(["5.0.0-rc3"])}), URL)
    assert flatcar.uname(feed.releases[0].kernel_version) == "5.0.0-rc3-flatcar"


def test_a_date_that_is_none_is_refused_and_another_zone_is_converted() -> None:
    ok = flatcar.parse_feed(as_json({"1.0.0": entry(["6.1.1"], release_date="2026-08-01 01:30:00 +0200")}), URL)
    assert ok.releases[0].date == "2026-07-31T23:30:00Z"
    for text in (
        "yesterday",
        "2026-13-01 10:00:00 +0000",
        "",
        "0001-01-01 00:00:00 +0900",
        "1999-01-01 00:00:00 +0000",
    ):
        with pytest.raises(UpstreamDataError, match="as its date"):
            flatcar.parse_feed(as_json({"1.0.0": entry(["6.1.1"], release_date=text)}), URL)


def test_one_channel_that_fails_leaves_the_others() -> None:
    server = Server(
        {
            flatcar.feed_url("stable"): as_json({"1.0.0": entry(["6.1.1"])}),
            flatcar.feed_url("beta"): b"<html>Bad gateway</html>",
            flatcar.feed_url("alpha"): NetworkError("timed out"),
        }
    )
    found = run(server, channels=["stable", "beta", "alpha"], arches=["amd64"])
    assert [r.version for r in found.releases] == ["1.0.0"]
    assert [(p.channel, p.url) for p in found.problems] == [(c, flatcar.feed_url(c)) for c in ("beta", "alpha")]


# --- what the release servers know first ----------------------------------------------------------------------------

PACKAGES = b"""app-misc/synthetic-1.2.3::portage-stable
sys-kernel/coreos-firmware-20260101::coreos-overlay
sys-kernel/coreos-kernel-6.12.103-r1::coreos-overlay
sys-kernel/coreos-modules-6.12.103-r1::coreos-overlay
"""


def ahead(version: str, **files: bytes | Exception) -> Server:
    served = f'FLATCAR_VERSION={version}\nFLATCAR_BUILD_ID="2026-08-20-0806"\n'.encode()
    table: dict[str, bytes | Exception] = {
        flatcar.feed_url("stable"): as_json({"4593.2.5": entry(["6.12.102"])}),
        flatcar.file_url("stable", "amd64", "current", "version.txt"): served,
        flatcar.file_url("stable", "amd64", "4593.2.6", flatcar.PACKAGES): PACKAGES,
    }
    return Server(table | {flatcar.file_url("stable", "amd64", "4593.2.6", flatcar.PACKAGES): f for f in files.values()})


def look(server: Server, known: dict[ReleaseKey, str] | None = None) -> Discovery:
    return run(server, known, ahead=True, channels=["stable"], arches=["amd64"])


def test_urls_of_feeds_and_files() -> None:
    assert flatcar.feed_url("") == "https://www.flatcar.org/releases-json/releases.json"
    assert flatcar.feed_url("lts-2024") == "https://www.flatcar.org/releases-json/releases-lts-2024.json"
    assert (
        flatcar.file_url("lts-2024", "arm64", "4081.3.10", "version.txt")
        == "https://lts.release.flatcar-linux.net/arm64-usr/4081.3.10/version.txt"
    )


def test_a_release_whose_files_are_up_before_the_feed_lists_it_is_found_with_its_kernel() -> None:
    server = ahead("4593.2.6")
    found = look(server)
    newest = found.releases[-1]
    assert (newest.version, newest.kernel, newest.kernel_version) == ("4593.2.6", "6.12.103-flatcar", "6.12.103")
    assert (newest.date, set(newest.state)) == ("2026-08-20T08:06:00Z", {"current"})
    assert len(server.asked) == 3
    assert "the feed has not yet gone on: its newest is 4593.2.5" in found.warnings[0]
    server.asked.clear()
    again = look(server, {newest.key: "6.12.103-flatcar"})
    assert again.releases == found.releases
    assert len(server.asked) == 2


def test_a_new_release_without_its_package_list_is_pending_and_a_failing_server_is_a_problem() -> None:
    missing = look(ahead("4593.2.6", packages=NotFoundError("404")))
    assert [(r.version, r.kernel, r.need) for r in missing.releases][1] == ("4593.2.6", None, "packages")
    assert missing.problems == ()
    failing = look(ahead("4593.2.6", packages=NetworkError("500")))
    assert failing.releases[1].need == "retry"
    assert len(failing.problems) == 1


def test_version_txt_and_feed_that_agree_say_nothing_and_an_older_server_is_only_reported() -> None:
    assert look(ahead("4593.2.5")).warnings == ()
    older = look(ahead("4593.2.4"))
    assert [r.version for r in older.releases] == ["4593.2.5"]
    assert "already gone on" in older.warnings[0]


def test_a_nightly_in_current_is_never_a_release() -> None:
    found = look(ahead("4799.0.0+nightly-20260821-2100"))
    assert [r.version for r in found.releases] == ["4593.2.5"]
    assert "nightly" in found.warnings[0]


def test_lts_line_named_by_year_looks_at_its_own_current_directory() -> None:
    document = as_json({"4081.3.10": entry(["6.6.150"], "lts")})
    server = Server({flatcar.feed_url("lts-2024"): document})
    run(server, ahead=True, channels=["lts-2024"], arches=["arm64"])
    assert server.asked[1] == "https://lts.release.flatcar-linux.net/arm64-usr/current-2024/version.txt"


@pytest.mark.parametrize(
    ("line", "kernel"),
    [
        ("sys-kernel/coreos-kernel-6.12.102::coreos-overlay", "6.12.102-flatcar"),
        ("sys-kernel/coreos-kernel-6.12.102-r2::coreos", "6.12.102-flatcar"),
        ("sys-kernel/coreos-kernel-5.0_rc3::coreos-overlay", "5.0-rc3-flatcar"),
    ],
)
def test_package_list_gives_the_kernel_without_the_ebuild_revision(line: str, kernel: str) -> None:
    assert flatcar.parse_packages(f"a/b-1::x\n{line}\n".encode(), URL) == kernel


@pytest.mark.parametrize("text", ["", "<html>", "sys-kernel/coreos-kernel-$(reboot)::x", PACKAGES.decode() * 2])
def test_package_list_without_exactly_one_kernel_is_an_error(text: str) -> None:
    with pytest.raises(UpstreamDataError, match="not one package sys-kernel/coreos-kernel"):
        flatcar.parse_packages(text.encode(), URL)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        "FLATCAR_VERSION=1.2.3\nCOREOS_VERSION=1.2.3",
        "FLATCAR_VERSION=1.2.3\nFLATCAR_VERSION=1.2.4",
        "FLATCAR_VERSION=1.2.3\nFLATCAR_VERSION_ID=1.2.4",
        "FLATCAR_VERSION=1.2.3\nFLATCAR_BUILD=9\nFLATCAR_BRANCH=2\nFLATCAR_PATCH=3",
        "FLATCAR_VERSION=../../x",
        "FLATCAR_VERSION=$(reboot)",
        'FLATCAR_VERSION="1.2.3',
        "FLATCAR_VERSION=1.2.3\n" + "X=1\n" * 5000,
    ],
)
def test_version_txt_that_contradicts_itself_or_is_another_document_is_refused(text: str) -> None:
    with pytest.raises(UpstreamDataError, match=r"feed\.example"):
        flatcar.parse_version_txt(text.encode(), URL)


# --- anything at all ------------------------------------------------------------------------------------------------

SOUND = as_json({"4593.2.5": entry(["6.12.102"]), "4593.2.4": entry(["6.12.93"]), "current": entry(["6.12.102"])})
PARSERS: list[tuple[Callable[[bytes, str], object], bytes]] = [
    (flatcar.parse_feed, SOUND),
    (flatcar.parse_packages, PACKAGES),
    (flatcar.parse_version_txt, b'FLATCAR_VERSION=4593.2.6\nFLATCAR_BUILD_ID="2026-08-20-0806"\n'),
]


@pytest.mark.parametrize(("parse", "sound"), PARSERS)
def test_no_bytes_and_no_mutation_raise_anything_but_our_own_error(parse: Callable[[bytes, str], object], sound: bytes) -> None:
    @given(st.binary(max_size=200), st.integers(0, len(sound)), st.integers(0, 20), st.binary(max_size=8))
    def survives(noise: bytes, at: int, cut: int, put: bytes) -> None:
        for data in (noise, sound[:at] + put + sound[at + cut :]):
            try:
                parse(data, URL)
            except UpstreamDataError as error:
                assert "\n" not in str(error)
                assert URL in str(error)

    survives()


@given(
    st.dictionaries(
        st.text(max_size=8) | st.just("current") | st.from_regex(r"\A[0-9]{1,4}\.[0-9]\.[0-9]{1,2}\Z"),
        st.fixed_dictionaries(
            {
                "channel": st.sampled_from(["stable", "lts", "x", 7]),
                "architectures": st.lists(st.sampled_from(["amd64", "arm64", "", None]), max_size=2),
                "release_date": st.sampled_from(["2026-08-01 10:00:00 +0000", "0001-01-01 00:00:00 +1400", ""]),
                "major_software": st.dictionaries(
                    st.sampled_from(["kernel", "etcd"]), st.lists(st.sampled_from(["6.1.1", "", "$(x)"]), max_size=2)
                ),
            }
        ),
        max_size=4,
    )
)
def test_any_feed_gives_only_releases_with_a_checked_kernel_or_our_own_error(document: dict[str, object]) -> None:
    try:
        feed = flatcar.parse_feed(as_json(document), URL)
    except UpstreamDataError:
        return
    assert feed.releases
    assert all(r.kernel_version == "6.1.1" and r.version in document for r in feed.releases)


@pytest.mark.parametrize("bad", [b"", b"<html></html>", SOUND[:-3], b'{"1.0.0": {}, "1.0.0": {}}', b"[]", b"\xff", b"[" * 99999])
def test_a_web_page_cut_json_twin_keys_and_wrong_types_are_named_with_the_url(bad: bytes) -> None:
    with pytest.raises(UpstreamDataError, match=r"^https://feed\.example/releases\.json: "):
        flatcar.parse_feed(bad, URL)


def test_twin_keys_of_sound_releases_are_refused() -> None:
    twice = SOUND[:-1] + b", " + SOUND[1:]
    with pytest.raises(UpstreamDataError, match=r"the key '4593\.2\.5' stands twice"):
        flatcar.parse_feed(twice, URL)
