"""Versions keep their text and order by number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import UpstreamDataError
from pipeline.core.tags import check_tag, tag_text
from pipeline.core.versions import DriverVersion, KernelRelease, VersionRange

drivers = st.builds(
    lambda a, b, rest: f"{a}.{b:02d}" + "".join(f".{n:02d}" for n in rest),
    st.integers(10, 999),
    st.integers(10, 999),
    st.lists(st.integers(0, 99), max_size=2),
)
kernels = st.from_regex(r"[1-9]{1,2}\.[0-9]{1,2}\.[0-9]{1,3}(-[a-z0-9]{1,8}){0,3}(\+[a-z0-9]{1,6})?", fullmatch=True)


@pytest.mark.parametrize(
    ("older", "newer"),
    [("535.54.03", "535.104.05"), ("595.84", "595.84.01"), ("550.90.07", "550.163.01"), ("470.256.02", "535.43.02")],
)
def test_drivers_order_by_number_not_by_text(older: str, newer: str) -> None:
    assert DriverVersion(older) < DriverVersion(newer)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("6.6.9", "6.6.10"),
        ("6.17.0-0.rc3.20250424git.30.fc43.x86_64", "6.17.0-63.fc43.x86_64"),
        ("7.0.0-rc1", "7.0.0"),
        ("6.1.0-9-amd64", "6.1.0-47-amd64"),
        ("6.12.99+deb13-cloud-amd64", "6.12.107+deb13-cloud-amd64"),
        ("6.17.7-200.fc42.x86_64", "6.17.7-300.fc43.x86_64"),
    ],
)
def test_kernels_order_by_number_and_a_candidate_comes_before_its_release(older: str, newer: str) -> None:
    assert KernelRelease(older) < KernelRelease(newer)


def test_the_exact_text_of_a_driver_is_kept() -> None:
    assert str(DriverVersion("550.127.05")) == "550.127.05"
    with pytest.raises(UpstreamDataError):
        DriverVersion("550.127.5")
    assert DriverVersion("550.127.05").branch == "550"


@pytest.mark.parametrize("text", ["", "535", "535.1", "535.54.3", "535.54.03\n", "$(reboot)", "535.54.03.04.05", "５35.54.03"])
def test_what_is_no_driver_version_is_refused(text: str) -> None:
    with pytest.raises(UpstreamDataError, match="not an NVIDIA driver version"):
        DriverVersion(text)


@pytest.mark.parametrize(
    "text", ["", "linux", "../../x", "$(reboot)", "6.1.0 x", "6.1.0;x", "6.1.0/..", "6.1.0\n", "6.1..0", "6.1.0-" + "a" * 100]
)
def test_what_is_no_kernel_release_is_refused(text: str) -> None:
    with pytest.raises(UpstreamDataError, match="not a kernel release"):
        KernelRelease(text)


def test_a_tag_cannot_hold_plus_or_tilde() -> None:
    assert tag_text("6.12.107+deb13-cloud-amd64~x") == "6.12.107_deb13-cloud-amd64_x"
    with pytest.raises(UpstreamDataError, match="not a valid image tag"):
        check_tag("6.12.107+deb13")


@given(drivers, drivers, drivers)
def test_drivers_are_totally_ordered(a: str, b: str, c: str) -> None:
    x, y, z = map(DriverVersion, (a, b, c))
    assert (x < y) + (y < x) + (x == y) == 1
    if x <= y <= z:
        assert x <= z


@given(kernels, kernels, kernels)
def test_kernels_are_totally_ordered(a: str, b: str, c: str) -> None:
    x, y, z = map(KernelRelease, (a, b, c))
    assert (x < y) + (y < x) + (x == y) == 1
    if x <= y <= z:
        assert x <= z


@given(kernels)
def test_a_kernel_keeps_its_text_and_its_tag_is_valid(text: str) -> None:
    assert str(KernelRelease(text)) == text
    assert check_tag(KernelRelease(text).tag)


@given(st.text(max_size=40))
def test_any_text_is_a_version_or_a_clear_refusal(text: str) -> None:
    for kind in (DriverVersion, KernelRelease):
        try:
            assert str(kind(text)) == text
        except UpstreamDataError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">=6.18.41, <6.19", ["6.18.41", "6.18.99"], ["6.18.40", "6.19", "6.19.1", "7.0"]),
        ("570", ["570.211.01", "570.86.10"], ["57.0", "5700.1", "575.51.02"]),
        ("==535.261.03", ["535.261.03"], ["535.261.02", "535.309.01"]),
        (">=6.1.192", ["6.1.192", "6.1.192-2", "6.12"], ["6.1.176-1", "5.15.200"]),
        ("<=6.1", ["6.1", "6.0.9"], ["6.1.1"]),
    ],
)
def test_ranges_are_half_open_and_compare_full_versions(text: str, inside: list[str], outside: list[str]) -> None:
    assert all(version in VersionRange(text) for version in inside)
    assert not any(version in VersionRange(text) for version in outside)


@pytest.mark.parametrize("text", ["", "abc", ">= ", "6.1 || 6.2", ">=6.1;<6.2", ">=6." + "1" * 5000])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(UpstreamDataError, match="not a version range"):
        VersionRange(text)
