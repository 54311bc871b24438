"""The tests' cache: an entry is whole or not there, made once however many want it, and goes when it is old and unused."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.fetch import user_cache
from tests.standins import kernel
from tests.support import cache as cache_module
from tests.support.cache import Cache, CacheBusy, code_of, digest_of, product, versions_of
from tests.support.cache_makers import Maker, line, start
from tests.support.digests import Part

ROOT = Path(__file__).parents[3]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def kept(tmp_path: Path, said: list[str]) -> Iterator[Cache]:
    with Cache(tmp_path / "cache", say=said.append) as cache:
        yield cache


def again(kept: Cache, *, thorough: bool = False) -> Cache:
    """The same cache, as the next run opens it."""
    kept.close()
    return Cache(kept.root, say=kept._say, thorough=thorough)


def test_what_is_decided_by_the_same_is_made_once_and_for_reading_only(kept: Cache, tmp_path: Path, said: list[str]) -> None:
    maker = Maker()
    first = kept.entry("thing", {"a": "1", "b": b"2"}, maker)
    assert kept.entry("thing", {"b": b"2", "a": "1"}, maker) == first
    with again(kept) as later:
        assert later.entry("thing", {"a": "1", "b": b"2"}, maker) == first
    assert maker.times == 1
    assert {path.name for path in first.iterdir()} == {"lib", "program", "link"}
    assert [oct((first / name).stat().st_mode & 0o777) for name in ("lib/thing.ko", "program")] == ["0o444", "0o555"]
    assert said == []


def test_each_thing_that_decides_names_another_entry(kept: Cache, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("1")
    (tmp_path / "d/e").mkdir(parents=True)
    parts: dict[str, Part] = {"text": "1", "bytes": b"1", "file": tmp_path / "f", "folder": tmp_path / "d"}
    changes: list[dict[str, Part]] = [{"text": "2"}, {"bytes": "1"}, {"more": ""}]
    places = [kept.entry("thing", parts, Maker()), kept.entry("other", parts, Maker())]
    places += [kept.entry("thing", parts | change, Maker()) for change in changes]
    for change in (
        lambda: (tmp_path / "f").write_text("2"),
        lambda: (tmp_path / "f").chmod(0o755),
        lambda: (tmp_path / "d/e/new").write_text(""),
        lambda: (tmp_path / "d/e/new").rename(tmp_path / "d/new"),
        lambda: (tmp_path / "d/link").symlink_to("new"),
    ):
        change()
        places.append(kept.entry("thing", parts, Maker()))
    assert len(set(places)) == len(places)
    with pytest.raises(FileNotFoundError):
        kept.entry("thing", {"file": tmp_path / "none"}, Maker())


@pytest.mark.parametrize("kind", ["", "../up", "Upper", "a b", ".new.x", "a-"])
def test_a_kind_that_could_be_a_path_is_refused(kept: Cache, kind: str) -> None:
    with pytest.raises(ValueError, match="no kind of entry"):
        kept.entry(kind, {}, Maker())


def test_code_is_that_of_a_module_and_of_all_tests_modules_that_it_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [row.split()[0] for row in code_of(cache_module).splitlines()]
    assert names == ["__init__.py", "cache.py", "digests.py"]
    assert "kernel.py" in code_of(kernel)
    assert code_of(kernel) != code_of(cache_module)


def test_the_products_digest_is_that_of_its_files_and_not_of_what_python_compiled(tmp_path: Path) -> None:
    assert len(product()) == 128
    shutil.copytree(ROOT / "dockerfiles", tmp_path / "d")
    (tmp_path / "d/__pycache__").mkdir()
    (tmp_path / "d/__pycache__/x.pyc").write_text("compiled")
    assert product().endswith(digest_of(tmp_path / "d"))


def test_versions_are_those_that_are_installed() -> None:
    assert versions_of("libc6", "dpkg").startswith("dpkg 1.")
    with pytest.raises(LookupError, match=r"^no-such-package is not installed: "):
        versions_of("dpkg", "no-such-package")


# Damage.


def truncate(place: Path) -> None:
    module = place / "files/lib/thing.ko"
    module.chmod(0o644)
    os.truncate(module, 3)
    module.chmod(0o444)


def remove_file(place: Path) -> None:
    (place / "files/program").unlink()


def add_file(place: Path) -> None:
    (place / "files/lib/more").write_text("")


def make_executable(place: Path) -> None:
    (place / "files/lib/thing.ko").chmod(0o755)


def relink(place: Path) -> None:
    (place / "files/link").unlink()
    (place / "files/link").symlink_to("elsewhere")


def rewrite(place: Path) -> None:
    program = place / "files/program"
    program.chmod(0o755)
    program.write_text("#!/bin/no\n")
    program.chmod(0o555)
    os.utime(program, (0, 12345))


def remove_all_files(place: Path) -> None:
    shutil.rmtree(place / "files")


def empty_marker(place: Path) -> None:
    os.truncate(place / "entry.json", 0)


def remove_marker(place: Path) -> None:
    (place / "entry.json").unlink()


def nonsense_marker(place: Path) -> None:
    (place / "entry.json").write_text('["listed"]')


def shorten_list(place: Path) -> None:
    (place / "files.json").write_text("{}")


def link_entry(place: Path) -> None:
    place.rename(place.parents[1] / "elsewhere")
    place.symlink_to(place.parents[1] / "elsewhere")


def link_entry_to_nothing(place: Path) -> None:
    shutil.rmtree(place)
    place.symlink_to(place.parents[1] / "nothing")


def link_files(place: Path) -> None:
    (place / "files").rename(place.parents[1] / "elsewhere")
    (place / "files").symlink_to(place.parents[1] / "elsewhere")


def file_as_entry(place: Path) -> None:
    shutil.rmtree(place)
    place.write_text("")


@pytest.mark.parametrize(
    "harm",
    [
        truncate, remove_file, add_file, make_executable, relink, rewrite, remove_all_files, empty_marker, remove_marker,
        nonsense_marker, shorten_list, link_entry, link_entry_to_nothing, link_files, file_as_entry,
    ],
)  # fmt: skip
def test_a_damaged_entry_is_made_again_and_said_once(kept: Cache, said: list[str], harm: Callable[[Path], None]) -> None:
    maker = Maker()
    files = kept.entry("thing", {}, maker)
    harm(files.parent)
    with again(kept) as later:
        assert later.entry("thing", {}, maker) == files
        assert later.entry("thing", {}, maker) == files
    with again(kept) as last:
        last.entry("thing", {}, maker)
    assert maker.times == 2
    assert len(said) == 1
    assert said[0].startswith(f"tests: {files.parent} is damaged (")
    assert (files / "program").read_text() == "#!/bin/sh\n"
    assert not list(kept.root.glob(".new.*"))
    assert not (elsewhere := kept.root.with_name("elsewhere")).exists() or list(elsewhere.iterdir()), "it is not ours to empty"


def test_one_changed_byte_of_the_same_second_is_found_by_a_thorough_run(kept: Cache, said: list[str]) -> None:
    maker = Maker()
    module = kept.entry("thing", {}, maker) / "lib/thing.ko"
    before = module.stat()
    module.chmod(0o644)
    module.write_bytes(b"\xff" + module.read_bytes()[1:])
    module.chmod(0o444)
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    with again(kept) as quick:
        quick.entry("thing", {}, maker)
    assert maker.times == 1
    with again(kept, thorough=True) as later:
        later.entry("thing", {}, maker)
    assert maker.times == 2
    assert said == [f"tests: {module.parents[2]} is damaged (lib/thing.ko has changed) and made again"]


# Makers that fail, are killed, or race.


def test_a_maker_that_fails_leaves_nothing_and_its_error_is_the_callers(kept: Cache) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("no compiler")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="no compiler"):
            kept.entry("thing", {}, fail)
    assert user_cache.entries(kept.root) == []
    assert not list(kept.root.glob(".new.*"))


def test_a_maker_that_makes_nothing_is_wrong(kept: Cache) -> None:
    with pytest.raises(ValueError, match="made nothing"):
        kept.entry("thing", {}, lambda folder: None)
    assert user_cache.entries(kept.root) == []


def test_two_runs_that_want_one_entry_make_it_once(tmp_path: Path) -> None:
    with start(tmp_path, 3) as first:
        assert line(first) == "making\n"
        with start(tmp_path, 3) as second:
            assert line(second) == "whole\n"
            _, told = second.communicate("", timeout=30)
        assert line(first) == "whole\n"
        assert first.communicate("", timeout=30) == ("", "")
    assert told.startswith("tests: waiting for another run that makes slow-thing-")
    assert told.count("\n") == 1
    assert len(user_cache.entries(tmp_path)) == 1


def test_a_run_that_never_ends_is_not_waited_for_without_a_limit(tmp_path: Path) -> None:
    with start(tmp_path, 600) as first:
        assert line(first) == "making\n"
        begun = time.monotonic()
        with Cache(tmp_path, wait=0.5, say=lambda line: None) as cache:
            with pytest.raises(CacheBusy, match=r"^slow-thing-\w+: another run has made it for more than .*fuser .*\.lock"):
                cache.entry("slow-thing", {"x": "1"}, Maker())
            assert time.monotonic() - begun < 10
            assert cache.entry("thing", {}, Maker()).is_dir()  # what the other one does not make is nobody's
        first.kill()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_maker_left_is_never_taken_and_goes(tmp_path: Path, said: list[str], how: signal.Signals) -> None:
    with start(tmp_path, 600) as first:
        assert line(first) == "making\n"
        assert [path.read_text() for path in tmp_path.glob(".new.*/files/half")] == ["half"]
        with Cache(tmp_path, say=said.append) as beside:  # opens the cache beside it: what is in use is not swept
            assert list(tmp_path.glob(".new.*/files/half"))
            first.send_signal(how)
            first.wait(30)
            assert {path.name for path in beside.entry("slow-thing", {"x": "1"}, Maker()).iterdir()} == {"lib", "program", "link"}
    assert not list(tmp_path.glob(".new.*"))
    assert said == []
