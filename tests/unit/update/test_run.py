"""``doit update``: a fixed point over a signed archive; what cannot be had is kept and named."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from pipeline.config import lockfile
from pipeline.config.records import Driver, Kernel, Lock
from pipeline.config.versions_toml import Wanted
from pipeline.core.errors import UsageError
from pipeline.fetch.apt_sources import Archives
from pipeline.fetch.fetcher import Fetcher
from pipeline.update.debian import debian_lock, read_debian
from pipeline.update.run import Result, update
from tests import samples
from tests.samples import changed, wishes
from tests.signed_archive import Key, Served, SignedArchive

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt-get solves, and this is no Debian")
K47, K50, K56 = (f"6.1.0-{abi}-cloud-amd64" for abi in (47, 50, 56))
LATER = "Sun, 12 Jul 2026 10:00:00 UTC"


@dataclass
class World:
    """An archive, who reads it, and what is wanted of it. ``told`` stands for DRIVER_ARCHIVES."""

    archive: SignedArchive
    server: Served
    fetcher: Fetcher
    told: str
    apt_root: Path
    kernels: tuple[str, ...] = (K47, K50, K56)
    base: tuple[str, ...] = ("busybox", "kmod")
    required: str = '["open", "proprietary"]'
    extra: str = ""

    @property
    def wanted(self) -> Wanted:
        return wishes(
            f"""
[debian]
version_id = "12"
keyring = "{self.archive.key.keyring}"
suites = [
  {{archive = "debian", suite = "bookworm"}},
  {{archive = "debian-security", suite = "bookworm-security"}},
]
kernels = {list(self.kernels)}
toolchain = ["gcc-12"]
base = {list(self.base)}

[[driver]]
exact = "535.261.03"
reason = "both kinds"
required = {self.required}

[[driver]]
exact = "535.309.01"
reason = "the newest"
kernels = ["{K56}"]
{self.extra}"""
        )

    @property
    def archives(self) -> Archives:
        return Archives(self.wanted, {"DRIVER_ARCHIVES": self.told}, self.apt_root)

    def update(self, old: Lock | None = None) -> Result:
        return update(self.wanted, old or lockfile.empty(), self.fetcher, self.archives)

    def first(self) -> Lock:
        """The lock of an undisturbed first run, as it is read back from its file."""
        result = self.update()
        assert result.problems == []
        return lockfile.parse(lockfile.dump(result.lock))


@pytest.fixture
def world(archive: SignedArchive, archive_server: Served, fetcher: Fetcher, tmp_path: Path) -> World:
    told = f"debian={archive_server.url}/debian debian-security={archive_server.url}/debian-security"
    return World(archive, archive_server, fetcher, told, tmp_path / "no-apt")


def kernel(held: Lock, name: str) -> Kernel:
    (found,) = (k for k in held.kernels if k.kernel == name)
    return found


def driver(held: Lock, version: str) -> Driver:
    (found,) = (d for d in held.drivers if d.version == version)
    return found


def test_the_first_update_pins_everything_that_is_wanted(world: World) -> None:
    result = world.update()
    assert result.problems == []
    assert result.changes == [
        "+ base amd64 (3 packages)",
        "+ toolchain debian-12/amd64 (3 packages)",
        "+ driver 535.261.03/amd64 (open and proprietary, 6 packages)",
        "+ driver 535.309.01/amd64 (proprietary, 6 packages)",
        f"+ kernel debian/amd64:{K47} (bookworm 6.1.170-3) with 535.261.03",
        f"+ kernel debian/amd64:{K50} (bookworm 6.1.176-1) with 535.261.03",
        f"+ kernel debian/amd64:{K56} (bookworm-security 6.1.192-2) with 535.261.03, 535.309.01",
    ]
    said = {"changes": result.changes, "problems": [], "reports": []}
    assert result.json == {**said, "kernels": 3, "drivers": 2, "pending": 0, "pending_drivers": 0}


def test_every_pin_is_the_sha256_and_size_of_the_file_that_the_archive_holds_there(world: World) -> None:
    files = list(world.first().files())
    assert len(files) > 20
    for file in files:
        assert file.archive is not None
        assert file.path is not None
        data = (world.archive.root / file.archive / file.path).read_bytes()
        assert (file.sha256, file.size) == (hashlib.sha256(data).hexdigest(), len(data))
        assert file.trust == "signed-index"
        assert not file.urls


def test_a_kernel_carries_its_version_its_release_and_what_it_is_compiled_with(world: World) -> None:
    found = kernel(world.first(), K47)
    (release,) = found.releases
    assert (found.version, found.toolchain, found.date) == ("6.1.170", "debian-12", "2026-07-11T10:16:37Z")
    assert (release.channel, release.version, release.os_tag) == ("bookworm", "6.1.170-3", "debian12")
    assert [f"{f.name} {f.version}" for f in found.headers] == [
        f"linux-headers-{K47} 6.1.170-3",
        "linux-headers-6.1.0-47-common 6.1.170-3",
        "linux-kbuild-6.1 6.1.192-2",
    ]
    assert [f.name for f in found.image] == [f"linux-image-{K47}"]


def test_a_drivers_parts_never_mix_two_versions_as_apts_candidates_would(world: World) -> None:
    held = world.first()
    for version in ("535.261.03", "535.309.01"):
        found = driver(held, version)
        tools = {"nvidia-persistenced", "nvidia-modprobe"}
        assert {f.name for f in found.userspace} >= {"libcuda1", "nvidia-smi", "firmware-nvidia-gsp", *tools}
        parts = (*found.open, *found.proprietary, *found.userspace)
        assert {f.name for f in parts if not f.version.startswith(version)} <= tools
    assert driver(held, "535.261.03").required == ("open", "proprietary")
    assert driver(held, "535.309.01").kinds == ("proprietary",)


def test_base_and_toolchain_are_closures_with_the_newest_of_all_suites(world: World) -> None:
    held = world.first()
    assert [f"{f.name} {f.version}" for f in held.base("amd64").packages] == [
        "busybox 1:1.35.0-4+b1",
        "kmod 30-1",
        "libc6 2.36-9+deb12u14",
    ]
    assert [f.name for f in held.toolchain(held.kernels[0]).packages] == ["binutils", "gcc-12", "libc6"]


def test_what_a_kernels_source_needs_more_makes_a_toolchain_of_its_own(world: World) -> None:
    held = world.first()
    assert world.wanted.debian is not None
    wanted = msgspec.structs.replace(world.wanted.debian, source_toolchain=("kmod",))
    indices = read_debian(wanted, "amd64", world.fetcher, world.archives)
    made = debian_lock(world.wanted, wanted, "amd64", held, indices, [])
    assert {t.name: [f.name for f in t.packages] for t in made.toolchains} == {
        "debian-12": ["binutils", "gcc-12", "libc6"],
        "debian-12-source": ["binutils", "gcc-12", "kmod", "libc6"],
    }
    assert made.toolchain(made.kernels[0]) == held.toolchain(held.kernels[0]), "the other one stays as it was"


def test_a_driver_out_of_nvidias_file_stays_though_debian_does_not_have_it(world: World) -> None:
    held = world.first()
    run = samples.run_driver("580.178.04")
    before = msgspec.structs.replace(held, drivers=(*held.drivers, run))
    assert world.wanted.debian is not None
    indices = read_debian(world.wanted.debian, "amd64", world.fetcher, world.archives)
    made = debian_lock(world.wanted, world.wanted.debian, "amd64", before, indices, [])
    assert run in made.drivers
    assert {d.version for d in made.drivers} == {"535.261.03", "535.309.01", "580.178.04"}


def test_a_second_update_changes_no_byte_even_when_the_archive_was_signed_anew(world: World) -> None:
    held = world.first()
    world.archive.date = LATER
    world.archive.publish()
    result = world.update(held)
    assert (result.changes, result.problems) == ([], [])
    assert lockfile.dump(result.lock) == lockfile.dump(held)


def test_the_order_in_which_an_index_lists_packages_does_not_matter(world: World) -> None:
    held = world.first()
    for stanzas in world.archive.packages.values():
        stanzas.reverse()
    world.archive.publish()
    assert lockfile.dump(world.update(held).lock) == lockfile.dump(held)
    assert lockfile.dump(world.update().lock) == lockfile.dump(held)


def test_only_what_changed_takes_the_new_date(world: World) -> None:
    held = world.first()
    world.archive.add("bookworm-security", "main", "kmod", "30-1+deb12u1", "libc6 (>= 2.34)")
    world.archive.date = LATER
    world.archive.publish()
    result = world.update(held)
    assert result.changes == ["~ base amd64: packages: kmod 30-1 -> 30-1+deb12u1"]
    assert result.lock.base("amd64").date == "2026-07-12T10:00:00Z"
    dates = {k.date for k in result.lock.kernels} | {d.date for d in result.lock.drivers}
    assert dates == {"2026-07-11T10:16:37Z"}


def test_a_pattern_takes_every_kernel_and_no_package_that_only_names_the_newest(world: World) -> None:
    world.kernels = ("*",)
    assert [k.kernel for k in world.first().kernels] == [K47, K50, K56]


def test_a_kernel_that_left_the_archive_is_stale_until_it_comes_back_with_its_old_date(world: World) -> None:
    held = world.first()
    packages = {place: list(stanzas) for place, stanzas in world.archive.packages.items()}
    world.archive.drop("6.1.0-47")
    world.archive.date = LATER
    world.archive.publish()
    gone = world.update(held)
    assert gone.problems == []
    assert gone.changes == [f"~ kernel debian/amd64:{K47}: left the archive; kept as stale"]
    assert kernel(gone.lock, K47) == changed(kernel(held, K47), stale=True)
    assert lockfile.dump(world.update(gone.lock).lock) == lockfile.dump(gone.lock)
    world.archive.packages = packages
    world.archive.publish()
    back = world.update(gone.lock)
    assert back.changes == [f"~ kernel debian/amd64:{K47}: is in the archive again"]
    assert lockfile.dump(back.lock) == lockfile.dump(held)


def test_a_driver_that_left_the_archive_is_stale_and_stays_wanted(world: World) -> None:
    held = world.first()
    world.archive.drop("535.309.01")
    world.archive.publish()
    result = world.update(held)
    assert result.changes == ["~ driver 535.309.01/amd64: left the archive; kept as stale"]
    assert kernel(result.lock, K56).drivers == ("535.261.03", "535.309.01")


def test_what_is_no_longer_wanted_goes(world: World) -> None:
    held = world.first()
    world.kernels = (K47,)
    result = world.update(held)
    assert result.changes == [
        f"- kernel debian/amd64:{K50}: no longer wanted",
        f"- kernel debian/amd64:{K56}: no longer wanted",
    ]
    without = wishes()
    emptied = update(without, held, world.fetcher, Archives(without, {}, world.apt_root))
    assert emptied.lock == lockfile.empty()
    assert emptied.problems == []


def test_a_driver_wanted_on_another_kernel_too_is_a_change_of_that_kernel_alone(world: World) -> None:
    held = world.first()
    world.extra = ""
    wanted = world.wanted
    wider = changed(wanted, drivers=(wanted.drivers[0], changed(wanted.drivers[1], kernels=(K50, K56))))
    result = update(wider, held, world.fetcher, Archives(wider, {"DRIVER_ARCHIVES": world.told}, world.apt_root))
    assert result.changes == [f"~ kernel debian/amd64:{K50}: drivers: 535.261.03 -> 535.261.03, 535.309.01"]


def test_an_index_that_was_wrong_once_is_asked_for_again(world: World) -> None:
    (by_hash,) = world.archive.file("bookworm/main/binary-amd64/by-hash/SHA256").iterdir()
    right = by_hash.read_bytes()
    by_hash.write_bytes(b"an error page")
    world.archive.file("bookworm/main/binary-amd64/Packages.xz").unlink()
    assert len(world.update().problems) == 1
    by_hash.write_bytes(right)
    assert world.update().problems == []


@pytest.mark.parametrize("suite", ["bookworm", "bookworm-security"])
@pytest.mark.parametrize("breakage", ["tampered InRelease", "no InRelease", "truncated index", "another suite's"])
def test_an_archive_that_is_not_right_is_named_and_everything_it_gave_is_kept(world: World, suite: str, breakage: str) -> None:
    held = world.first()
    world.archive.add("bookworm", "main", "kmod", "31-1", "libc6")
    world.archive.add("bookworm-security", "main", "kmod", "31-1", "libc6")
    world.archive.publish()
    inrelease = world.archive.file(f"{suite}/InRelease")
    if breakage == "tampered InRelease":
        inrelease.write_bytes(inrelease.read_bytes().replace(b"Acquire", b"acquire"))
    elif breakage == "no InRelease":
        inrelease.unlink()
    elif breakage == "truncated index":
        for path in world.archive.file(f"{suite}/main").rglob("*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[:-8])
    else:
        other = {"bookworm": "bookworm-security", "bookworm-security": "bookworm"}[suite]
        inrelease.write_bytes(world.archive.file(f"{other}/InRelease").read_bytes())
    result = world.update(held)
    (problem,) = result.problems
    assert problem.startswith(f"debian/amd64: {world.server.url}/")
    assert f"/dists/{suite}/" in problem
    assert problem.endswith("; what it gave before is kept")
    assert result.changes == []
    assert lockfile.dump(result.lock) == lockfile.dump(held)


def test_a_dead_server_is_a_problem_and_the_lock_stays(world: World) -> None:
    held = world.first()
    world.server.close()
    result = world.update(held)
    assert len(result.problems) == 1
    assert world.server.url in result.problems[0]
    assert lockfile.dump(result.lock) == lockfile.dump(held)


def test_the_next_base_serves_where_the_first_is_gone_or_signed_by_someone_else(world: World, tmp_path: Path) -> None:
    held = world.first()
    with Key() as stranger:
        other = SignedArchive(tmp_path / "other", stranger)
        other.publish()
    with Served(other.root) as server:
        world.told = f"debian={server.url}/nothing debian={server.url}/debian {world.told}"
        result = world.update(held)
    assert (result.changes, result.problems) == ([], [])
    assert "/debian/dists/bookworm/InRelease" in server.asked


def test_an_archive_without_a_known_address_is_wrong_use(world: World) -> None:
    world.told = world.told.split()[0]
    with pytest.raises(UsageError, match="no address of the package archive 'debian-security' is known"):
        world.update()


def test_a_machine_without_apt_is_told_so(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gpgv = shutil.which("gpgv")
    assert gpgv is not None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gpgv").symlink_to(gpgv)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UsageError, match="apt-get is not installed"):
        world.update()


def test_a_kernel_whose_parts_are_not_all_there_is_a_problem_of_that_kernel_alone(world: World) -> None:
    held = world.first()
    world.archive.drop("linux-headers-6.1.0-47-common")
    world.archive.add("bookworm-security", "main", "kmod", "31-1", "libc6")
    world.archive.publish()
    result = world.update(held)
    (problem,) = result.problems
    assert problem.startswith(f"debian/amd64: kernel {K47}: linux-headers-{K47} 6.1.170-3 needs linux-headers-6.1.0-47-co")
    assert problem.endswith("; the pinned one is kept")
    assert kernel(result.lock, K47) == kernel(held, K47)
    assert result.changes == ["~ base amd64: packages: kmod 30-1 -> 31-1"]


def test_a_pattern_that_matches_no_kernel_is_a_problem_that_names_it(world: World) -> None:
    world.kernels = (K47, "6.13.*")
    assert world.update().problems == ["debian: no kernel matches '6.13.*': take it out of [debian] kernels, or add its suite"]


def test_a_driver_that_no_suite_holds_is_a_problem_and_no_kernel_gets_it(world: World) -> None:
    world.archive.drop("535.309.01")
    world.archive.publish()
    result = world.update()
    (problem,) = result.problems
    assert problem.startswith("driver 535.309.01/amd64: no suite of [debian] holds it")
    assert kernel(result.lock, K56).drivers == ("535.261.03",)


def test_a_driver_without_a_required_kind_is_a_problem_and_the_pinned_one_stays(world: World) -> None:
    held = world.first()
    world.archive.drop("nvidia-open-kernel-source")
    world.archive.publish()
    result = world.update(held)
    (problem,) = result.problems
    assert "has no open module sources of it, which versions.toml requires" in problem
    assert driver(result.lock, "535.261.03") == driver(held, "535.261.03")


def test_a_base_package_that_does_not_exist_is_a_problem_in_apts_words(world: World) -> None:
    held = world.first()
    world.base = ("busybox", "no-such-package")
    result = world.update(held)
    (problem,) = result.problems
    assert "Unable to locate package no-such-package" in problem
    assert lockfile.dump(result.lock) == lockfile.dump(held)


@pytest.mark.parametrize(
    ("package", "field", "value"),
    [
        ("linux-image-6.1.0-47-cloud-amd64", "Filename", "../../etc/shadow"),
        ("linux-image-6.1.0-47-cloud-amd64", "Filename", "pool/a b.deb"),
        ("linux-image-6.1.0-47-cloud-amd64", "SHA256", "0" * 63),
        ("linux-image-6.1.0-47-cloud-amd64", "Size", "0"),
    ],
)
def test_a_value_that_no_lock_may_hold_is_refused_where_it_comes_in(world: World, package: str, field: str, value: str) -> None:
    (stanza,) = (s for found in world.archive.packages.values() for s in found if s["Package"] == package)
    stanza[field] = value
    world.archive.publish()
    result = world.update()
    (problem,) = (p for p in result.problems if "odd" in p)
    assert f"the index says something odd of kernel {K47}" in problem
    assert "$.image[0]" in problem
    assert [k.kernel for k in result.lock.kernels] == [K50, K56]


def test_a_kernel_with_a_name_that_is_none_reaches_no_tag_and_no_dockerfile(world: World) -> None:
    name = "6.1.0-$(reboot)-cloud-amd64"
    needs = "linux-headers-6.1.0-47-common (= 6.1.170-3), linux-kbuild-6.1 (>= 6.1.170-3)"
    world.archive.add("bookworm", "main", f"linux-headers-{name}", "6.1.170-3", needs)
    world.archive.add("bookworm", "main", f"linux-image-{name}", "6.1.170-3")
    world.archive.publish()
    world.kernels = ("*",)
    result = world.update()
    (problem,) = result.problems
    assert "is not a kernel release" in problem
    assert [k.kernel for k in result.lock.kernels] == [K47, K50, K56]


def test_what_the_update_gives_can_be_written_and_read_back(world: World, tmp_path: Path) -> None:
    result = world.update()
    path = tmp_path / "versions.lock"
    assert lockfile.write(path, lockfile.dump(result.lock))
    assert lockfile.load(path) == result.lock
    assert b"127.0.0.1" not in path.read_bytes()
