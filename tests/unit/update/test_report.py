"""The words for what an update changes."""

from __future__ import annotations

from pipeline.config import records
from pipeline.config.records import Base, Kernel, OsRelease
from pipeline.update.report import describe
from tests.samples import a_lock, changed, kernel, package


def base(*packages: records.File) -> Base:
    return Base(arch="amd64", date="2026-11-20T08:00:00Z", packages=packages)


def lines(old: Base | Kernel, new: Base | Kernel) -> list[str]:
    """Between two locks that differ in one entry."""
    field = "bases" if isinstance(old, Base) else "kernels"
    return describe(a_lock(**{field: (old,)}), a_lock(**{field: (new,)}))


def test_equal_locks_have_nothing_to_say() -> None:
    assert describe(a_lock(), a_lock()) == []


def test_packages_that_came_went_and_moved_are_named_with_their_versions() -> None:
    old = base(package("busybox", "1.0-1"), package("libold", "2.0-1"), package("same"))
    new = base(package("busybox", "1.1-1"), package("libnew", "3.0-1"), package("same"))
    assert lines(old, new) == ["~ base amd64: packages: busybox 1.0-1 -> 1.1-1, + libnew 3.0-1, - libold 2.0-1"]


def test_a_package_replaced_under_its_version_is_pointed_out() -> None:
    old, new = package("kmod"), package("kmod", sha256="0" * 64)
    assert lines(base(old), base(new)) == ["~ base amd64: packages: kmod 1.0-1 -> other bytes"]
    moved = changed(old, archive="debian-security")
    assert lines(base(old), base(moved)) == ["~ base amd64: packages: kmod 1.0-1 -> another address"]


def test_a_long_list_is_cut_with_its_count() -> None:
    old = base(*(package(f"p{n}", "1-1") for n in range(9)))
    new = base(*(package(f"p{n}", "2-1") for n in range(9)))
    (line,) = lines(old, new)
    assert line.endswith("p3 1-1 -> 2-1 and 5 more")


def test_releases_and_drivers_of_a_kernel_are_shown_before_and_after() -> None:
    new = kernel(
        releases=(OsRelease(channel="bookworm-security", version="6.1.170-3", id="debian", version_id="12"),),
        drivers=(),
    )
    (line,) = lines(kernel(), new)
    assert line.endswith("amd64: releases: bookworm 6.1.170-3 -> bookworm-security 6.1.170-3; drivers: 535.261.03 -> none")


def test_a_stale_kernel_says_so_beside_what_else_changed() -> None:
    assert lines(kernel(), kernel(stale=True, drivers=()))[0].endswith(
        "drivers: 535.261.03 -> none; left the archive; kept as stale"
    )


def test_two_builds_of_one_kernel_string_are_told_apart() -> None:
    other = OsRelease(channel="trixie", version="6.1.170-4", id="debian", version_id="13")
    second = kernel(headers=(package("linux-headers-6.1.0-47-cloud-amd64", "6.1.170-4"),), releases=(other,))
    old, new = a_lock(kernels=(kernel(),)), a_lock(kernels=(kernel(), second))
    (line,) = describe(old, new)
    assert line.startswith(f"+ kernel debian/amd64:6.1.0-47-cloud-amd64 ({second.headers_digest[:12]}) (trixie")
