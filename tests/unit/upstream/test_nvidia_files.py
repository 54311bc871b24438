"""NVIDIA's addresses, redist manifests and checksum files.

The redist manifest is a real fragment, the ``.sha256sum`` a quotation, the Manifests are real.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import UpstreamDataError
from pipeline.core.versions import DriverVersion
from pipeline.upstream.nvidia import downloads

RECORDED = Path(__file__).parents[4] / "shared" / "upstream" / "nvidia"
recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded upstream metadata is not beside this checkout")
URL = "https://developer.download.nvidia.com/compute/cuda/redist/redistrib_12.9.1.json"
SUMS = "https://sums.example/x.run.sha256sum"
RUN = "NVIDIA-Linux-x86_64-580.159.03.run"
SHA = "32c85d99b0f640c9501f61b39ddad208fd0288d015c4fbc5fd0435c07783fa77"


def real(name: str) -> bytes:
    return (RECORDED / name).read_bytes()


def manifest(**places: Any) -> bytes:
    driver: dict[str, Any] = {"name": "NVIDIA Linux Driver", "version": "575.57.08"}
    driver |= {key.replace("linux_", "linux-"): value for key, value in places.items()}
    return json.dumps({"release_date": "2025-06-05", "release_label": "12.9.1", "nvidia_driver": driver}).encode()


def tarball(place: str, version: str = "575.57.08", **changes: Any) -> dict[str, Any]:
    path = f"nvidia_driver/{place}/nvidia_driver-{place}-{version}-archive.tar.xz"
    return {"relative_path": path, "sha256": "0" * 64, "md5": "0" * 32, "size": "471616744", **changes}


def test_the_addresses_are_nvidias() -> None:
    driver = DriverVersion("580.178.04")
    assert downloads.tesla_url(driver, "amd64") == (
        "https://us.download.nvidia.com/tesla/580.178.04/NVIDIA-Linux-x86_64-580.178.04.run"
    )
    assert downloads.xfree86_url(driver, "arm64") == (
        "https://download.nvidia.com/XFree86/Linux-aarch64/580.178.04/NVIDIA-Linux-aarch64-580.178.04.run"
    )
    assert downloads.sha256sum_url(driver, "arm64") == f"{downloads.xfree86_url(driver, 'arm64')}.sha256sum"
    assert downloads.redist_manifest_url("12.9.1") == URL


def test_leading_zeros_of_a_version_stay_in_its_addresses() -> None:
    assert "535.54.03" in downloads.tesla_url(DriverVersion("535.54.03"), "amd64")


@pytest.mark.parametrize("text", ["", "12", "../12.9", "12.9.1.json", "12.9.1\n"])
def test_a_cuda_release_that_is_none_makes_no_address(text: str) -> None:
    with pytest.raises(UpstreamDataError, match="CUDA"):
        downloads.redist_manifest_url(text)


@recorded
def test_addresses_are_those_that_the_recorded_feed_has() -> None:
    data = real("datacenter-releases/filtered_releases.json").decode()
    for arch in ("amd64", "arm64"):
        assert downloads.tesla_url(DriverVersion("535.104.12"), arch) in data


@recorded
def test_the_recorded_redist_fragment_has_both_servers() -> None:
    read = downloads.parse_redist(real("redistrib/redistrib_12.9.1.nvidia_driver-fragment.json"), URL)
    assert (read.version, read.date, sorted(read.archives)) == ("575.57.08", "2025-06-05", ["amd64", "arm64"])
    assert read.archives["amd64"].size == 471616744
    assert read.archives["arm64"].sha256 == "4a7d1accb257f2539ff7dabb02319339fc3a8db622073e5dde33a5446910346a"
    assert read.archives["arm64"].url == (
        "https://developer.download.nvidia.com/compute/cuda/redist/nvidia_driver/linux-sbsa/"
        "nvidia_driver-linux-sbsa-575.57.08-archive.tar.xz"
    )


def test_sbsa_is_arm64_on_servers_and_linux_aarch64_is_tegra() -> None:
    read = downloads.parse_redist(manifest(linux_aarch64=tarball("linux-aarch64"), linux_sbsa=tarball("linux-sbsa")), URL)
    assert list(read.archives) == ["arm64"]
    assert "sbsa" in read.archives["arm64"].url
    with pytest.raises(UpstreamDataError, match="neither"):
        downloads.parse_redist(manifest(linux_aarch64=tarball("linux-aarch64")), URL)


def test_the_size_is_a_string_there_and_a_number_here() -> None:
    with pytest.raises(UpstreamDataError, match="size"):
        downloads.parse_redist(manifest(**{"linux-x86_64": tarball("linux-x86_64", size=471616744)}), URL)
    for size in ("0", "-1", "1e9", "0x10", ""):
        with pytest.raises(UpstreamDataError, match="size"):
            downloads.parse_redist(manifest(**{"linux-x86_64": tarball("linux-x86_64", size=size)}), URL)


@pytest.mark.parametrize(
    "changes",
    [
        {"relative_path": "../../etc/passwd"},
        {"relative_path": "https://evil.example/x.tar.xz"},
        {"relative_path": "nvidia_driver/linux-x86_64/nvidia_driver-linux-x86_64-575.51.03-archive.tar.xz"},
        {"sha256": "0" * 63},
        {"sha256": None},
    ],
)
def test_a_tarball_that_is_not_that_drivers_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UpstreamDataError, match="redistrib_12"):
        downloads.parse_redist(manifest(**{"linux-x86_64": tarball("linux-x86_64", **changes)}), URL)


def test_a_manifest_without_a_driver_is_an_error() -> None:
    with pytest.raises(UpstreamDataError, match="nvidia_driver"):
        downloads.parse_redist(b'{"release_date": "2025-08-06", "cuda_cudart": {}}', URL)


# Checksum files


@recorded
def test_the_quoted_checksum_file_gives_the_sum_of_its_run_file() -> None:
    data = real("checksums/NVIDIA-Linux-x86_64-580.159.03.run.sha256sum.quoted")
    assert downloads.parse_sha256sum(data, SUMS, RUN) == SHA


@pytest.mark.parametrize("line", [f"{SHA}  {RUN}", f"{SHA} *{RUN}\n", f"{SHA.upper()}  {RUN}\r\n", f"\n{SHA}  {RUN}\n\n"])
def test_the_forms_that_sha256sum_writes_are_read(line: str) -> None:
    assert downloads.parse_sha256sum(line.encode(), SUMS, RUN) == SHA


def test_an_md5sum_is_refused_by_name() -> None:
    with pytest.raises(UpstreamDataError, match="an md5sum, not a sha256"):
        downloads.parse_sha256sum(f"{SHA[:32]}  {RUN}".encode(), SUMS, RUN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        SHA,
        f"{SHA}  NVIDIA-Linux-x86_64-580.159.04.run",
        f"{SHA}  ../{RUN}",
        f"{SHA[:40]}  {RUN}",
        f"{SHA}  {RUN}\n{'0' * 64}  {RUN}",
        f"<html>{SHA}  {RUN}</html>",
    ],
)
def test_a_checksum_file_that_does_not_say_it_of_this_file_once_is_refused(text: str) -> None:
    with pytest.raises(UpstreamDataError, match=r"sums\.example"):
        downloads.parse_sha256sum(text.encode(), SUMS, RUN)


# Manifests of a distributor


@recorded
@pytest.mark.parametrize(
    ("name", "entries", "runs"),
    [("gentoo-nvidia-drivers.Manifest", 71, 18), ("flatcar-old-nvidia-drivers.Manifest", 16, 4)],
)
def test_every_line_of_the_recorded_manifests_is_read(name: str, entries: int, runs: int) -> None:
    data = real(f"checksums/{name}")
    read = downloads.parse_manifest(data, SUMS)
    assert len(read) == data.count(b"\n") == entries
    assert sum(file.endswith(".run") for file in read) == data.count(b".run ") == runs


@recorded
def test_the_recorded_size_of_one_run_file() -> None:
    read = downloads.parse_manifest(real("checksums/gentoo-nvidia-drivers.Manifest"), SUMS)
    entry = read[downloads.runfile_name(DriverVersion("535.309.01"), "arm64")]
    assert (entry.size, entry.blake2b[:8], entry.sha512[-8:]) == (270033799, "3f5ce5f0", "5ba7e6cf2"[-8:])


def test_lines_of_other_kinds_are_not_read_and_bad_ones_are_refused() -> None:
    digests = f"BLAKE2B {'a' * 128} SHA512 {'b' * 128}"
    read = downloads.parse_manifest(f"EBUILD x.ebuild 1 {digests}\nDIST x 5 {digests}\n".encode(), SUMS)
    assert list(read) == ["x"]
    for text in (
        "",
        "DIST x five",
        f"DIST x 5 BLAKE2B {'a' * 128}",
        f"DIST x 5 {digests}\nDIST x 6 {digests}",
        f"DIST x 5 {digests} BLAKE2B {'c' * 128}",
        f"DIST x 5 BLAKE2B {'a' * 64} SHA512 {'b' * 128}",
    ):
        with pytest.raises(UpstreamDataError, match=r"sums\.example"):
            downloads.parse_manifest(text.encode(), SUMS)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_our_own_error(data: bytes) -> None:
    for read in (
        lambda: downloads.parse_redist(data, URL),
        lambda: downloads.parse_sha256sum(data, SUMS, RUN),
        lambda: downloads.parse_manifest(data, SUMS),
        lambda: downloads.parse_manifest(b"DIST " + data, SUMS),
    ):
        with pytest.raises(UpstreamDataError):
            read()
