"""Fedora CoreOS: recorded metadata with exact counts, and every trap met in it, by name.

REAL files are bytes as the project publishes them; FIXTURE files are other projects' test data; a QUOTATION repeats one
entry that a public script quotes; everything else here is synthetic.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.source_policy import FedoraCoreOS
from pipeline.core.errors import NetworkError, NotFoundError, UpstreamDataError
from pipeline.upstream.coreos import fedora_coreos as fcos
from pipeline.upstream.coreos import fedora_kernel
from pipeline.upstream.records import Discovery, ReleaseKey

RECORDED = Path(__file__).parents[4] / "shared" / "upstream"
recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded upstream metadata is not beside this checkout")
URL = "https://feed.example/x.json"
LINUX = "6.17.7-300.fc43.x86_64"
QUOTATION = ["kernel", "0", "5.11.15", "300.fc34", "x86_64"]
OTHERS = [["kernel-core", "0", "9.9.9", "1.fc34", "x86_64"], ["bash", "0", "5.2", "1.fc34", "x86_64"]]


def real(name: str) -> bytes:
    return (RECORDED / "fcos" / name).read_bytes()


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


class Server:
    """Answers from a table and notes what was asked."""

    def __init__(self, files: dict[str, bytes | Exception]) -> None:
        self.files = files
        self.asked: list[tuple[str, bool]] = []

    def __call__(self, url: str, immutable: bool) -> bytes:
        self.asked.append((url, immutable))
        answer = self.files.get(url, NotFoundError(f"{url}: 404"))
        if isinstance(answer, Exception):
            raise answer
        return answer


def stream_file(version: str, *arches: str, stream: str = "stable") -> bytes:
    metal = {"artifacts": {"metal": {"release": version}, "qemu": {"release": "1.20200101.3.0"}}}
    return as_json({"stream": stream, "architectures": dict.fromkeys(arches, metal)})


def updates_file(*releases: tuple[str, str], stream: str = "stable") -> bytes:
    marks = {"rollout": {"start_percentage": 1.0}, "barrier": {"reason": "b"}, "deadend": {"reason": "d"}}
    return as_json({"stream": stream, "releases": [{"version": v, "metadata": {m: marks[m]}} for v, m in releases]})


def index_file(releases: dict[str, list[str]], stream: str = "stable") -> bytes:
    entries = [{"version": v, "commits": [{"architecture": a} for a in arches]} for v, arches in releases.items()]
    return as_json({"stream": stream, "releases": entries})


def synthetic_server(**changed: bytes | Exception) -> Server:
    """One stream: four releases, the last two rolling out, the oldest a barrier."""
    versions = ["43.20260101.3.0", "44.20260201.3.0", "44.20260301.3.0", "44.20260401.3.0"]
    both = ["x86_64", "aarch64", "s390x"]
    files: dict[str, bytes | Exception] = {
        fcos.stream_url("stable"): stream_file(versions[3], *both),
        fcos.updates_url("stable"): updates_file((versions[0], "barrier"), (versions[2], "rollout"), (versions[3], "rollout")),
        fcos.releases_url("stable"): index_file(dict.fromkeys(versions, both)),
    }
    for version in versions:
        for arch, rpm in (("amd64", "x86_64"), ("arm64", "aarch64")):
            files[fcos.commitmeta_url("stable", version, arch)] = as_json(  # type: ignore[arg-type]
                {"ostree.linux": f"6.{version[7]}.{version[8]}-200.fc44.{rpm}"}
            )
    names = {"stream": fcos.stream_url, "updates": fcos.updates_url, "index": fcos.releases_url}
    return Server(files | {names[name]("stable"): value for name, value in changed.items()})


def run(server: Server, known: dict[ReleaseKey, str] | None = None, **policy: object) -> Discovery:
    return fcos.discover(server, msgspec.convert({"streams": ["stable"], **policy}, FedoraCoreOS), known or {})


def versions(found: Discovery, arch: str = "amd64") -> list[str]:
    return [release.version for release in found.releases if release.arch == arch]


# --- recorded files -------------------------------------------------------------------------------------------------


@recorded
@pytest.mark.parametrize(
    ("name", "stream", "current"),
    [
        ("streams/stable.json", "stable", {"amd64": "44.20260707.3.1", "arm64": "44.20260707.3.1"}),
        ("streams/testing.json", "testing", {"amd64": "44.20260720.2.1", "arm64": "44.20260720.2.1"}),
        ("streams/next.json", "next", {"amd64": "44.20260720.1.1", "arm64": "44.20260720.1.1"}),
        ("history/2020-02-15.streams.stable.json", "stable", {"amd64": "31.20200127.3.0"}),
        ("history/2021-11-10.streams.stable.json", "stable", {"amd64": "34.20211031.3.0", "arm64": "34.20211031.3.0"}),
        ("history/2023-03-25.streams.stable.json", "stable", {"amd64": "37.20230303.3.0", "arm64": "37.20230303.3.0"}),
        ("streams/fcos-stream-fixture.json", "stable", {"amd64": "33.20201201.3.0"}),
        ("schema/tracker-stream-sample.json", "stable", {"amd64": "33.20210412.3.0"}),
    ],
)
def test_real_stream_metadata_gives_the_current_release_of_each_arch(name: str, stream: str, current: dict[str, str]) -> None:
    assert fcos.parse_stream(real(name), URL, stream) == current


@recorded
@pytest.mark.parametrize(
    ("name", "stream", "rollouts", "barriers", "deadends"),
    [
        ("updates/stable.json", "stable", ("44.20260621.3.1", "44.20260707.3.1"), 19, []),
        ("updates/testing.json", "testing", ("44.20260707.2.1", "44.20260720.2.1"), 20, ["30.20190716.1"]),
        ("updates/next.json", "next", ("44.20260707.1.1", "44.20260720.1.1"), 18, ["38.20230310.1.0"]),
        ("history/2020-02-15.updates.stable.json", "stable", ("31.20200118.3.0", "31.20200127.3.0"), 0, []),
        ("history/2021-11-10.updates.stable.json", "stable", ("34.20211016.3.0", "34.20211031.3.0"), 5, []),
        ("history/2023-03-25.updates.stable.json", "stable", ("37.20230218.3.0", "37.20230303.3.0"), 8, []),
        ("schema/tracker-updates-sample.json", "testing", ("30.20190905.0",), 0, ["30.20190716.1"]),
    ],
)
def test_real_update_metadata_gives_both_rollouts_the_barriers_and_the_deadends(
    name: str, stream: str, rollouts: tuple[str, ...], barriers: int, deadends: list[str]
) -> None:
    updates = fcos.parse_updates(real(name), URL, stream)
    assert updates.rollouts == rollouts
    assert len(updates.barriers) == barriers
    assert list(updates.deadends) == deadends
    assert all(reason.startswith("https://") for reason in (updates.barriers | updates.deadends).values())


@recorded
@pytest.mark.parametrize(
    ("name", "stream", "count", "arm64"),
    [
        ("release/stream-generator-releases.json", "stable", 51, 5),
        ("release/fcos-releases.json", "stable", 26, 0),
        ("schema/tracker-release-index-sample.json", "testing", 2, 0),
    ],
)
def test_release_index_fixtures_give_each_release_with_its_own_arches(name: str, stream: str, count: int, arm64: int) -> None:
    index = fcos.parse_index(real(name), URL, stream)
    assert len(index.arches) == count
    assert sum("arm64" in arches for arches in index.arches.values()) == arm64
    assert all("amd64" in arches for arches in index.arches.values())
    assert index.warnings == ()


@recorded
def test_index_fixture_holds_one_container_image_by_digest() -> None:
    images = fcos.parse_index(real("release/fcos-releases.json"), URL, "stable").images
    assert list(images) == [("31.20200108.3.0", "amd64")]
    assert images["31.20200108.3.0", "amd64"].startswith("quay.io/fedora/fedora-coreos@sha256:46057693")


@recorded
def test_index_fixture_agrees_with_every_release_seen_in_the_history_of_the_streams() -> None:
    with (RECORDED / "fcos/history/releases-seen.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    index = fcos.parse_index(real("release/stream-generator-releases.json"), URL, "stable")
    seen = {r["release"] for r in rows if r["stream"] == "stable" and r["arch"] == "x86_64"}
    until = {v for v in seen if v <= "34.20211016.3.0"}
    assert len(until) == 51
    assert until == set(index.arches)
    arm = {r["release"] for r in rows if r["stream"] == "stable" and r["arch"] == "aarch64"} & until
    assert len(arm) == 5
    assert arm == {v for v, arches in index.arches.items() if "arm64" in arches}
    for stream in ("stable", "testing", "next"):
        current = fcos.parse_stream(real(f"streams/{stream}.json"), URL, stream)
        latest = {r["arch"]: r["release"] for r in rows if r["stream"] == stream}
        assert current == {"amd64": latest["x86_64"], "arm64": latest["aarch64"]}


@recorded
@pytest.mark.parametrize(
    ("branch", "kernel"),
    [
        ("stable", "6.10.12-200.fc40"),
        ("testing", "6.11.3-200.fc40"),
        ("next", "6.11.3-300.fc41"),
        ("testing-devel", "6.11.4-201.fc40"),
    ],
)
def test_real_lockfile_gives_the_kernel_of_the_next_build(branch: str, kernel: str) -> None:
    for arch, rpm in (("amd64", "x86_64"), ("arm64", "aarch64")):
        data = real(f"config-lockfiles/{branch}.manifest-lock.{rpm}.json")
        assert fedora_kernel.parse_lockfile(data, URL, arch) == f"{kernel}.{rpm}"  # type: ignore[arg-type]


@recorded
def test_every_kernel_of_the_lockfiles_history_splits_and_joins() -> None:
    with (RECORDED / "fcos/config-lockfiles/kernel-history.csv").open(newline="") as lines:
        kernels = [row["kernel"] for row in csv.DictReader(lines)]
    assert len(kernels) == 695
    for kernel in kernels:
        version, release, arch = fedora_kernel.split(kernel)
        assert f"{version}-{release}.{arch}" == kernel
        assert arch in ("x86_64", "aarch64")
        assert ".fc" in release
        assert "-" not in version


@recorded
def test_release_json_and_meta_json_fixtures_are_refused_as_an_index() -> None:
    for name in (
        "release/fcos-release.json",
        "builds/meta.json",
        "builds/rhcos-meta.json",
        "cincinnati/graph-response.json",
    ):
        with pytest.raises(UpstreamDataError, match=r"feed\.example"):
            fcos.parse_index(real(name), URL, "stable")


@recorded
def test_real_streams_and_updates_with_a_synthetic_index_give_both_releases_of_the_rollout_and_not_the_deadend() -> None:
    server = Server(
        {
            fcos.stream_url("next"): real("streams/next.json"),
            fcos.updates_url("next"): real("updates/next.json"),
            fcos.releases_url("next"): index_file(
                {
                    "38.20230310.1.0": ["x86_64", "aarch64"],
                    "37.20230303.1.1": ["x86_64", "aarch64"],
                    "44.20260707.1.1": ["x86_64", "aarch64"],
                    "44.20260720.1.1": ["x86_64", "aarch64"],
                },
                "next",
            ),
        }
    )
    found = run(server, streams=["next"], keep=9)
    assert versions(found) == ["37.20230303.1.1", "44.20260707.1.1", "44.20260720.1.1"]
    states = {r.version: r.state for r in found.releases}
    assert states["44.20260707.1.1"] == {"rollout"}
    assert states["44.20260720.1.1"] == {"rollout", "current"}
    assert states["37.20230303.1.1"] == {"barrier", "superseded"}


# --- the kernel of a build ------------------------------------------------------------------------------------------


def test_kernel_from_the_quoted_package_entry() -> None:
    data = as_json({"rpmostree.rpmdb.pkglist": [*OTHERS, QUOTATION]})
    assert fcos.parse_commitmeta(data, URL, "34.20210503.3.0", "amd64") == "5.11.15-300.fc34.x86_64"


def test_only_the_package_named_exactly_kernel_counts() -> None:
    with pytest.raises(UpstreamDataError, match="0 packages named kernel"):
        fcos.parse_commitmeta(as_json({"rpmostree.rpmdb.pkglist": OTHERS}), URL, "v", "amd64")


def test_the_epoch_is_kept_out_of_the_kernel() -> None:
    for epoch in ("7", 7, None):
        data = as_json({"rpmostree.rpmdb.pkglist": [["kernel", epoch, "6.17.7", "300.fc43", "x86_64"]]})
        assert fcos.parse_commitmeta(data, URL, "v", "amd64") == LINUX


def test_ostree_linux_alone_and_both_in_agreement_give_the_kernel() -> None:
    entry = ["kernel", "0", "6.17.7", "300.fc43", "x86_64"]
    assert fcos.parse_commitmeta(as_json({"ostree.linux": LINUX}), URL, "v", "amd64") == LINUX
    both = as_json({"ostree.linux": LINUX, "rpmostree.rpmdb.pkglist": [entry]})
    assert fcos.parse_commitmeta(both, URL, "v", "amd64") == LINUX


def test_ostree_linux_and_package_list_that_differ_fail_loudly() -> None:
    data = as_json({"ostree.linux": LINUX, "rpmostree.rpmdb.pkglist": [QUOTATION]})
    with pytest.raises(UpstreamDataError, match=r"differ: 5\.11\.15-300\.fc34\.x86_64, 6\.17\.7-300"):
        fcos.parse_commitmeta(data, URL, "v", "amd64")


def test_two_kernels_in_one_package_list_fail_loudly() -> None:
    data = as_json({"rpmostree.rpmdb.pkglist": [QUOTATION, ["kernel", "0", "6.1.1", "1.fc34", "x86_64"]]})
    with pytest.raises(UpstreamDataError, match="2 packages named kernel"):
        fcos.parse_commitmeta(data, URL, "v", "amd64")


def test_commitmeta_of_another_release_or_architecture_is_refused() -> None:
    with pytest.raises(UpstreamDataError, match="release 1, not 2"):
        fcos.parse_commitmeta(as_json({"version": "1", "ostree.linux": LINUX}), URL, "2", "amd64")
    data = as_json({"coreos-assembler.basearch": "s390x", "ostree.linux": LINUX})
    with pytest.raises(UpstreamDataError, match="basearch s390x"):
        fcos.parse_commitmeta(data, URL, "2", "amd64")
    with pytest.raises(UpstreamDataError, match="not one for aarch64"):
        fcos.parse_commitmeta(as_json({"ostree.linux": LINUX}), URL, "2", "arm64")


@pytest.mark.parametrize(
    "name", ["$(reboot)", "../../x", "6.17.7-$(reboot).fc43.x86_64", "6.17.7-300.fc43.x86_64\n", "6.1.0-50-amd64", ""]
)
def test_a_kernel_that_is_a_command_or_a_path_is_refused(name: str) -> None:
    with pytest.raises(UpstreamDataError, match=r"feed\.example"):
        fcos.parse_commitmeta(as_json({"ostree.linux": name}), URL, "v", "amd64")
    with pytest.raises(UpstreamDataError):
        fedora_kernel.parse_lockfile(as_json({"packages": {"kernel": {"evra": name}}}), URL, "amd64")


def test_rpm_query_inside_the_image_gives_the_kernel() -> None:
    assert fcos.kernel_from_rpm_query("kernel-6.17.7-300.fc43.x86_64\n", "amd64", "image") == LINUX


@pytest.mark.parametrize(
    "text",
    [
        "",
        "package kernel is not installed\n",
        "kernel-6.17.7-300.fc43.x86_64\nkernel-6.17.8-300.fc43.x86_64\n",
        "kernel-core-6.17.7-300.fc43.x86_64\n",
        "kernel-6.17.7-300.fc43.aarch64\n",
        "kernel-$(reboot)\n",
    ],
)
def test_rpm_query_with_no_or_several_kernels_is_an_error(text: str) -> None:
    with pytest.raises(UpstreamDataError, match="image"):
        fcos.kernel_from_rpm_query(text, "amd64", "image")


def test_kernel_string_with_two_arch_like_tails_splits_at_first_dash_and_last_dot() -> None:
    assert fedora_kernel.split(LINUX) == ("6.17.7", "300.fc43", "x86_64")
    assert fedora_kernel.split("6.14.0-63.fc42.aarch64") == ("6.14.0", "63.fc42", "aarch64")
    candidate = "6.15.0-0.rc3.20250424gita79be02bba5c.31.fc43.x86_64"
    assert fedora_kernel.split(candidate) == ("6.15.0", "0.rc3.20250424gita79be02bba5c.31.fc43", "x86_64")


def test_kernel_rpm_urls_are_koji_then_updates_releases_and_the_archive() -> None:
    assert fcos.kernel_rpm_urls("6.14.0-63.fc42.aarch64", "kernel-modules-extra") == (
        (
            "https://kojipkgs.fedoraproject.org/packages/kernel/6.14.0/63.fc42/aarch64/"
            "kernel-modules-extra-6.14.0-63.fc42.aarch64.rpm"
        ),
        (
            "https://dl.fedoraproject.org/pub/fedora/linux/updates/42/Everything/aarch64/Packages/k/"
            "kernel-modules-extra-6.14.0-63.fc42.aarch64.rpm"
        ),
        (
            "https://dl.fedoraproject.org/pub/fedora/linux/releases/42/Everything/aarch64/os/Packages/k/"
            "kernel-modules-extra-6.14.0-63.fc42.aarch64.rpm"
        ),
        (
            "https://fedoraproject-updates-archive.fedoraproject.org/fedora/42/aarch64/"
            "kernel-modules-extra-6.14.0-63.fc42.aarch64.rpm"
        ),
    )
    assert "6.12.15/200.fc41/x86_64/kernel-devel-6.12.15" in fcos.kernel_rpm_urls("6.12.15-200.fc41.x86_64")[0]


@recorded
def test_kernel_rpm_urls_end_like_the_real_header_urls_of_kernel_crawler() -> None:
    count = 0
    for arch in ("x86_64", "aarch64"):
        document = json.loads((RECORDED / f"kernel-crawler/list-{arch}.fedora-flatcar-centos.json").read_bytes())
        for entry in document["Fedora"]:
            tail = entry["headers"][0].partition("/fedora/")[2]
            assert any(url.endswith(f"/{tail}") for url in fcos.kernel_rpm_urls(entry["kernelrelease"]))
            count += 1
    assert count == 12


# --- traps of the feeds ---------------------------------------------------------------------------------------------


def test_the_current_release_is_read_from_the_metal_platform() -> None:
    assert fcos.parse_stream(stream_file("44.20260401.3.0", "x86_64"), URL, "stable") == {"amd64": "44.20260401.3.0"}


def test_arches_come_from_oci_images_where_commits_are_left_out_and_differ_per_release() -> None:
    digest = "quay.io/fedora/fedora-coreos@sha256:" + "a" * 64
    data = as_json(
        {
            "stream": "stable",
            "releases": [
                {"version": "34.20210101.3.0", "commits": [{"architecture": "x86_64"}]},
                {"version": "44.20260101.3.0", "oci-images": [{"architecture": "aarch64", "digest-ref": digest}]},
                {"version": "44.20260102.3.0", "commits": None},
                {"version": "44.20260103.3.0", "commits": [{"architecture": "riscv64"}, {"architecture": "s390x"}]},
            ],
        }
    )
    index = fcos.parse_index(data, URL, "stable")
    assert index.arches["34.20210101.3.0"] == {"amd64"}
    assert index.arches["44.20260101.3.0"] == {"arm64"}
    assert index.images == {("44.20260101.3.0", "arm64"): digest}
    assert index.warnings == (
        f"{URL}: 1 skipped, no architecture named: 44.20260102.3.0",
        f"{URL}: 1 skipped, unknown architecture: 44.20260103.3.0 riscv64",
    )


def test_a_container_image_of_another_repository_is_not_taken() -> None:
    foreign = {"architecture": "x86_64", "digest-ref": "evil.example/fedora-coreos@sha256:" + "a" * 64}
    data = as_json({"stream": "stable", "releases": [{"version": "44.20260101.3.0", "oci-images": [foreign]}]})
    index = fcos.parse_index(data, URL, "stable")
    assert index.images == {}
    assert "1 skipped, an image that is not of quay.io/fedora/fedora-coreos" in index.warnings[0]


def test_both_releases_of_a_rollout_in_progress_are_wanted_even_when_nothing_else_is_kept() -> None:
    found = run(synthetic_server(), keep=0)
    assert versions(found) == versions(found, "arm64") == ["44.20260301.3.0", "44.20260401.3.0"]
    assert found.problems == ()
    assert found.warnings == ()


def test_a_deadend_is_never_a_target_even_when_it_is_the_newest_or_the_current_release() -> None:
    updates = updates_file(("44.20260301.3.0", "rollout"), ("44.20260401.3.0", "deadend"))
    found = run(synthetic_server(updates=updates), keep=9, since="2020-01-01", barriers=True)
    assert versions(found) == ["43.20260101.3.0", "44.20260201.3.0", "44.20260301.3.0"]
    assert any("the current release 44.20260401.3.0 is a deadend: d" in line for line in found.warnings)


def test_barriers_are_wanted_only_when_policy_says_so() -> None:
    assert "43.20260101.3.0" not in versions(run(synthetic_server(), keep=1))
    found = run(synthetic_server(), keep=1, barriers=True)
    assert versions(found) == ["43.20260101.3.0", "44.20260301.3.0", "44.20260401.3.0"]


def test_keep_counts_the_newest_of_each_architecture_and_since_adds_what_is_younger() -> None:
    index = {"43.20260101.3.0": ["x86_64", "aarch64"], "44.20260201.3.0": ["x86_64"], "44.20260401.3.0": ["x86_64"]}
    server = synthetic_server(index=index_file(index), stream=stream_file("44.20260401.3.0", "x86_64"))
    found = run(server, keep=1)
    assert versions(found) == ["44.20260401.3.0"]
    assert versions(found, "arm64") == ["43.20260101.3.0"]
    assert versions(run(server, keep=0, since="2026-02-01")) == ["44.20260201.3.0", "44.20260401.3.0"]
    assert run(server, keep=0, since=date(2026, 2, 1)) == run(server, keep=0, since="2026-02-01")


def test_releases_are_ordered_by_number_and_respins_are_releases_of_their_own() -> None:
    names = ["44.20260101.3.10", "44.20260101.3.9", "44.20260101.3.2"]
    server = synthetic_server(
        index=index_file({v: ["x86_64"] for v in names}),
        stream=stream_file(names[0], "x86_64"),
        updates=updates_file((names[0], "rollout")),
    )
    assert versions(run(server, keep=2, arches=["amd64"])) == ["44.20260101.3.9", "44.20260101.3.10"]


def test_a_release_that_vanished_from_updates_is_still_known_from_the_index() -> None:
    found = run(synthetic_server(updates=updates_file(("44.20260401.3.0", "rollout"))), keep=3)
    assert versions(found) == ["44.20260201.3.0", "44.20260301.3.0", "44.20260401.3.0"]


@pytest.mark.parametrize(
    "answer",
    [NotFoundError("404"), NetworkError("500"), b'{"releases": []}', b"<html>404</html>", b"[]", b'{"stream":'],
)
def test_an_index_that_is_missing_or_has_a_new_shape_is_a_problem_and_not_no_releases(
    answer: bytes | Exception,
) -> None:
    found = run(synthetic_server(index=answer))
    assert [(p.os, p.channel, p.url) for p in found.problems] == [("fedora-coreos", "stable", fcos.releases_url("stable"))]
    assert versions(found) == ["44.20260401.3.0"]


def test_without_update_metadata_only_the_current_release_is_taken_as_deadends_cannot_be_told() -> None:
    found = run(synthetic_server(updates=NetworkError("503")), keep=9)
    assert versions(found) == ["44.20260401.3.0"]
    assert len(found.problems) == 1


def test_without_stream_metadata_index_and_updates_still_count() -> None:
    found = run(synthetic_server(stream=NetworkError("503")), keep=0)
    assert versions(found) == ["44.20260301.3.0", "44.20260401.3.0"]
    assert len(found.problems) == 1


def test_missing_commitmeta_leaves_the_kernel_to_the_rpm_database_of_the_image() -> None:
    server = synthetic_server()
    digest = "quay.io/fedora/fedora-coreos@sha256:" + "b" * 64
    index = json.loads(server.files[fcos.releases_url("stable")])  # type: ignore[arg-type]
    index["releases"][2]["oci-images"] = [{"architecture": "x86_64", "digest-ref": digest}]
    server.files[fcos.releases_url("stable")] = as_json(index)
    for version in ("44.20260201.3.0", "44.20260301.3.0", "44.20260401.3.0"):
        del server.files[fcos.commitmeta_url("stable", version, "amd64")]
    found = run(server, arches=["amd64"])
    assert [(r.kernel, r.need, r.image) for r in found.releases] == [
        (None, "rpmdb", None),
        (None, "rpmdb", digest),
        (None, "rpmdb", "quay.io/fedora/fedora-coreos:stable"),
    ]
    (warning,) = found.warnings
    assert warning.endswith("44.20260201.3.0 x86_64, 44.20260301.3.0 x86_64, 44.20260401.3.0 x86_64")
    assert found.problems == ()


def test_commitmeta_without_either_field_also_leaves_the_kernel_to_the_image() -> None:
    server = synthetic_server()
    server.files[fcos.commitmeta_url("stable", "44.20260401.3.0", "amd64")] = b'{"ostree.bootable": true}'
    assert [r.need for r in run(server, keep=1, arches=["amd64"]).releases] == [None, "rpmdb"]


def test_a_build_server_that_does_not_answer_is_a_problem_and_is_asked_again() -> None:
    server = synthetic_server()
    url = fcos.commitmeta_url("stable", "44.20260401.3.0", "amd64")
    server.files[url] = NetworkError("timed out")
    found = run(server, keep=1, arches=["amd64"])
    assert [(r.kernel, r.need) for r in found.releases] == [("6.0.3-200.fc44.x86_64", None), (None, "retry")]
    assert [p.url for p in found.problems] == [url]


def test_a_refresh_costs_one_request_a_feed_and_one_per_release_never_seen_before() -> None:
    server = synthetic_server()
    first = run(server)
    assert len(server.asked) == 3 + len(first.releases) == 9
    assert [immutable for _, immutable in server.asked] == [False] * 3 + [True] * 6
    known = {r.key: r.kernel for r in first.releases if r.kernel}
    server.asked.clear()
    again = run(server, known)
    assert len(server.asked) == 3
    assert [(r.key, r.kernel) for r in again.releases] == [(r.key, r.kernel) for r in first.releases]


def test_several_releases_may_share_one_kernel() -> None:
    server = synthetic_server()
    same = as_json({"ostree.linux": LINUX})
    for version in ("44.20260301.3.0", "44.20260401.3.0"):
        server.files[fcos.commitmeta_url("stable", version, "amd64")] = same
    found = run(server, keep=0, arches=["amd64"])
    assert [r.kernel for r in found.releases] == [LINUX, LINUX]
    assert found.releases[0].kernel_version == "6.17.7"
    assert found.releases[1].date == "2026-04-01T00:00:00Z"


def test_the_files_of_another_stream_are_refused() -> None:
    found = run(synthetic_server(stream=stream_file("44.20260401.1.0", "x86_64", stream="next")))
    assert "it is for stream 'next'" in found.problems[0].message


@pytest.mark.parametrize("version", ["../../x", "44.20261341.3.0", "$(reboot)", "44.20260101", "latest", "44.20260101.3.0\n"])
def test_a_release_that_is_no_version_is_refused(version: str) -> None:
    for parse, data in (
        (fcos.parse_stream, stream_file(version, "x86_64")),
        (fcos.parse_updates, updates_file((version, "rollout"))),
        (fcos.parse_index, index_file({version: ["x86_64"]})),
    ):
        with pytest.raises(UpstreamDataError, match="is not a Fedora CoreOS release"):
            parse(data, URL, "stable")


def test_a_release_that_stands_twice_in_index_or_updates_is_refused() -> None:
    twice = [{"version": "44.20260101.3.0", "commits": [{"architecture": "x86_64"}], "metadata": {}}] * 2
    for parse in (fcos.parse_index, fcos.parse_updates):
        with pytest.raises(UpstreamDataError, match="stands twice"):
            parse(as_json({"stream": "stable", "releases": twice}), URL, "stable")


def test_a_number_of_any_length_in_a_field_nobody_reads_does_no_harm() -> None:
    sound = stream_file("44.20260401.3.0", "x86_64").replace(b"{", b'{"x": ' + b"9" * 5000 + b', "y": 1e-9999, ', 1)
    assert fcos.parse_stream(sound, URL, "stable") == {"amd64": "44.20260401.3.0"}


PARSERS: list[tuple[Callable[[bytes], object], bytes]] = [
    (lambda d: fcos.parse_stream(d, URL, "stable"), stream_file("44.20260401.3.0", "x86_64")),
    (lambda d: fcos.parse_updates(d, URL, "stable"), updates_file(("44.20260401.3.0", "rollout"))),
    (lambda d: fcos.parse_index(d, URL, "stable"), index_file({"44.20260401.3.0": ["x86_64"]})),
    (lambda d: fcos.parse_commitmeta(d, URL, "v", "amd64"), as_json({"rpmostree.rpmdb.pkglist": [QUOTATION]})),
    (lambda d: fedora_kernel.parse_lockfile(d, URL, "amd64"), as_json({"packages": {"kernel": {"evra": LINUX}}})),
]


@pytest.mark.parametrize(("parse", "sound"), PARSERS)
def test_a_web_page_cut_json_twin_keys_wrong_types_and_deep_nesting_are_named_with_the_url(
    parse: Callable[[bytes], object], sound: bytes
) -> None:
    assert parse(sound)
    twin = sound.replace(b"{", b'{"x": 1, "x": 2, ', 1)
    deep = b'{"x": ' + b"[" * 100_000
    for bad in (b"", b" <!DOCTYPE html><p>", sound[:-2], twin, deep, b"null", b"[" * 5000, b"\xff\xfe{}", sound + b"x"):
        with pytest.raises(UpstreamDataError, match=r"^https://feed\.example/x\.json: "):
            parse(bad)


@pytest.mark.parametrize(("parse", "sound"), PARSERS)
def test_no_bytes_and_no_mutation_raise_anything_but_our_own_error(parse: Callable[[bytes], object], sound: bytes) -> None:
    @given(st.binary(max_size=200), st.integers(0, len(sound)), st.integers(0, 20), st.binary(max_size=8))
    def survives(noise: bytes, at: int, cut: int, put: bytes) -> None:
        for data in (noise, sound[:at] + put + sound[at + cut :]):
            try:
                parse(data)
            except UpstreamDataError as error:
                assert "\n" not in str(error)
                assert URL in str(error)

    survives()


@pytest.mark.parametrize(("parse", "sound"), PARSERS)
def test_any_json_value_in_any_place_gives_a_record_or_our_own_error(parse: Callable[[bytes], object], sound: bytes) -> None:
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
        max_leaves=6,
    )

    def places(node: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        return [path] + [p for k, v in items for p in places(v, (*path, k))]

    def put(node: object, path: tuple[str | int, ...], value: object) -> object:
        if not path:
            return value
        copy = dict(node) if isinstance(node, dict) else list(node)  # type: ignore[call-overload]
        copy[path[0]] = put(copy[path[0]], path[1:], value)
        return copy

    document = json.loads(sound)

    @given(st.sampled_from(places(document)), values)
    def survives(path: tuple[str | int, ...], value: object) -> None:
        try:
            parse(as_json(put(document, path, value)))
        except UpstreamDataError as error:
            assert URL in str(error)

    survives()


def test_policy_refuses_unknown_words() -> None:
    bads: list[dict[str, object]] = [
        {"streams": ["rawhide"]},
        {"keeps": 3},
        {"keep": -1},
        {"streams": []},
        {"since": "soon"},
    ]
    for bad in bads:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(bad, FedoraCoreOS)
