"""Which packages make up a kernel or a driver: pure, over small synthetic indices."""

from __future__ import annotations

import pytest

from pipeline.core.errors import UpstreamDataError
from pipeline.upstream.debian import package_sets
from pipeline.upstream.debian.package_index import Indices, Package

OPEN = "nvidia-open-gpu-kernel-modules"
DRIVER = "nvidia-graphics-drivers"
K47 = "6.1.0-47-cloud-amd64"


def indices(*packages: tuple[str, str] | tuple[str, str, str]) -> Indices:
    """Rows of name, version, and what it depends on (a kernel's package) or its source (a driver's)."""
    made = Indices()
    for name, version, *more in packages:
        kernel = name.startswith("linux-")
        made.add(
            [
                Package(
                    name=name,
                    version=version,
                    arch="amd64",
                    path=f"pool/{name}_{version}.deb",
                    sha256="0" * 64,
                    size=1,
                    depends=more[0] if more and kernel else "",
                    source=more[0] if more and not kernel else name,
                    archive="debian",
                    suite="bookworm",
                )
            ]
        )
    return made


def kernel(name: str = K47, version: str = "6.1.170-3", needs: str = "") -> list[tuple[str, str, str]]:
    abi = name.removesuffix("-cloud-amd64")
    needs = needs or f"linux-headers-{abi}-common (= {version}), linux-kbuild-6.1 (>= {version}), linux-compiler-gcc-12-x86"
    return [
        (f"linux-headers-{name}", version, needs),
        (f"linux-headers-{abi}-common", version, ""),
        (f"linux-image-{name}", version, "kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool"),
    ]


def names(packages: list[Package]) -> list[str]:
    return [f"{package.name} {package.version}" for package in packages]


def test_a_kernel_is_headers_common_headers_kbuild_and_image() -> None:
    found = indices(*kernel(), ("linux-kbuild-6.1", "6.1.176-1"), ("linux-kbuild-6.1", "6.1.192-2"))
    headers, image = package_sets.kernel_packages(found, K47)
    assert names(headers) == [
        f"linux-headers-{K47} 6.1.170-3",
        "linux-headers-6.1.0-47-common 6.1.170-3",
        "linux-kbuild-6.1 6.1.192-2",
    ]
    assert names(image) == [f"linux-image-{K47} 6.1.170-3"]


def test_kbuild_is_found_where_the_dependency_names_no_version() -> None:
    name, version = "6.12.117+deb12-cloud-amd64", "6.12.117-1~deb12u1"
    needs = f"linux-base (>= 4.12~), linux-headers-6.12.117+deb12-common (= {version}), linux-kbuild-6.12.117+deb12, gcc-12"
    found = indices(*kernel(name, version, needs), ("linux-kbuild-6.12.117+deb12", version))
    assert f"linux-kbuild-6.12.117+deb12 {version}" in names(package_sets.kernel_packages(found, name)[0])


def test_the_common_headers_of_a_flavour_are_taken() -> None:
    needs = "linux-headers-6.1.0-47-common-rt (= 6.1.170-3), linux-kbuild-6.1 (>= 6.1.170-3)"
    rows = [
        ("linux-headers-6.1.0-47-rt-amd64", "6.1.170-3", needs),
        ("linux-headers-6.1.0-47-common-rt", "6.1.170-3", ""),
        ("linux-image-6.1.0-47-rt-amd64", "6.1.170-3", "kmod"),
        ("linux-kbuild-6.1", "6.1.170-3", ""),
    ]
    headers, _ = package_sets.kernel_packages(indices(*rows), "6.1.0-47-rt-amd64")
    assert "linux-headers-6.1.0-47-common-rt 6.1.170-3" in names(headers)


def test_an_image_brings_the_packages_it_is_split_into() -> None:
    rows = [*kernel()[:2], (f"linux-image-{K47}", "6.1.170-3", f"kmod, linux-modules-{K47} (= 6.1.170-3)")]
    found = indices(*rows, (f"linux-modules-{K47}", "6.1.170-3"), ("linux-kbuild-6.1", "6.1.170-3"))
    assert names(package_sets.kernel_packages(found, K47)[1])[1:] == [f"linux-modules-{K47} 6.1.170-3"]


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("linux-kbuild-6.1", r"needs linux-kbuild-6\.1 \(>= 6\.1\.170-3\), which is not listed"),
        ("linux-headers-6.1.0-47-common", r"needs linux-headers-6\.1\.0-47-common \(= 6\.1\.170-3\), which is not"),
    ],
)
def test_headers_that_need_something_that_is_not_listed_are_refused(gone: str, said: str) -> None:
    rows = [row for row in [*kernel(), ("linux-kbuild-6.1", "6.1.192-2", "")] if row[0] != gone]
    rows += [("linux-kbuild-6.1", "6.1.162-1", "")] if gone.startswith("linux-kbuild") else []
    with pytest.raises(UpstreamDataError, match=said):
        package_sets.kernel_packages(indices(*rows), K47)


def test_headers_that_need_no_kbuild_at_all_are_refused_rather_than_pinned_without() -> None:
    rows = kernel(needs="linux-headers-6.1.0-47-common (= 6.1.170-3)")
    with pytest.raises(UpstreamDataError, match="needs no linux-kbuild-"):
        package_sets.kernel_packages(indices(*rows), K47)


def test_a_rebuild_counts_once_its_image_is_there_too() -> None:
    newer = [row for row in kernel(version="6.1.170-4") if "image" not in row[0]]
    found = indices(*kernel(), *newer, ("linux-kbuild-6.1", "6.1.192-2"))
    headers, image = package_sets.kernel_packages(found, K47)
    assert {p.version for p in (*headers[:2], *image)} == {"6.1.170-3"}


def test_headers_without_an_image_of_their_version_are_refused() -> None:
    rows = [*kernel()[:2], (f"linux-image-{K47}", "6.1.170-2", "kmod")]
    with pytest.raises(UpstreamDataError, match="are not both listed in one version"):
        package_sets.kernel_packages(indices(*rows), K47)


def test_packages_that_only_name_the_newest_kernel_are_no_kernels() -> None:
    rows = [*kernel(), *kernel("6.12.117+deb12-cloud-amd64", "6.12.117-1", "linux-kbuild-6.12.117+deb12")]
    rows += [("linux-headers-cloud-amd64", "6.1.170-3", f"linux-headers-{K47} (= 6.1.170-3)")]
    rows += [("linux-image-cloud-amd64", "6.1.170-3", ""), ("linux-image-6.1.0-46-cloud-amd64", "6.1.1-1", "")]
    assert package_sets.kernels(indices(*rows)) == [K47, "6.12.117+deb12-cloud-amd64"]


def a_driver(version: str = "535.261.03-1", prefix: str = "", source: str = DRIVER) -> list[tuple[str, str, str]]:
    rows = [f"nvidia-{prefix}kernel-source", f"firmware-nvidia-{prefix}gsp", f"nvidia-{prefix}smi"]
    rows += [f"libnvidia-{prefix}cuda1" if prefix else "libcuda1"]
    return [(name, version, source) for name in rows]


def parts(driver: str, *rows: tuple[str, str, str]) -> list[list[str]]:
    found = package_sets.driver_packages(indices(*rows), driver)
    assert found is not None
    return [names(part) for part in found]


def test_all_parts_come_from_the_one_version_though_newer_ones_are_listed() -> None:
    opened = ("nvidia-open-kernel-source", "535.261.03-1", OPEN)
    everything = [*a_driver(), opened, *a_driver("535.309.01-0+deb12u1")]
    assert parts("535.261.03", *everything) == [
        ["nvidia-open-kernel-source 535.261.03-1"],
        ["nvidia-kernel-source 535.261.03-1"],
        ["firmware-nvidia-gsp 535.261.03-1", "libcuda1 535.261.03-1", "nvidia-smi 535.261.03-1"],
    ]
    own, closed, userspace = parts("535.309.01", *everything)
    assert (own, closed) == ([], ["nvidia-kernel-source 535.309.01-0+deb12u1"])
    assert all(text.endswith(" 535.309.01-0+deb12u1") for text in userspace)


def test_a_version_that_only_begins_like_it_is_another_version() -> None:
    assert package_sets.driver_packages(indices(*a_driver("535.261.033-1")), "535.261.03") is None


@pytest.mark.parametrize(
    "name",
    [
        "xserver-xorg-video-nvidia",
        "nvidia-kernel-dkms",
        "nvidia-kernel-support",
        "nvidia-driver",
        "nvidia-driver-full",
        "nvidia-driver-libs",
        "nvidia-driver-libs-i386",
        "nvidia-alternative",
        "nvidia-detect",
        "nvidia-legacy-check",
        "nvidia-suspend-common",
        "nvidia-libopencl1",
        "nvidia-vulkan-icd",
        "nvidia-egl-icd",
        "libgl1-nvidia-glvnd-glx",
        "libnvidia-ml-dev",
    ],
)
def test_what_needs_a_display_a_compiler_or_holds_no_files_is_left_out(name: str) -> None:
    assert not [text for text in parts("535.261.03", *a_driver(), (name, "535.261.03-1", DRIVER))[2] if name in text]


@pytest.mark.parametrize(
    "name",
    [
        "libnvidia-ml1",
        "libnvcuvid1",
        "libnvidia-encode1",
        "libnvoptix1",
        "libegl-nvidia0",
        "libglx-nvidia0",
        "nvidia-opencl-icd",
        "nvidia-opencl-common",
        "nvidia-vulkan-common",
        "nvidia-egl-common",
        "nvidia-cuda-mps",
        "nvidia-driver-bin",
        "libnvidia-cfg1",
    ],
)
def test_libraries_tools_and_icd_files_are_taken(name: str) -> None:
    assert f"{name} 535.261.03-1" in parts("535.261.03", *a_driver(), (name, "535.261.03-1", DRIVER))[2]


def test_a_tool_of_another_version_comes_from_the_nearest_of_its_branch_that_is_not_newer() -> None:
    tools = [("nvidia-modprobe", version, "") for version in ("535.161.07-1", "535.183.01-1", "535.309.01-1", "550.1-1")]
    assert "nvidia-modprobe 535.183.01-1" in parts("535.261.03", *a_driver(), *tools)[2]
    assert "nvidia-modprobe 535.309.01-1" in parts("535.261.03", *a_driver(), *tools[2:])[2]
    assert not [text for text in parts("535.261.03", *a_driver(), tools[3])[2] if "modprobe" in text]


def test_a_tool_of_the_drivers_own_version_is_preferred() -> None:
    tools = [("nvidia-modprobe", "535.161.07-1", ""), ("nvidia-modprobe", "535.261.03-2", "")]
    assert "nvidia-modprobe 535.261.03-2" in parts("535.261.03", *a_driver(), *tools)[2]


def test_the_tesla_packages_serve_where_debian_has_the_version_under_that_name_only() -> None:
    tesla = a_driver("535.216.03-1", "tesla-535-", f"{DRIVER}-tesla-535")
    _, closed, userspace = parts("535.216.03", *tesla)
    assert closed == ["nvidia-tesla-535-kernel-source 535.216.03-1"]
    assert "libnvidia-tesla-535-cuda1 535.216.03-1" in userspace


def test_one_version_under_two_names_is_taken_once() -> None:
    tesla = a_driver("535.216.03-1", "tesla-535-", f"{DRIVER}-tesla-535")
    _, closed, userspace = parts("535.216.03", *tesla, *a_driver("535.216.03-1"))
    assert closed == ["nvidia-kernel-source 535.216.03-1"]
    assert not [text for text in userspace if "tesla" in text]


def test_a_driver_that_no_suite_holds_is_none() -> None:
    assert package_sets.driver_packages(indices(*a_driver()), "550.163.01") is None


def test_a_driver_with_libraries_and_without_module_sources_is_refused() -> None:
    with pytest.raises(UpstreamDataError, match=r"lists 535\.261\.03 without module sources"):
        parts("535.261.03", *a_driver()[1:])


def test_module_sources_without_libraries_of_their_version_are_refused() -> None:
    with pytest.raises(UpstreamDataError, match="no libraries of it"):
        parts("535.261.03", ("nvidia-open-kernel-source", "535.261.03-1", OPEN), *a_driver("535.309.01-1"))


def test_open_modules_without_gsp_firmware_are_refused() -> None:
    rows = [row for row in a_driver() if "firmware" not in row[0]]
    with pytest.raises(UpstreamDataError, match="no GSP firmware"):
        parts("535.261.03", ("nvidia-open-kernel-source", "535.261.03-1", OPEN), *rows)
    assert parts("535.261.03", *rows)[1] == ["nvidia-kernel-source 535.261.03-1"]
