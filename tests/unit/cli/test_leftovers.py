"""``doit prune --local``: what this machine keeps and the lock does not need. Never what the lock pins now."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import time
from pathlib import Path

import pytest

from pipeline.build.assemble import Layer, Store, tree
from pipeline.cli.leftovers import FEED_DAYS, SMALL, UNUSED_DAYS, Leftover, leftovers, others, remove
from pipeline.config import lockfile
from pipeline.config.records import kept
from pipeline.core import scratch_dirs
from pipeline.core.errors import DiskError, UsageError
from pipeline.fetch import user_cache
from pipeline.plan.pairs import Plan
from tests import registry_process, samples
from tests.small_project import SmallProject
from tests.support.cache import Cache

MEGABYTE = 1_500_000


def put(path: Path, size: int = 10) -> Path:
    """A file of so many bytes, with holes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    return path


def unused_for(path: Path, days: float) -> None:
    """Have the file been used so long ago, and have come a year before."""
    now = time.time()
    os.utime(path, (now - days * 86400, now - (days + 365) * 86400))


class Machine:
    """What a checkout has below ``build``: of everything one that is needed and one that is not."""

    def __init__(self, root: Path, plan: Plan) -> None:
        self.build, self.store = root / "build", root / "build/xdg/coreos-nvidia/downloads"
        self.entries = self.store.with_name("tests")
        layers = Store(self.build / "layers")
        renderer = plan.renderer
        recipes = [renderer.base(plan.lock.bases[0]).recipe, renderer.userspace(plan.lock.drivers[0]).recipe]
        self.needed: list[Path] = []
        self.old: list[Path] = []
        for number, recipe in enumerate([*recipes, "f" * 64]):
            layers.remember(recipe, Layer(f"sha256:{number:064x}", MEGABYTE, f"sha256:{0:064x}", 0))
            of = self.old if recipe == "f" * 64 else self.needed
            of += [
                put(self.build / "layers/sha256" / f"{number:064x}", MEGABYTE),
                self.build / "layers/recipes" / f"{recipe}.json",
            ]
        self.needed.append(put(self.build / "layers/sha256" / f"{9:064x}", SMALL - 1))  # the program's
        self.old.append(put(self.build / "layers/sha256" / f"{8:064x}.part"))
        for file in plan.lock.files():
            self.needed += [put(kept(self.store, file.sha256), file.size), put(kept(self.store, f"{file.sha256}.part"))]
        self.old += [put(kept(self.store, "e" * 64), 4_000_000), put(kept(self.store, f"{'d' * 64}.part"))]
        for path in self.old[-2:]:
            unused_for(path, UNUSED_DAYS + 1)
        self.others = [put(kept(self.store, "7" * 64), 1000), put(kept(self.store, f"{'6' * 64}.part"), 500)]
        unused_for(self.others[0], UNUSED_DAYS - 1)
        self.needed += self.others
        self.needed.append(put(self.store / "http/aa" / ("a" * 64)))
        feed = put(self.store / "http/bb" / ("b" * 64))
        os.utime(feed, (0, time.time() - FEED_DAYS * 86400 - 60))
        self.old.append(feed)
        pair = plan.pairs[0].id.replace("/", "_").replace(":", "_")
        self.needed += [put(self.build / "log" / f"{name}.log") for name in (f"{pair}-probes", f"{pair}-open", "internal-error")]
        self.needed += [put(self.build / "log" / f"{name}.log") for name in ("toolchain_debian-12_amd64", "base_amd64-unpack")]
        self.old += [
            put(self.build / "log" / f"debian_amd64_6.1.0-9-cloud-amd64-535.1.2-{kind}.log") for kind in ("open", "probes")
        ]
        self.old.append(put(self.build / "log/driver_535.1.2_amd64-unpack.log"))
        self.needed += [
            put(self.build / name) for name in ("index.json", "outcomes/0123456789abcdef.json", "doit.db", "page.html")
        ]


@pytest.fixture
def plan() -> Plan:
    return samples.plan()


@pytest.fixture
def machine(tmp_path: Path, plan: Plan) -> Machine:
    return Machine(tmp_path, plan)


def test_all_that_the_lock_does_not_need_may_go_and_nothing_else(machine: Machine, plan: Plan) -> None:
    found = leftovers(plan, machine.build, machine.store)
    assert [left.path for left in found] == sorted(machine.old)
    for left in found:
        assert left.bytes == left.path.stat().st_size
        remove(left)
        remove(left)
    assert leftovers(plan, machine.build, machine.store) == []
    assert not any(path.exists() for path in machine.old)
    assert all(path.exists() for path in machine.needed)


def test_what_stands_there_and_is_none_of_ours_stays(machine: Machine, plan: Plan, tmp_path: Path) -> None:
    target = put(tmp_path / "elsewhere", 2 * SMALL)
    strange = [
        put(machine.build / "layers/sha256/readme", 2 * SMALL),
        put(machine.store / "sha256/ab/notes"),
        put(machine.build / "log/mine.log"),
    ]
    link = machine.build / "layers/sha256" / ("7" * 64)
    link.symlink_to(target)
    folder = machine.store / "sha256/cc" / ("c" * 64)
    folder.mkdir(parents=True)
    assert not {*strange, link, folder} & {left.path for left in leftovers(plan, machine.build, machine.store)}


def test_a_download_that_somebody_fills_this_moment_stays(machine: Machine) -> None:
    part = next(path for path in machine.old if path.suffix == ".part")
    with part.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        remove(Leftover(part, 10, "a download"))
        assert part.exists()
    remove(Leftover(part, 10, "a download"))
    assert not part.exists()


def test_a_note_that_cannot_be_read_names_no_layer_and_ends_nothing(machine: Machine, plan: Plan) -> None:
    note = machine.build / "layers/recipes" / f"{plan.renderer.base(plan.lock.bases[0]).recipe}.json"
    for text in ("", "[]", '{"digest": 5}', "{}"):
        note.write_text(text)
        assert note not in {left.path for left in leftovers(plan, machine.build, machine.store)}


def test_a_lock_without_a_kernel_tells_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no kernel"):
        leftovers(samples.plan(lockfile.empty()), tmp_path, tmp_path)


def test_what_cannot_be_removed_is_said(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="Is a directory"):
        remove(Leftover(tmp_path, 10, ""))


@pytest.mark.skipif(not registry_process.installed(), reason=registry_process.MISSING)
def test_a_layer_that_came_from_the_registry_is_known_by_its_recipe(tmp_path: Path) -> None:
    with registry_process.running_registry(tmp_path / "registry") as place:
        spaces = [SmallProject(tmp_path / name, samples.a_lock(), registry=place).space() for name in ("first", "second")]
        recipe = spaces[0].renderer.base(spaces[0].lock.base("amd64")).recipe
        store = spaces[0].shop.store
        store.remember(recipe, store.add(tree({"usr/bin/sh": (0o755, random.Random(8).randbytes(2 * SMALL))}), 0))
        spaces[0].shop.base("amd64")  # pushes it
        shop = spaces[1].shop
        layer = shop.local(shop.base("amd64"))
        assert layer.size > SMALL
        assert shop.store.find(recipe) is not None
        assert leftovers(spaces[1].plan, tmp_path / "second/build", spaces[1].store) == []


def test_the_command_lists_first_and_removes_with_apply_and_asks_no_registry(tmp_path: Path) -> None:
    project = SmallProject(tmp_path, samples.a_lock(), registry="127.0.0.1:9")
    machine = Machine(tmp_path, project.space().plan)
    listed = project.doit("prune", "--local")
    assert listed.returncode == 0, listed.stderr
    assert all(path.exists() for path in machine.old)
    path = f"build/xdg/coreos-nvidia/downloads/sha256/ee/{'e' * 64}"
    assert re.search(
        rf"(?m)^{path}  4\.0 MB\n    a download that the lock does not pin; last used 20\d\d-\d\d-\d\d$", listed.stdout
    )
    stays = "2 downloads more, 0.0 MB, that this lock does not pin: used within 30 days, maybe by another checkout; "
    stays += f"kept in {machine.store}\n"
    assert listed.stderr == f"{len(machine.old)} files, 5.5 MB, may go\n{stays}"
    told = json.loads(project.doit("prune", "--local", "--json").stdout)
    assert {row["path"] for row in told} == {str(path.relative_to(tmp_path)) for path in machine.old}
    assert all(set(row) == {"path", "bytes", "why"} for row in told)
    gone = project.doit("prune", "--local", "--apply")
    assert (gone.returncode, gone.stderr) == (0, f"{len(machine.old)} files, 5.5 MB, are gone\n{stays}")
    assert not any(path.exists() for path in machine.old)
    assert all(path.exists() for path in machine.needed)
    again = project.doit("prune", "--local")
    assert (again.stdout, again.stderr) == ("", f"0 files, 0.0 MB, may go\n{stays}")


def test_what_another_checkout_has_used_since_it_was_listed_stays(machine: Machine, plan: Plan) -> None:
    found = leftovers(plan, machine.build, machine.store)
    (listed,) = (left for left in found if left.path.name == "e" * 64)
    user_cache.note_use(listed.path)
    assert not remove(listed)
    assert listed.path.exists()
    assert others(plan, machine.store) == (3, 4_001_500)


@pytest.mark.parametrize("day", [UNUSED_DAYS - 0.01, UNUSED_DAYS + 0.01])
def test_a_download_that_no_lock_here_pins_goes_when_it_was_unused_for_so_long(machine: Machine, plan: Plan, day: float) -> None:
    path = put(kept(machine.store, "5" * 64))
    unused_for(path, day)
    assert (path in {left.path for left in leftovers(plan, machine.build, machine.store)}) == (day > UNUSED_DAYS)


def test_an_earlier_versions_downloads_are_listed_as_one_folder_and_go(tmp_path: Path) -> None:
    project = SmallProject(tmp_path, samples.a_lock())
    old = put(kept(tmp_path / "build/cache", "e" * 64), 3_000_000)
    put(tmp_path / "build/cache/http/aa" / ("a" * 64))
    listed = project.doit("prune", "--local")
    where = tmp_path / "build/xdg/coreos-nvidia/downloads"
    assert listed.stdout == f"build/cache  3.0 MB\n    downloads of an earlier version; they are kept in {where} now\n"
    here = project.doit("prune", "--local", "--apply", DRIVER_CACHE=str(tmp_path / "build/cache"))  # where it is still the store
    assert (here.returncode, old.exists()) == (0, True)
    assert project.doit("prune", "--local", "--apply").stderr == "1 file, 3.0 MB, are gone\n"
    assert not (tmp_path / "build/cache").exists()


def test_what_tests_made_is_listed_with_its_last_use_and_goes_where_nobody_uses_it(tmp_path: Path) -> None:
    project = SmallProject(tmp_path, samples.a_lock())
    with Cache.of_this_user(project.environ) as cache:
        held = cache.entry("thing", {"n": "1"}, lambda folder: put(folder / "big", 10)).parent
        with Cache.of_this_user(project.environ) as other:
            free = other.entry("thing", {"n": "2"}, lambda folder: (folder / "f").write_bytes(b"x" * 2_000_000)).parent
        os.utime(free, (0, 1_700_000_000))
        listed = project.doit("prune", "--local")
        name = free.relative_to(tmp_path)
        assert listed.stdout == f"{name}  2.0 MB\n    made by tests; last used 2023-11-14\n"
        assert project.doit("prune", "--local", "--apply").stderr == "1 file, 2.0 MB, are gone\n"
        assert (free.exists(), held.exists()) == (False, True)
    assert project.doit("prune", "--local", "--apply").stderr == "1 file, 0.0 MB, are gone\n"
    assert not held.exists()
    assert not list(cache.root.glob(".new.*"))


def test_nothing_is_removed_beside_a_run_or_an_update(tmp_path: Path) -> None:
    project = SmallProject(tmp_path, samples.a_lock())
    machine = Machine(tmp_path, project.space().plan)
    with scratch_dirs.folder(tmp_path / "build", scratch_dirs.UPDATE):
        during = project.doit("prune", "--local", "--apply")
    assert during.returncode == 2
    assert during.stderr == f"doit: an update works in {tmp_path}: wait for it, or end it\n"
    with project.space().alone():
        assert project.doit("prune", "--local", "--apply").returncode == 2
        assert project.doit("prune", "--local").returncode == 0
    assert all(path.exists() for path in machine.old)
