"""Each thing that pairs built at once could pile up has a bound, whatever their number. test_footprint.py has the sum of it."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.build import contexts, parallel_gzip, shared_layers
from pipeline.build.assemble import Layer, Store, tree
from pipeline.build.parallel_gzip import BLOCK, Gzip
from pipeline.build.shared_layers import Workshop
from pipeline.cli.workspace import Workspace
from pipeline.config.records import Driver
from pipeline.formats.unpacking import to_tar
from pipeline.trees import tars
from pipeline.trees.spec import Tree
from tests import samples

FILES = {"module.ko": (0o644, b"x" * 5000)}
LAYER = Layer("sha256:" + "a" * 64, 1, "sha256:" + "b" * 64, 1)


def workshop(place: Path) -> Workshop:
    the_lock = samples.a_lock()
    anything: Any = None
    return Workshop(place, samples.plan(the_lock).renderer, anything, anything, Store(place / "layers"), anything, anything)


def test_a_passing_layer_is_the_one_that_would_be_kept_and_is_gone_when_it_is_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    passing = store.add(tree(FILES), 0, passing=True)
    assert store.blob(passing.digest).stat().st_size == passing.size
    with store.open(passing) as tar:
        assert tar.getnames() == ["module.ko"]
    store.drop(passing)
    assert not store.blob(passing.digest).exists()
    kept = store.add(tree(FILES), 0)
    store.drop(kept)
    assert kept == passing
    assert store.blob(kept.digest).exists(), "what many images share stays"


def test_what_a_killed_run_left_of_layers_trees_and_toolchains_goes_with_the_next_one(tmp_path: Path) -> None:
    build = tmp_path / "build"
    left = (
        "layers/passing/aa",
        "layers/sha256/.layer.x",
        "trees/.aa.tar.x/part",
        "docker/toolchain/debian-12/.root.x/usr/bin/sh",
    )
    kept = ("layers/sha256/aa", "layers/recipes/aa.json", "trees/aa.tar", "docker/toolchain/debian-12/Dockerfile")
    for name in left + kept:
        (build / name).parent.mkdir(parents=True, exist_ok=True)
        (build / name).touch()
    with Workspace(tmp_path, {}).alone():
        there = {str(path.relative_to(build)) for path in build.rglob("*") if path.is_file()}
    assert there == {*kept, "run.lock"}


def test_a_context_that_was_cleared_holds_the_dockerfile_alone(tmp_path: Path) -> None:
    rendered = samples.plan().pairs[0].rendered
    root = tmp_path / "docker"
    contexts.write(rendered, root, lambda text: None)
    directory = root / rendered.name
    for folder, _ in (*rendered.files, *rendered.local):
        (directory / folder).mkdir(exist_ok=True)
        (directory / folder / "copy.deb").write_bytes(b"megabytes")
    made = Tree("headers.tar", "rpms", ())
    (directory / "headers.tar").touch()
    (directory / "root.tar").touch()
    shared = tmp_path / f"trees/{made.key}.tar"
    shared.parent.mkdir()
    shared.touch()
    with_tree = dataclasses.replace(rendered, trees=(made,))
    contexts.clear(with_tree, root)
    assert sorted(path.name for path in directory.rglob("*")) == [".rendered", "Dockerfile"]
    assert shared.exists(), "pairs of the same kernel go on with it"
    contexts.clear(with_tree, root, trees_too=True)
    assert not shared.exists()


def test_threads_that_want_one_tree_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def slowly(entries: Any, dest: Path) -> Path:
        made.append(dest.name)
        time.sleep(0.2)
        return to_tar((), dest)

    monkeypatch.setattr(tars, "to_tar", slowly)
    anything: Any = None
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: tars.lay(Tree("headers.tar", "rpms", ()), tmp_path / "trees", anything), range(8)))
    assert len(found) == len(made) == 1


def test_the_trees_that_stay_are_those_last_used(tmp_path: Path) -> None:
    anything: Any = None
    cache = tmp_path / "trees"
    first, *more = (Tree("headers.tar", "rpms", (), f"6.1.{number}") for number in range(tars.KEEP + 2))
    for number, one in enumerate((first, *more[:2])):
        os.utime(tars.lay(one, cache, anything), (number, number))
    tars.lay(first, cache, anything)
    for one in more[2:]:
        tars.lay(one, cache, anything)
    assert len(list(cache.iterdir())) == tars.KEEP
    assert tars.place(first, cache).exists(), "it is the oldest, and was used again"
    assert not tars.place(more[0], cache).exists()


def test_a_userspace_is_read_once_however_many_pairs_want_its_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop, reading, most, read = workshop(tmp_path), 0, 0, 0

    def slowly(self: Workshop, layer: Layer, driver: Driver) -> None:
        nonlocal reading, most, read
        reading, read = reading + 1, read + 1
        most = max(most, reading)
        time.sleep(0.1)
        reading -= 1

    monkeypatch.setattr(Workshop, "_prove_userspace", slowly)
    drivers = [samples.driver(), samples.changed(samples.driver(), version="550.163.01")] * 4
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda driver: shop.prove_userspace(LAYER, driver), drivers))
    assert (most, read) == (1, 2)


def test_proofs_wait_for_one_another_where_processors_or_memory_are_few(tmp_path: Path) -> None:
    shop = workshop(tmp_path)
    held = 0
    while shop.proving.acquire(blocking=False):
        held += 1
    assert 1 <= held <= len(os.sched_getaffinity(0))


def test_a_log_ends_growing_where_a_step_does_not_end_talking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Talker:
        cpus = 1

        def build(self, context: Path, *, log: Any, **_: Any) -> None:
            for number in range(10_000):
                log(f"line {number}")

    monkeypatch.setattr(shared_layers, "MAX_LOG", 5_000)
    shop = workshop(tmp_path)
    shop.open_engine = Talker  # type: ignore[assignment]
    shop.build(samples.plan().pairs[0].rendered, tmp_path, "talker")
    written = shop.log("talker").read_text()
    assert written.startswith("line 0\nline 1\n")
    assert 4_000 < len(written) < 6_500


def test_members_that_are_packed_at_once_share_the_blocks_and_their_bytes_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted:
        """A semaphore that notes how much of it was taken."""

        def __init__(self, room: int) -> None:
            self.room, self.taken, self.most, self.lock = room, 0, 0, threading.Lock()

        def acquire(self, *, blocking: bool) -> bool:
            with self.lock:
                if self.taken == self.room:
                    return False
                self.taken += 1
                self.most = max(self.most, self.taken)
                return True

        def release(self) -> None:
            with self.lock:
                self.taken -= 1

    def pack(number: int) -> bytes:
        out: list[bytes] = []
        with Gzip(out.append, 4) as member:
            for _ in range(12):
                member.write(bytes([number]) * (BLOCK // 2))
            member.finish()
        return b"".join(out)

    alone = [pack(number) for number in range(6)]
    room = Counted(3)
    monkeypatch.setattr(parallel_gzip, "_ROOM", room)
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(pack, range(6))) == alone
    assert (room.most, room.taken) == (3, 0)

    def full(_: bytes) -> None:
        if room.taken > 1:
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"), Gzip(full, 4) as member:
        member.write(b"x" * 9 * BLOCK)
    assert room.taken == 0, "what an error has left gives its room back"
