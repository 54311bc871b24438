"""The tests' cache stays within its bound, never takes what is in use, and a folder that refuses ends no run."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from pathlib import Path

import pytest

from pipeline.fetch import user_cache
from tests import faults
from tests.support.cache import Cache
from tests.support.cache_makers import Maker, line, start


@pytest.fixture
def said() -> list[str]:
    return []


def age(files: Path, days: float) -> None:
    """Have the entry been used so long ago."""
    when = time.time() - days * 86400
    os.utime(files.parent, (when, when))


def test_what_was_used_longest_ago_goes_first_and_only_until_the_rest_fits(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        places = {days: cache.entry("thing", {"days": str(days)}, Maker(100_000)) for days in (5, 40, 1, 20)}
    for days, files in places.items():
        age(files, days)
    with Cache(tmp_path, limit=400_000) as later:
        new = later.entry("thing", {"new": ""}, Maker(100_000))
    assert {days for days, files in places.items() if files.exists()} == {5, 1}
    assert new.exists()
    assert not list(tmp_path.glob(".new.*"))


def test_use_makes_an_entry_young_again(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        old, young = (cache.entry("thing", {"n": n}, Maker(100_000)) for n in "12")
    age(old, 40)
    age(young, 2)
    with Cache(tmp_path) as cache:
        cache.entry("thing", {"n": "1"}, Maker())
    assert [made.path for made in user_cache.entries(tmp_path)] == [young.parent, old.parent]


def test_an_entry_in_use_stays_whatever_the_limit_is(tmp_path: Path) -> None:
    with start(tmp_path, 0) as other, Cache(tmp_path, limit=1) as cache:
        assert (line(other), line(other)) == ("making\n", "whole\n")
        (held,) = user_cache.entries(tmp_path)
        age(held.path / "files", 99)
        first = cache.entry("thing", {"n": "1"}, Maker(100_000))
        second = cache.entry("thing", {"n": "2"}, Maker(100_000))
        assert held.path.exists()
        assert first.exists()
        assert second.exists()
        assert user_cache.in_use(held.path)
        assert not user_cache.remove(held.path)
        other.communicate("", timeout=30)
        assert not user_cache.in_use(held.path)
        cache.entry("thing", {"n": "3"}, Maker())
        assert not held.path.exists()
        assert first.exists()


def test_what_is_being_made_is_not_removed(tmp_path: Path) -> None:
    with start(tmp_path, 600) as other:
        assert line(other) == "making\n"
        (scratch,) = tmp_path.glob(".new.*")
        place = tmp_path / scratch.name.split(".")[2]
        place.mkdir()  # as if an older one stood there
        assert not user_cache.remove(place)
        assert user_cache.in_use(place)
        other.kill()
        other.wait(30)
        assert user_cache.remove(place)
        assert not place.exists()


def test_lock_files_of_entries_long_gone_are_swept(tmp_path: Path) -> None:
    with Cache(tmp_path) as cache:
        cache.entry("thing", {}, Maker())
        (kept,) = (tmp_path / ".locks").iterdir()
        gone = user_cache.lock_file(tmp_path, "thing-0")
        gone.touch()
        for lock in (kept, gone):
            os.utime(lock, (0, 0))
        cache.entry("thing", {"n": "2"}, Maker())
    assert kept.exists()
    assert not gone.exists()


# A cache that cannot be written, or is full.


def test_a_cache_that_cannot_be_made_is_said_once_and_the_run_has_one_of_its_own(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "file").write_text("")
    maker = Maker()
    with Cache(tmp_path / "file/cache", say=said.append, fallback=tmp_path / "spare") as cache:
        files = cache.entry("thing", {}, maker)
        assert cache.entry("thing", {}, maker) == files
        cache.entry("other", {}, maker)
    assert maker.times == 2
    assert files.is_relative_to(tmp_path / "spare")
    assert said == [
        f"tests: {tmp_path}/file/cache/.locks: Not a directory: what is made anew is kept in {tmp_path}/spare, for this run alone"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_a_read_only_cache_is_said_once_and_no_test_ends(tmp_path: Path, said: list[str]) -> None:
    with faults.small_disk(tmp_path / "disk", 8):
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        with Cache(tmp_path / "disk/cache", say=said.append) as cache:
            files = cache.entry("thing", {}, Maker())
            cache.entry("other", {}, Maker())
            assert (files / "program").exists()
    assert len(said) == 1
    assert "Read-only file system: what is made anew is kept in " in said[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_a_full_disk_is_said_once_and_what_did_not_fit_is_made_elsewhere(tmp_path: Path, said: list[str]) -> None:
    with faults.small_disk(tmp_path / "disk", 4), Cache(tmp_path / "disk/cache", say=said.append) as cache:
        small = cache.entry("thing", {}, Maker())
        maker = Maker(6_000_000)
        large = cache.entry("thing", {"large": ""}, maker)
        assert cache.entry("thing", {"large": ""}, maker) == large
        assert maker.times == 2  # once where it did not fit
        assert small.is_relative_to(cache.root)
        assert not large.is_relative_to(tmp_path)
        assert (large / "lib/thing.ko").stat().st_size > 6_000_000
        assert not list(cache.root.glob(".new.*"))
        tool = cache.entry("thing", {"tool": ""}, lambda folder: _by_a_tool(folder, 6))  # which says nothing of errno
        assert (tool / "big").stat().st_size == 6 << 20
    assert len(said) == 1
    assert said[0].startswith(f"tests: {tmp_path}/disk/cache: No space left on device: what is made anew is kept in ")


def _by_a_tool(folder: Path, megabytes: int) -> None:
    command = ["dd", "if=/dev/zero", f"of={folder}/big", "bs=1M", f"count={megabytes}", "status=none"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def test_a_makers_own_error_is_not_taken_for_the_caches(tmp_path: Path, said: list[str]) -> None:
    def fail(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/etc/shadow")

    with Cache(tmp_path, say=said.append) as cache, pytest.raises(PermissionError, match="/etc/shadow"):
        cache.entry("thing", {}, fail)
    assert said == []


def test_the_users_cache_is_where_the_variables_say_and_a_temporary_one_without_them(tmp_path: Path) -> None:
    with Cache.of_this_user({"XDG_CACHE_HOME": str(tmp_path), "HOME": "/none"}) as cache:
        assert cache.root == tmp_path / "coreos-nvidia/tests"
    with Cache.of_this_user({"XDG_CACHE_HOME": "relative", "HOME": str(tmp_path)}) as cache:
        assert cache.root == tmp_path / ".cache/coreos-nvidia/tests"
    with Cache.of_this_user({}) as cache:
        assert cache.entry("thing", {}, Maker()).is_dir()
        assert "coreos-nvidia-tests." in str(cache.root)


def test_a_file_or_a_link_under_an_entrys_name_is_listed_and_goes_and_where_it_leads_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("")
    root = tmp_path / "cache"
    root.mkdir()
    (root / "file").write_text("")
    (root / "dangling").symlink_to("nothing")
    (root / "link").symlink_to(tmp_path / "kept")
    found = user_cache.entries(root)
    assert {made.path.name for made in found} == {"file", "dangling", "link"}
    assert not any(user_cache.in_use(made.path) for made in found)
    assert all(user_cache.remove(made.path) for made in found)
    assert [path.name for path in root.iterdir()] == [".locks"]
    assert (tmp_path / "kept/file").exists()
