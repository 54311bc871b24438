"""The lock is strict when read, and stable when written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import lockfile
from pipeline.core.errors import BadFileError, DiskError
from tests import samples

Document = dict[str, Any]


def document() -> Document:
    held: Document = json.loads(lockfile.dump(samples.a_lock()))
    return held


def edit_first_kernel(key: str, value: str, part: str = "") -> Callable[[Document], object]:
    """A change of one value of the first kernel, or of the first file of one of its parts."""

    def change(held: Document) -> None:
        table = held["kernels"][0][part][0] if part else held["kernels"][0]
        table[key] = value

    return change


def refusal(change: Callable[[Document], object]) -> str:
    held = document()
    change(held)
    with pytest.raises(BadFileError) as caught:
        lockfile.parse(json.dumps(held).encode())
    text = str(caught.value)
    assert text.startswith("versions.lock: ")
    assert "\n" not in text
    assert caught.value.exit_status == 3
    return text


def test_what_was_written_reads_back_equal_and_writes_the_same_bytes() -> None:
    data = lockfile.dump(samples.a_lock())
    assert lockfile.dump(lockfile.parse(data)) == data


def test_entries_are_sorted_by_number_whatever_order_they_came_in() -> None:
    one, two = samples.kernel("6.1.0-9-amd64"), samples.kernel("6.1.0-10-amd64")
    forward = samples.a_lock(kernels=(one, two))
    backward = samples.a_lock(kernels=(two, one))
    assert lockfile.dump(forward) == lockfile.dump(backward)
    assert [k.kernel for k in lockfile.parse(lockfile.dump(backward)).kernels] == ["6.1.0-9-amd64", "6.1.0-10-amd64"]


def test_each_pinned_file_stands_on_a_line_of_its_own() -> None:
    lines = lockfile.dump(samples.a_lock()).decode().splitlines()
    assert sum('"sha256"' in line for line in lines) == len(list(samples.a_lock().files()))


def test_an_unknown_key_is_refused_with_its_path() -> None:
    assert "`$.kernels[0]`" in refusal(lambda d: d["kernels"][0].update(extra=1))


def test_a_key_that_stands_twice_is_refused_wherever_it_stands() -> None:
    data = lockfile.dump(samples.a_lock())
    for key in (b'"schema": 1,', b'"trust": "signed-index",'):
        assert key in data
        with pytest.raises(BadFileError, match="stands twice in one object"):
            lockfile.parse(data.replace(key, key + key, 1))


def test_a_lock_that_another_program_wrote_differently_reads_the_same() -> None:
    held = document()
    held["pending"] = []  # a default, which ours leaves out
    same = json.dumps(held, indent=4, sort_keys=True).encode()
    assert lockfile.parse(same) == lockfile.parse(lockfile.dump(samples.a_lock()))


def test_an_escape_code_or_a_newline_in_a_reason_is_refused() -> None:
    def pending(reason: str) -> Callable[[Document], object]:
        return lambda held: held.update(pending=[{"os": "flatcar", "arch": "amd64", "kernel": "", "reason": reason}])

    for reason in ("red \x1b[31m", "two\nlines", "\u202eturned around", "\x9b31m"):
        assert "$.pending[0].reason" in refusal(pending(reason))


def test_a_missing_hash_is_refused_with_its_path() -> None:
    assert "`sha256` - at `$.kernels[0].headers[0]`" in refusal(lambda d: d["kernels"][0]["headers"][0].pop("sha256"))


def test_a_wrong_type_is_refused_with_its_path() -> None:
    assert "`$.drivers[0].userspace[0].size`" in refusal(lambda d: d["drivers"][0]["userspace"][0].update(size="big"))


def test_a_hash_that_is_none_is_refused() -> None:
    assert "sha256" in refusal(lambda d: d["bases"][0]["packages"][0].update(sha256="A" * 64))


def test_two_entries_for_one_thing_are_refused() -> None:
    assert "two entries for kernel debian/amd64:6.1.0-47" in refusal(lambda d: d["kernels"].append(d["kernels"][0]))
    assert "two entries for driver 535.261.03" in refusal(lambda d: d["drivers"].append(d["drivers"][0]))
    assert "two entries for debian-12" in refusal(lambda d: d["toolchains"].append(d["toolchains"][0]))


@pytest.mark.parametrize(
    ("group", "part"), [("bases", "packages"), ("toolchains", "packages"), ("kernels", "headers"), ("drivers", "userspace")]
)
def test_a_package_that_stands_twice_is_refused_whatever_its_hash(group: str, part: str) -> None:
    def twice(held: Document) -> None:
        files = held[group][0][part]
        files.append({**files[0], "sha256": "0" * 64})

    assert f"two entries for {document()[group][0][part][0]['name']}" in refusal(twice)


def test_one_package_of_two_architectures_is_two_files() -> None:
    held = document()
    headers = held["kernels"][0]["headers"]
    headers.append({**headers[0], "path": headers[0]["path"].replace("_amd64.deb", "_arm64.deb"), "sha256": "0" * 64})
    assert headers[0]["path"] != headers[-1]["path"]
    assert len(lockfile.parse(json.dumps(held).encode()).kernels[0].headers) == len(headers)


def test_a_day_that_no_calendar_has_is_refused() -> None:
    assert "there is no 2026-02-31T00:00:00Z - at `$.kernels[0].date`" in refusal(
        edit_first_kernel("date", "2026-02-31T00:00:00Z")
    )


def test_a_size_that_no_file_has_and_a_base_of_nothing_are_refused() -> None:
    assert "$.kernels[0].headers[0].size" in refusal(lambda d: d["kernels"][0]["headers"][0].update(size=10**30))
    assert "$.bases[0].packages" in refusal(lambda d: d["bases"][0].update(packages=[]))


def test_two_kernels_that_would_share_a_tag_are_refused() -> None:
    def twins(held: Document) -> None:
        held["kernels"][0]["kernel"] = "6.1.0+a"
        held["kernels"][1]["kernel"] = "6.1.0~a"

    assert "6.1.0+a and 6.1.0~a would share the tag 6.1.0_a" in refusal(twins)


def test_two_builds_of_one_kernel_string_need_different_releases() -> None:
    first = samples.kernel()
    other = samples.kernel(headers=(samples.package("linux-headers-other", "6.1.170-4"),))
    with pytest.raises(BadFileError, match="would share the tag"):
        lockfile.parse(lockfile.dump(samples.a_lock(kernels=(first, other))))


def test_a_kernel_that_is_a_command_is_refused() -> None:
    for text in ("$(reboot)", "../../x", "6.1.0 --privileged", "6.1.0\nRUN x"):
        assert "kernel" in refusal(edit_first_kernel("kernel", text))


def test_a_path_that_leaves_the_archive_is_refused() -> None:
    for path in ("/etc/passwd", "../x", "pool/../x", "pool//x", "http://host/x"):
        assert "path" in refusal(edit_first_kernel("path", path, "headers"))


def test_a_file_needs_exactly_one_place() -> None:
    assert "needs either archive and path, or urls" in refusal(lambda d: d["kernels"][0]["headers"][0].pop("archive"))
    assert "needs either archive and path, or urls" in refusal(
        lambda d: d["kernels"][0]["headers"][0].update(urls=["https://example.com/x"])
    )


def test_a_driver_that_is_not_pinned_or_has_no_modules_is_refused() -> None:
    assert "no driver 550.163.01" in refusal(lambda d: d["kernels"][0].update(drivers=["550.163.01"]))
    assert "no toolchain debian-13" in refusal(lambda d: d["kernels"][0].update(toolchain="debian-13"))

    def without_modules(held: Document) -> None:
        held["drivers"][0].pop("open")
        held["drivers"][0].pop("proprietary")

    assert "no module sources of either kind" in refusal(without_modules)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"schema": 2}', b"<html>", b"[" * 100_000])
def test_a_file_that_is_no_lock_is_one_line(data: bytes) -> None:
    with pytest.raises(BadFileError) as caught:
        lockfile.parse(data)
    assert "\n" not in str(caught.value)


@given(st.data())
def test_a_cut_or_changed_lock_is_read_or_refused_never_a_traceback(data: st.DataObject) -> None:
    held = bytearray(lockfile.dump(samples.a_lock()))
    place = data.draw(st.integers(0, len(held) - 1))
    if data.draw(st.booleans()):
        held = held[:place]
    else:
        held[place] = data.draw(st.integers(0, 255))
    try:
        lockfile.parse(bytes(held))
    except BadFileError as error:
        assert "\n" not in str(error)


def test_a_missing_lock_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match=r"versions\.lock: No such file or directory: 'doit update' writes it"):
        lockfile.load(tmp_path / "versions.lock")


def test_writing_is_whole_or_not_at_all_and_says_whether_it_changed_anything(tmp_path: Path) -> None:
    place = tmp_path / "versions.lock"
    assert lockfile.write(place, b"one")
    before = place.stat().st_mtime_ns
    assert not lockfile.write(place, b"one")
    assert place.stat().st_mtime_ns == before
    with pytest.raises(DiskError):
        lockfile.write(tmp_path / "absent" / "versions.lock", b"two")
    assert [p.name for p in tmp_path.iterdir()] == ["versions.lock"]


@pytest.mark.parametrize(
    ("form", "group", "key", "value"),
    [
        ("rpms", "kernels", "form", "debs"),
        ("rpms", "kernels", "form", "source"),
        ("source", "kernels", "form", "developer-container"),
        ("source", "kernels", "form", "rpms"),
        ("developer-container", "kernels", "form", "debs"),
        ("developer-container", "kernels", "form", "source"),
        ("rpms", "drivers", "source", "debian"),
        ("rpms", "drivers", "source", "redist"),
    ],
)
def test_files_of_another_form_than_the_one_beside_them_are_refused(form: str, group: str, key: str, value: str) -> None:
    """They would go to a reader of other archives, in the middle of a build."""
    held = json.loads(lockfile.dump(samples.vendor_lock(form)))
    held[group][0][key] = value
    with pytest.raises(BadFileError, match=rf"are not those of '{value}' - at `\$\.{group}\[0\]\.{key}`"):
        lockfile.parse(json.dumps(held).encode())


def test_a_lock_without_a_toolchain_that_unpacks_is_refused() -> None:
    held = json.loads(lockfile.dump(samples.vendor_lock("rpms")))
    held["toolchains"] = [toolchain for toolchain in held["toolchains"] if "image" in toolchain]
    with pytest.raises(BadFileError, match="no toolchain of Debian's packages for amd64, which unpacks base and userspace"):
        lockfile.parse(json.dumps(held).encode())


def test_modules_out_of_another_archive_than_the_userspace_are_refused() -> None:
    """The build reads one archive: a sum that stands in the Dockerfile and is of another would be a lie."""
    held = json.loads(lockfile.dump(samples.vendor_lock("rpms")))
    held["drivers"][0]["open"][0]["sha256"] = "0" * 64
    with pytest.raises(BadFileError, match=r"are not those of 'run' - at `\$\.drivers\[0\]\.source`"):
        lockfile.parse(json.dumps(held).encode())
