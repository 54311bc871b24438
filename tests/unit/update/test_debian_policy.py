"""Which of Debian's kernels are wanted: patterns over flavours, how far back, and more than one architecture."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import lockfile
from pipeline.config.records import Lock
from pipeline.config.versions_toml import Debian
from pipeline.core.errors import BadFileError
from pipeline.fetch.apt_sources import Archives
from pipeline.fetch.fetcher import Fetcher
from pipeline.update.debian import wished
from pipeline.update.run import Result, update
from tests.samples import wishes
from tests.signed_archive import Served, SignedArchive

needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt-get solves, and this is no Debian")
ABIS = ("6.1.0-9", "6.1.0-47", "6.1.0-50", "6.1.0-56", "6.12.43+deb12")


def policy(*kernels: str, keep: int = 0) -> Debian:
    table = f"""
[debian]
version_id = "12"
keyring = "/none"
suites = [{{archive = "debian", suite = "bookworm"}}]
kernels = {list(kernels)}
keep = {keep}
toolchain = ["gcc-12"]
base = ["kmod"]
"""
    found = wishes(table).debian
    assert found is not None
    return found


ALL = [f"{abi}-{flavour}" for abi in ABIS for flavour in ("amd64", "cloud-amd64", "arm64", "rt-amd64")]


@pytest.mark.parametrize(
    ("pattern", "keep", "wanted"),
    [
        (
            "6.1.0-*-cloud-amd64",
            0,
            ["6.1.0-9-cloud-amd64", "6.1.0-47-cloud-amd64", "6.1.0-50-cloud-amd64", "6.1.0-56-cloud-amd64"],
        ),
        ("6.1.0-*-cloud-amd64", 2, ["6.1.0-50-cloud-amd64", "6.1.0-56-cloud-amd64"]),
        ("*-cloud-amd64", 1, ["6.1.0-56-cloud-amd64", "6.12.43+deb12-cloud-amd64"]),
        ("*[0-9]-amd64", 1, ["6.1.0-56-amd64", "6.12.43+deb12-amd64"]),
        ("6.1.0-*-arm64", 1, ["6.1.0-56-arm64"]),
        ("*", 1, [f"{abi}-{f}" for abi in ABIS[-2:] for f in ("amd64", "cloud-amd64", "arm64", "rt-amd64")]),
    ],
)
def test_keep_counts_each_series_and_flavour_for_itself_by_number(pattern: str, keep: int, wanted: list[str]) -> None:
    assert wished(ALL, policy(pattern, keep=keep)) == set(wanted)


def test_a_kernel_named_to_the_letter_is_wanted_however_old() -> None:
    assert wished(ALL, policy("6.1.0-9-amd64", "6.1.0-*-amd64", keep=1)) >= {"6.1.0-9-amd64", "6.1.0-56-amd64"}


@given(st.sets(st.sampled_from(ALL)), st.integers(0, 5))
def test_keep_takes_no_kernel_that_the_patterns_do_not(names: set[str], keep: int) -> None:
    found = wished(names, policy("*-amd64", keep=keep))
    assert found <= {name for name in names if name.endswith("-amd64")}
    assert (keep > 0) or found == {name for name in names if name.endswith("-amd64")}


@pytest.mark.parametrize("package", ["gcc-12 [riscv64]", "gcc-12 [arm64", "gcc 12", "-x", "gcc-12 [amd64]\\n", "$(reboot)"])
def test_a_package_that_is_none_is_refused_with_its_place(package: str) -> None:
    with pytest.raises(BadFileError, match=r"at `\$.debian.toolchain\[0\]"):
        wishes(
            f'[debian]\nversion_id = "12"\nkeyring = "/none"\nsuites = [{{archive = "debian", suite = "x"}}]\n'
            f'toolchain = ["{package}"]\nbase = ["kmod"]\n'
        )


def run(
    archive: SignedArchive, server: Served, fetcher: Fetcher, old: Lock, kernels: str, *, keep: int = 0, cross: str = "{}"
) -> Result:
    wanted = wishes(
        f"""
[debian]
version_id = "12"
keyring = "{archive.key.keyring}"
suites = [
  {{archive = "debian", suite = "bookworm"}},
  {{archive = "debian-security", suite = "bookworm-security"}},
]
arches = {list(archive.arches)}
cross = {cross}
kernels = {kernels}
keep = {keep}
toolchain = {["gcc-12 [amd64]", "linux-compiler-gcc-12-x86 [amd64]", *(f"{name} [arm64]" for name in COMPILERS[cross != "{}"])]}
base = ["kmod"]
"""
    )
    told = f"debian={server.url}/debian debian-security={server.url}/debian-security"
    return update(wanted, old, fetcher, Archives(wanted, {"DRIVER_ARCHIVES": told}, Path("/none")))


COMPILERS = (("gcc-12", "linux-compiler-gcc-12-arm"), ("gcc-12-aarch64-linux-gnu",))
"""What compiles on arm64, and what for arm64 on amd64."""


@needs_apt
def test_a_kernel_that_keep_no_longer_reaches_goes_and_one_that_left_the_archive_is_stale(
    archive: SignedArchive, archive_server: Served, fetcher: Fetcher
) -> None:
    archive.add("bookworm", "main", "linux-compiler-gcc-12-x86", "6.1.176-1")
    archive.publish()
    first = run(archive, archive_server, fetcher, lockfile.empty(), "['6.1.0-*-cloud-amd64']", keep=3)
    assert first.problems == []
    assert [k.kernel for k in first.lock.kernels] == [f"6.1.0-{abi}-cloud-amd64" for abi in (47, 50, 56)]
    narrower = run(archive, archive_server, fetcher, first.lock, "['6.1.0-*-cloud-amd64']", keep=2)
    assert narrower.changes == ["- kernel debian/amd64:6.1.0-47-cloud-amd64: no longer wanted"]
    archive.drop("6.1.0-50")
    archive.publish()
    gone = run(archive, archive_server, fetcher, narrower.lock, "['6.1.0-*-cloud-amd64']", keep=2).lock
    assert [(k.kernel, k.stale) for k in gone.kernels] == [
        ("6.1.0-50-cloud-amd64", True),
        ("6.1.0-56-cloud-amd64", False),
    ]


def with_arm64(archive: SignedArchive) -> None:
    """An archive of both architectures, with a kernel that only arm64 has."""
    archive.arches = ("amd64", "arm64")
    archive.add("bookworm", "main", "linux-compiler-gcc-12-x86", "6.1.176-1")
    for name, version, needs in (
        ("libc6", "2.36-9+deb12u13", ""),
        ("kmod", "30-1", "libc6 (>= 2.34)"),
        ("binutils", "2.40-2", ""),
        ("gcc-12", "12.2.0-14", "libc6 (>= 2.34), binutils"),
        ("linux-compiler-gcc-12-arm", "6.1.176-1", ""),
        ("linux-kbuild-6.1", "6.1.176-1", ""),
    ):
        archive.add("bookworm", "main", name, version, needs, Architecture="arm64")
    needs = "linux-headers-6.1.0-50-common (= 6.1.176-1), linux-kbuild-6.1 (>= 6.1.176-1), gcc-12"
    archive.add("bookworm", "main", "linux-headers-6.1.0-50-arm64", "6.1.176-1", needs, Architecture="arm64")
    archive.add("bookworm", "main", "linux-image-6.1.0-50-arm64", "6.1.176-1", "kmod", Architecture="arm64")


@needs_apt
def test_both_architectures_get_their_kernels_base_and_toolchain_from_their_own_indices(
    archive: SignedArchive, archive_server: Served, fetcher: Fetcher
) -> None:
    with_arm64(archive)
    archive.publish()
    patterns = "['6.1.0-50-arm64', '*-cloud-amd64']"
    result = run(archive, archive_server, fetcher, lockfile.empty(), patterns, keep=1)
    assert result.problems == []
    assert [(k.arch, k.kernel) for k in result.lock.kernels] == [
        ("arm64", "6.1.0-50-arm64"),
        ("amd64", "6.1.0-56-cloud-amd64"),
    ]
    for arch, own in (("amd64", "linux-compiler-gcc-12-x86"), ("arm64", "linux-compiler-gcc-12-arm")):
        (toolchain,) = (t for t in result.lock.toolchains if t.arch == arch)
        assert own in {f.name for f in toolchain.packages}
        assert all((f.path or "").endswith((f"_{arch}.deb", "_all.deb")) for f in toolchain.packages)
    (arm,) = (k for k in result.lock.kernels if k.arch == "arm64")
    assert [f.name for f in arm.headers] == [
        "linux-headers-6.1.0-50-arm64",
        "linux-headers-6.1.0-50-common",
        "linux-kbuild-6.1",
    ]
    again = run(archive, archive_server, fetcher, result.lock, patterns, keep=1)
    assert lockfile.dump(again.lock) == lockfile.dump(result.lock)


@needs_apt
def test_a_cross_toolchain_and_kbuilds_programs_come_from_the_architecture_that_compiles(
    archive: SignedArchive, archive_server: Served, fetcher: Fetcher
) -> None:
    with_arm64(archive)
    archive.add("bookworm", "main", "gcc-12-aarch64-linux-gnu", "12.2.0-14cross1", "libc6 (>= 2.34), binutils")
    archive.publish()
    patterns, cross = "['6.1.0-50-arm64', '*-cloud-amd64']", "{arm64 = 'amd64'}"
    result = run(archive, archive_server, fetcher, lockfile.empty(), patterns, keep=1, cross=cross)
    assert result.problems == []
    native, crossing = result.lock.toolchains
    assert (native.arch, native.runs_on, native.prefix, native.gcc) == ("amd64", None, "", "12.2.0")
    assert (crossing.arch, crossing.runs_on, crossing.prefix, crossing.gcc) == ("arm64", "amd64", "aarch64-linux-gnu-", "12.2.0")
    assert all((f.path or "").endswith(("_amd64.deb", "_all.deb")) for f in crossing.packages)
    (arm,) = (k for k in result.lock.kernels if k.arch == "arm64")
    assert [(f.name, (f.path or "").rpartition("_")[2]) for f in arm.headers] == [
        ("linux-headers-6.1.0-50-arm64", "arm64.deb"),
        ("linux-headers-6.1.0-50-common", "all.deb"),
        ("linux-kbuild-6.1", "amd64.deb"),
    ]
    (base,) = (b for b in result.lock.bases if b.arch == "arm64")
    assert all((f.path or "").endswith(("_arm64.deb", "_all.deb")) for f in base.packages)
    again = run(archive, archive_server, fetcher, result.lock, patterns, keep=1, cross=cross)
    assert lockfile.dump(again.lock) == lockfile.dump(result.lock)


@needs_apt
def test_where_kbuilds_programs_are_not_those_of_the_headers_the_kernel_waits(
    archive: SignedArchive, archive_server: Served, fetcher: Fetcher
) -> None:
    with_arm64(archive)
    archive.add("bookworm", "main", "gcc-12-aarch64-linux-gnu", "12.2.0-14cross1", "libc6 (>= 2.34), binutils")
    archive.add("bookworm", "main", "linux-kbuild-6.1", "6.1.177-1", Architecture="arm64")
    archive.publish()
    result = run(archive, archive_server, fetcher, lockfile.empty(), "['6.1.0-50-arm64']", cross="{arm64 = 'amd64'}")
    assert result.problems[0].startswith(
        "debian/arm64: kernel 6.1.0-50-arm64: linux-kbuild-6.1 6.1.177-1 is not listed for the architecture that compiles"
    )
    assert result.lock.kernels == ()


@pytest.mark.parametrize("cross", ["{arm64 = 'arm64'}", "{arm64 = 'amd64'}", "{riscv64 = 'amd64'}", "{arm64 = 'arm64 '}"])
def test_a_cross_that_cannot_be_meant_is_refused_with_its_place(cross: str) -> None:
    with pytest.raises(BadFileError, match=r"\$\.debian\.cross|Invalid enum value"):
        wishes(
            f'[debian]\nversion_id = "12"\nkeyring = "/none"\nsuites = [{{archive = "debian", suite = "x"}}]\n'
            f'cross = {cross}\ntoolchain = ["gcc-12"]\nbase = ["kmod"]\n'
        )
