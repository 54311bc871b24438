"""NVIDIA's feeds: recorded ones with exact counts, and every trap met in them, by name.

The data-centre feed is a real subset (no "new feature branch" in it), ``latest.txt`` a quotation. No recording of
endoflife.date's table with its dates exists: that one is synthetic.
"""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import UpstreamDataError
from pipeline.core.versions import DriverVersion
from pipeline.upstream.nvidia import feeds

RECORDED = Path(__file__).parents[4] / "shared" / "upstream" / "nvidia"
recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded upstream metadata is not beside this checkout")
URL = "https://feed.example/releases.json"
LATEST = "https://download.nvidia.com/XFree86/Linux-x86_64/latest.txt"


def real(name: str) -> bytes:
    return (RECORDED / name).read_bytes()


def runfile(version: str, arch: str = "x86_64") -> str:
    return f"https://us.download.nvidia.com/tesla/{version}/NVIDIA-Linux-{arch}-{version}.run"


def release(version: str, *arches: str, **more: Any) -> dict[str, Any]:
    urls = {arch: runfile(version, arch) for arch in arches or ("x86_64", "aarch64")}
    return {"release_version": version, "release_date": "2026-08-03", "runfile_url": urls, **more}


def feed(*releases: dict[str, Any], branch: str = "535", kind: str = "lts branch") -> bytes:
    return json.dumps({branch: {"type": kind, "driver_info": releases}}).encode()


def versions(data: bytes) -> list[str]:
    return [r.version for branch in feeds.parse_data_centre(data, URL).branches for r in branch.releases]


# The data-centre feed


@recorded
def test_the_recorded_data_centre_feed_has_four_branches_and_twenty_drivers() -> None:
    read = feeds.parse_data_centre(real("datacenter-releases/filtered_releases.json"), URL)
    assert [(b.name, b.type, len(b.releases), b.releases[0].version) for b in read.branches] == [
        ("550", "production branch", 2, "550.54.15"),
        ("535", "lts branch", 8, "535.161.08"),
        ("525", "production branch", 5, "525.147.05"),
        ("515", "production branch", 5, "515.105.01"),
    ]
    assert read.warnings == ()


@recorded
def test_every_run_file_of_the_recorded_feed_is_found_by_a_count_of_its_text() -> None:
    data = real("datacenter-releases/filtered_releases.json")
    read = feeds.parse_data_centre(data, URL)
    urls = [url for branch in read.branches for r in branch.releases for url in r.runfiles.values()]
    assert len(urls) == 40
    assert data.count(b"NVIDIA-Linux-x86_64-") + data.count(b"NVIDIA-Linux-aarch64-") == 40
    assert all(f'"{url}"'.encode() in data for url in urls)


@recorded
def test_branch_515_is_not_listed_newest_first_and_is_sorted_by_number_all_the_same() -> None:
    data = real("datacenter-releases/filtered_releases.json")
    as_listed = [entry["release_version"] for entry in json.loads(data)["515"]["driver_info"]]
    assert as_listed[-2:] == ["515.48.07", "515.65.01"]
    branch = feeds.parse_data_centre(data, URL).branches[-1]
    assert [r.version for r in branch.releases][-2:] == ["515.65.01", "515.48.07"]


@recorded
def test_535_104_12_has_a_run_file_for_ppc64le_that_its_architectures_lack_and_is_of_the_two_that_count() -> None:
    data = real("datacenter-releases/filtered_releases.json")
    entry = next(e for e in json.loads(data)["535"]["driver_info"] if e["release_version"] == "535.104.12")
    assert "ppc64le" in entry["runfile_url"]
    assert "ppc64le" not in entry["architectures"]
    branch = feeds.parse_data_centre(data, URL).branches[1]
    found = next(r for r in branch.releases if r.version == "535.104.12")
    assert sorted(found.runfiles) == ["amd64", "arm64"]


def test_the_newest_is_the_highest_number_and_not_the_highest_string() -> None:
    assert versions(feed(release("535.54.03"), release("535.104.05"))) == ["535.104.05", "535.54.03"]
    assert versions(feed(release("595.84.01"), release("595.84"), branch="595")) == ["595.84.01", "595.84"]
    assert versions(feed(release("550.90.07"), release("550.163.01"), branch="550")) == ["550.163.01", "550.90.07"]


def test_the_exact_text_of_a_version_is_kept() -> None:
    assert versions(feed(release("550.127.05"), branch="550")) == ["550.127.05"]


def test_an_unknown_type_of_branch_is_kept_with_a_warning() -> None:
    read = feeds.parse_data_centre(feed(release("700.10.01"), branch="700", kind="agentic branch"), URL)
    assert read.branches[0].type == "agentic branch"
    assert read.warnings == (f"{URL}: branch 700 has the unknown type 'agentic branch'",)


def test_the_architectures_are_those_of_the_run_files() -> None:
    read = feeds.parse_data_centre(feed(release("535.54.03", "aarch64", "ppc64le", architectures=["x86_64"])), URL)
    assert read.branches[0].releases[0].runfiles == {"arm64": runfile("535.54.03", "aarch64")}


def test_a_driver_for_ppc64le_alone_is_skipped_and_counted() -> None:
    read = feeds.parse_data_centre(feed(release("535.54.03"), release("535.86.10", "ppc64le")), URL)
    assert [r.version for r in read.branches[0].releases] == ["535.54.03"]
    assert read.warnings == (f"{URL}: 1 skipped, no run file for amd64 or arm64: 535.86.10",)


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/tesla/535.54.03/NVIDIA-Linux-x86_64-535.54.03.run",
        "http://us.download.nvidia.com/tesla/535.54.03/NVIDIA-Linux-x86_64-535.54.03.run",
        "https://us.download.nvidia.com/tesla/535.54.03/NVIDIA-Linux-x86_64-535.104.05.run",
        "https://evil.example/.nvidia.com/NVIDIA-Linux-x86_64-535.54.03.run",
    ],
)
def test_a_run_file_elsewhere_or_of_another_version_is_skipped_and_counted(address: str) -> None:
    good, bad = release("535.104.05"), release("535.54.03")
    bad["runfile_url"] = {"x86_64": address}
    read = feeds.parse_data_centre(feed(good, bad), URL)
    assert [r.version for r in read.branches[0].releases] == ["535.104.05"]
    assert any("not NVIDIA's address" in warning for warning in read.warnings)


def test_a_version_of_another_branch_is_skipped_and_counted() -> None:
    read = feeds.parse_data_centre(feed(release("535.54.03"), release("550.54.15")), URL)
    assert read.warnings == (f"{URL}: 1 skipped, not a version of branch 535: 550.54.15",)


@pytest.mark.parametrize("text", ["$(reboot)", "../../x", "535.54.3", "535", "535.54.03\n", "٥٣٥.54.03", ""])
def test_a_version_that_is_none_refuses_the_feed_by_its_address(text: str) -> None:
    with pytest.raises(UpstreamDataError, match=r"feed\.example"):
        feeds.parse_data_centre(feed(release("535.104.05"), release(text)), URL)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"<html>login</html>",
        b'{"535": {"type": "lts branch", "driver_info": []}}',
        b'{"535": {"type": "lts branch", "driver_info": [{"release_version": 535}]}}',
        feed(release("535.54.03"))[:-9],
        b'{"535": {"type": "lts branch", "driver_info": []}, "535": {"type": "lts branch", "driver_info": []}}',
    ],
)
def test_what_is_not_the_feed_is_an_error_and_never_an_empty_list(data: bytes) -> None:
    with pytest.raises(UpstreamDataError, match=r"feed\.example"):
        feeds.parse_data_centre(data, URL)


# latest.txt


@recorded
def test_the_quoted_latest_txt_names_550_120_though_560_was_out() -> None:
    assert feeds.parse_latest(real("latest-txt/latest.txt.quoted-550.120"), LATEST) == "550.120"


def test_latest_txt_of_arm64_names_a_run_file_for_aarch64() -> None:
    url = feeds.latest_url("arm64")
    assert url == "https://download.nvidia.com/XFree86/Linux-aarch64/latest.txt"
    assert feeds.parse_latest(b"550.120 550.120/NVIDIA-Linux-aarch64-550.120.run\n", url) == "550.120"
    with pytest.raises(UpstreamDataError, match=r"latest\.txt"):
        feeds.parse_latest(b"550.120 550.120/NVIDIA-Linux-x86_64-550.120.run\n", url)


@pytest.mark.parametrize(
    "text",
    [
        "550.120",
        "550.120 560.35.03/NVIDIA-Linux-x86_64-560.35.03.run",
        "550.120 ../../NVIDIA-Linux-x86_64-550.120.run",
        "550.120 550.120/NVIDIA-Linux-x86_64-550.120.run\n560.35.03 560.35.03/NVIDIA-Linux-x86_64-560.35.03.run",
        "<html>550.120</html>",
        "",
    ],
)
def test_anything_but_one_line_for_one_driver_is_refused(text: str) -> None:
    with pytest.raises(UpstreamDataError, match=r"latest\.txt"):
        feeds.parse_latest(text.encode(), LATEST)


# The unofficial list


@recorded
def test_the_recorded_unofficial_lists_are_read_whole() -> None:
    new = feeds.parse_unofficial(real("versions/nvidia-versions.txt"), URL)
    old = feeds.parse_unofficial(real("versions/nvidia-versions.4f966a1.txt"), URL)
    assert (len(new.hints), new.warnings, len(old.hints), old.warnings) == (11, (), 7, ())
    assert new.hints[0] == feeds.Hint(branch="current", maturity="long-lived-branch-release", version="595.71.05")
    assert new.hints[-1] == feeds.Hint(branch="71.86", maturity="official", version="71.86.15")
    assert [h.version for h in old.hints if h.branch == "173.14"] == ["173.14.39"]


@recorded
def test_official_may_be_below_long_lived_and_470_lags_so_the_list_is_a_hint() -> None:
    hints = feeds.parse_unofficial(real("versions/nvidia-versions.txt"), URL).hints
    current = {hint.maturity: hint.version for hint in hints if hint.branch == "current"}
    assert DriverVersion(current["official"]) < DriverVersion(current["long-lived-branch-release"])
    of_470 = next(hint.version for hint in hints if hint.branch == "470")
    assert DriverVersion(of_470) < DriverVersion("470.256.02")


@recorded
def test_every_line_that_the_unofficial_list_ever_had_is_understood() -> None:
    with (RECORDED / "versions/nvidia-versions-history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    text = "".join(f"{row['branch']} {row['maturity']} {row['version']}\n" for row in rows)
    read = feeds.parse_unofficial(text.encode(), URL)
    assert (len(rows), len(read.hints), read.warnings) == (531, 531, ())


@recorded
def test_every_tag_of_the_open_modules_is_a_version_and_betas_sort_in_between() -> None:
    tags = (RECORDED / "versions/open-gpu-kernel-modules-tags.txt").read_text().split()
    ordered = sorted(map(DriverVersion, tags))
    assert (len(ordered), ordered[0].text, ordered[-1].text) == (193, "515.43.04", "595.45.04")
    assert DriverVersion("595.44.03") < DriverVersion("595.45.04")


def test_columns_and_branches_and_maturities_may_be_added() -> None:
    read = feeds.parse_unofficial(b"# c\n\nopengl5.0 official 700.10 2027-01-01 x\n700 stable 700.12\n", URL)
    assert [(h.branch, h.maturity, h.version) for h in read.hints] == [
        ("700", "stable", "700.12"),
        ("opengl5.0", "official", "700.10"),
    ]
    assert read.warnings == (f"{URL}: branch 700 has the unknown maturity 'stable'",)


def test_a_short_line_is_skipped_and_counted_and_a_list_without_a_line_is_an_error() -> None:
    read = feeds.parse_unofficial(b"580 official 580.95.05\n580 official\n", URL)
    assert read.warnings == (f"{URL}: 1 skipped, not 'branch maturity version': 580 official",)
    for data in (b"", b"# nothing\n", b"<html>\n"):
        with pytest.raises(UpstreamDataError, match=r"feed\.example"):
            feeds.parse_unofficial(data, URL)


# endoflife.date


@recorded
def test_the_recorded_newest_versions_are_those_of_linux() -> None:
    data = real("eol/endoflife-release-data-nvidia-driver.json")
    read = feeds.parse_newest(data, URL)
    names = list(json.loads(data)["releases"])
    assert len(read.branches) == sum(name.endswith("-linux") for name in names) == 19
    assert read.branches["580"] == ("580.178.04", "2026-08-03")
    assert read.branches["535"] == ("535.309.01", "2026-04-28")
    assert next(iter(read.branches)) == "610"
    assert read.warnings == ()


@recorded
def test_windows_numbers_of_a_branch_are_others_and_never_taken() -> None:
    data = real("eol/endoflife-release-data-nvidia-driver.json")
    assert b'"latest": "596.86"' in data
    assert "596.86" not in [latest for latest, _ in feeds.parse_newest(data, URL).branches.values()]


def test_end_of_life_is_a_day_or_known_without_one() -> None:
    table = [
        {"cycle": "r580-linux", "eol": "2028-08-04", "lts": True, "latest": "580.178.04"},
        {"cycle": "r570-linux", "eol": True},
        {"cycle": "r610-linux", "eol": False},
        {"cycle": "r610-windows", "eol": False},
        {"cycle": "titan", "eol": False},
    ]
    read = feeds.parse_end_of_life(json.dumps(table).encode(), URL)
    assert read.branches == {"610": False, "580": datetime.date(2028, 8, 4), "570": True}
    assert read.warnings == (f"{URL}: 1 skipped, not a branch for Linux: titan",)


@pytest.mark.parametrize("data", [b"[]", b"{}", b'[{"cycle": "r580-linux", "eol": "soon"}]', b"null", b"\xff"])
def test_another_table_is_an_error(data: bytes) -> None:
    with pytest.raises(UpstreamDataError, match=r"feed\.example"):
        feeds.parse_end_of_life(data, URL)
    with pytest.raises(UpstreamDataError, match=r"feed\.example"):
        feeds.parse_newest(data, URL)


# No crash

PARSERS: list[Callable[[bytes, str], object]] = [
    feeds.parse_data_centre,
    feeds.parse_latest,
    feeds.parse_unofficial,
    feeds.parse_newest,
    feeds.parse_end_of_life,
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()), st.sampled_from(PARSERS))
def test_no_bytes_raise_anything_but_our_own_error(data: bytes, parser: Callable[[bytes, str], object]) -> None:
    try:
        parser(data, LATEST)
    except UpstreamDataError as error:
        assert LATEST in str(error)


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=12), JSON)
def test_no_field_of_the_data_centre_feed_raises_anything_but_our_own_error(
    version: str, branch: str, date: str, urls: object
) -> None:
    entry = {"release_version": version, "release_date": date, "runfile_url": urls}
    try:
        feeds.parse_data_centre(feed(entry, release("535.54.03"), branch=branch), URL)
    except UpstreamDataError as error:
        assert URL in str(error)
