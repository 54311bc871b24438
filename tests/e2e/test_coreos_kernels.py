"""Fedora CoreOS, Flatcar, Container Linux and one's own machine, from recorded feed to booted module, on stand-ins.

One kernel compile for the whole file, under each vendor's name; one driver out of a run file, its open ``nvidia`` module only.
"""

from __future__ import annotations

import bz2
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.cli.workspace import Workspace
from pipeline.config import lockfile
from pipeline.config.records import Driver, Toolchain
from pipeline.core.errors import PairFailed
from pipeline.core.versions import DriverVersion
from pipeline.formats.kernels import kernel_image
from pipeline.formats.kernels.kernel_module import read_module
from pipeline.formats.unpacking import Entry
from pipeline.proof import boot, static
from pipeline.trees import tars
from pipeline.trees.spec import of_driver
from pipeline.update.debian import debian_lock, read_debian
from pipeline.update.pinning.pin_kernels import BINCACHE, CONFIG
from pipeline.upstream.coreos.fedora_kernel import kernel_rpm_urls
from pipeline.upstream.coreos.flatcar import file_url
from pipeline.upstream.nvidia.downloads import tesla_url, xfree86_url
from tests.checkout import ROOT, Checkout, adopt_layers
from tests.registry_process import running_registry
from tests.signed_archive import Key
from tests.standins import packing, toolchain
from tests.standins.driver import OLD
from tests.standins.vendors import (
    BARE_RELEASE,
    COREOS_KERNEL,
    COREOS_KEY,
    COREOS_RELEASE,
    CUDA,
    DEVELOPER_CONTAINER,
    FEDORA_KERNEL,
    FEDORA_KEY,
    FEDORA_RELEASE,
    FEDORA_WISHES,
    FLATCAR_KERNEL,
    FLATCAR_KEY,
    FLATCAR_RELEASE,
    FLATCAR_WISHES,
    KERNEL_KEY,
    NVIDIA_WISHES,
    TARBALL,
    TOOLCHAIN_RPMS,
    vendors,
)
from tests.standins.world import World
from tests.support.cache import Cache

DRIVER = "535.261.03"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.full,
    pytest.mark.area("coreos"),
    pytest.mark.skipif(
        not packing.have("rpmbuild", "rpmsign", "mke2fs", "sfdisk", "bzip2", "makeself", "gpg", "gpgv", "flex", "bison", "bc"),
        reason="what makes the stand-ins is not installed (./doit.sh test installs it)",
    ),
]
WISHES = (
    """
[build]
modules = ["nvidia"]
kinds = ["open"]
"""
    + FEDORA_WISHES
    + FLATCAR_WISHES
    + NVIDIA_WISHES
    + """fabric_manager = true

[[nvidia.exact]]
version = "535.261.03"
reason = "the version of which there is a stand-in"

[[toolchain]]
name = "fedora-44"
os = "fedora-coreos"
image = "registry.fedoraproject.org/fedora/fedora:44"
reason = "a stand-in: Debian's toolchain under the vendor's name"

[toolchain.digests]
amd64 = "{digest}"

[toolchain.packages]
amd64 = ["{make}", "{patch}"]
"""
)
OLD_MODULES = ("nvidia", "nvidia-modeset", "nvidia-uvm")
OLD_WISHES = (
    """
[build]
modules = {modules}

[kernel-org]
keys = [{{fingerprint = "{key}", source = "{kernel_org}"}}]
"""
    + FLATCAR_WISHES
    + NVIDIA_WISHES
    + """
[[nvidia.exact]]
version = "470.256.02"
reason = "the last branch for Kepler: proprietary modules only"
"""
)


@pytest.fixture(scope="module")
def world(room: Path, cache: Cache, environ: dict[str, str], shared: Path, standin_kernels: Path) -> Iterator[World]:
    with running_registry(room / "coreos.registry") as address:
        yield from made_world(room, cache, environ, address.replace("127.0.0.1", "localhost"), shared, standin_kernels)


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def made_world(room: Path, cache: Cache, environ: dict[str, str], registry: str, shared: Path, kernels: Path) -> Iterator[World]:
    checkout = Checkout(room / "coreos", DRIVER_REGISTRY=registry, **environ)
    space = checkout.space()
    work = room / "vendors"
    work.mkdir()
    recorded = shared / "upstream"
    with Key() as key, vendors(work, cache, space.inputs, space.lock, DRIVER, recorded, key, kernels) as made:
        digest = toolchain.pushed(space, registry, checkout.environ, folder(work / "image"))
        keys = {"key": made.fingerprint, "fedora": FEDORA_KEY, "flatcar": FLATCAR_KEY}
        wishes = WISHES.format(channel="stable", digest=digest, **keys, **TOOLCHAIN_RPMS)
        (checkout.root / "versions.toml").write_text(wishes)
        kept = msgspec.structs.replace(space.lock, drivers=(), kernels=(), pending=(), pending_drivers=())
        (checkout.root / "versions.lock").write_bytes(lockfile.dump(kept))
        checkout.environ["DRIVER_MIRRORS"] = str(made.mirrors(work / "mirrors.toml", registry))
        update = checkout.doit("update")
        yield World(checkout, made, update, checkout.doit("--json"))


@pytest.fixture(scope="module")
def old(of_source: World, room: Path) -> World:
    """Another checkout, which wants the older driver on the release of Flatcar that has no developer container."""
    checkout = Checkout(room / "coreos-old", **{name: of_source.checkout.environ[name] for name in NAMES})
    adopt_layers(of_source.checkout, checkout)
    keys = {"key": of_source.vendors.fingerprint, "flatcar": FLATCAR_KEY, "kernel_org": KERNEL_KEY}
    (checkout.root / "versions.toml").write_text(OLD_WISHES.format(channel="beta", modules=json.dumps(OLD_MODULES), **keys))
    held = msgspec.structs.replace(of_source.checkout.space().lock, drivers=(), kernels=(), pending=(), pending_drivers=())
    (checkout.root / "versions.lock").write_bytes(lockfile.dump(held))
    update = checkout.doit("update")
    return World(checkout, of_source.vendors, update, checkout.doit("--json"))


def test_an_update_pins_both_vendors_kernels_and_the_driver(world: World) -> None:
    world.update.ended(0)
    fedora, flatcar = world.kernel(FEDORA_KERNEL), world.kernel(FLATCAR_KERNEL)
    assert (fedora.form, fedora.toolchain) == ("rpms", "fedora-44")
    assert (flatcar.form, flatcar.toolchain) == ("developer-container", "debian-12")
    assert [r.version for r in fedora.releases] == [FEDORA_RELEASE]
    assert FLATCAR_RELEASE in [r.version for r in flatcar.releases]
    driver = world.checkout.space().lock.driver(DRIVER, "amd64")
    assert (driver.source, driver.kinds) == ("run", ("open", "proprietary"))


def test_a_package_that_left_the_build_system_comes_from_the_next_place(world: World) -> None:
    assert not world.vendors.place(kernel_rpm_urls(FEDORA_KERNEL)[0]).exists()
    places = kernel_rpm_urls(FEDORA_KERNEL, keys=[world.vendors.fingerprint])
    assert world.kernel(FEDORA_KERNEL).headers[0].urls == places
    assert world.build.outcomes[f"fedora-coreos/amd64:{FEDORA_KERNEL}-{DRIVER}"] == "built"


def test_a_second_update_changes_no_byte(world: World) -> None:
    before = (world.checkout.root / "versions.lock").read_bytes()
    world.checkout.doit("update").ended(0)
    assert (world.checkout.root / "versions.lock").read_bytes() == before


def test_both_pairs_are_built_proved_by_a_boot_and_pushed(world: World) -> None:
    world.build.ended(0)
    pairs = {f"fedora-coreos/amd64:{FEDORA_KERNEL}-{DRIVER}", f"flatcar/amd64:{FLATCAR_KERNEL}-{DRIVER}"}
    assert world.build.outcomes == dict.fromkeys(pairs, "built")
    assert set(world.build.steps("proof")) == pairs
    tags = set(world.checkout.space().registry.tags())
    assert {
        f"{FEDORA_KERNEL}-{DRIVER}",
        f"{DRIVER}-{FEDORA_KERNEL}-fedora44",
        f"{DRIVER}-{FLATCAR_KERNEL}-flatcar{FLATCAR_RELEASE}",
    } <= tags


@pytest.mark.parametrize("kernel", [FEDORA_KERNEL, FLATCAR_KERNEL])
def test_each_image_holds_its_own_kernels_modules(kernel: str, world: World, tmp_path: Path) -> None:
    """The original seed's cache trap: the same series, nothing else changed, and yet other modules."""
    module = read_module(world.module(kernel, tmp_path))
    assert module.first("vermagic").split()[0] == kernel
    assert module.first("version") == DRIVER


def test_a_module_of_one_vendor_is_refused_by_the_others_kernel(world: World, tmp_path: Path) -> None:
    module = world.module(FEDORA_KERNEL, tmp_path)
    flatcar = world.vendors.kernels[FLATCAR_KERNEL]
    with pytest.raises(PairFailed, match=f"version magic '{FEDORA_KERNEL} .*' should be '{FLATCAR_KERNEL} "):
        boot.boot(flatcar.vmlinuz, {"open": module}, base=world.base(tmp_path / "base"), kernel_modules=None)
    with pytest.raises(PairFailed, match=f"vermagic is '{FEDORA_KERNEL} .*', the kernel is {FLATCAR_KERNEL}"):
        static.prove_modules(
            module.parent,
            kernel=FLATCAR_KERNEL,
            driver=DRIVER,
            kind="open",
            arch="amd64",
            expected=["nvidia.ko"],
            symvers=kernel_image.exports(flatcar.vmlinuz),
            modversions=False,
        )


@pytest.mark.parametrize("kernel", [FEDORA_KERNEL, FLATCAR_KERNEL])
def test_what_a_kernel_image_exports_is_what_its_symvers_say(kernel: str, world: World) -> None:
    build = world.vendors.kernels[kernel]
    lines = (build.devel / "Module.symvers").read_text().splitlines(keepends=True)
    read = kernel_image.exports(build.vmlinuz)
    own = [line for line in lines if line.split("\t")[2] == "vmlinux"]
    assert kernel_image.symvers(read) == "".join(sorted(own, key=lambda line: line.split("\t")[1]))
    assert set(kernel_image.of_system_map(build.system_map.read_text())) == set(read)


def test_the_userspace_out_of_the_run_file_carries_the_drivers_libraries(world: World) -> None:
    space = world.checkout.space()
    layer = space.shop.userspace(space.lock.driver(DRIVER, "amd64"))
    with space.shop.store.open(space.shop.local(layer)) as tar:
        names = set(tar.getnames())
        gpus = tar.extractfile("opt/nvidia-driver/gpus")
        table = gpus.read().decode().splitlines() if gpus else []
    assert {"10de:2330 both", "10de:1b06 proprietary", "10de:102d legacy 470"} <= set(table), "which kind is for which GPU"
    lib = "usr/local/nvidia/lib64"
    assert {f"{lib}/libcuda.so.{DRIVER}", f"{lib}/libcuda.so.1", f"{lib}/libcuda.so", f"{lib}/libnvidia-ml.so.1"} <= names
    assert {"usr/local/nvidia/bin/nvidia-smi", f"firmware/nvidia/{DRIVER}/gsp_ga10x.bin"} <= names
    assert f"usr/share/licenses/nvidia-{DRIVER}/LICENSE" in names
    assert not [name for name in names if "nvidia-installer" in name]


def test_the_compilers_packages_are_installed_from_what_is_pinned_and_without_a_network(world: World) -> None:
    """Fedora's stand-in has neither make nor patch; a ``RUN`` has no network (pipeline/engine), and rpm is a real one."""
    space = world.checkout.space()
    (fedora,) = (t for t in space.lock.toolchains if t.name == "fedora-44")
    assert {file.name: file.urls for file in fedora.packages} == {name: (url,) for name, url in TOOLCHAIN_RPMS.items()}
    tag = space.renderer.toolchain(fedora).tag
    environ = {**os.environ, "DOCKER_HOST": world.checkout.environ["DOCKER_HOST"]}
    said = packing.run("docker", "run", "--rm", "--network", "none", tag, "rpm", "-q", "make", "patch", environ=environ)
    assert said.split() == ["make-4.3-1.fc44.x86_64", "patch-2.7.6-1.fc44.x86_64"]
    assert world.build.outcomes[f"fedora-coreos/amd64:{FEDORA_KERNEL}-{DRIVER}"] == "built", "make came from there"


def test_a_compilers_package_that_does_not_come_as_pinned_is_refused_in_one_line(
    world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    checkout = Checkout(tmp_path / "checkout", DRIVER_REGISTRY="localhost:1", **environ)
    checkout.environ |= {"DRIVER_MIRRORS": world.checkout.environ["DRIVER_MIRRORS"], "DRIVER_CACHE": str(tmp_path / "cache")}
    (fedora,) = (t for t in world.checkout.space().lock.toolchains if t.name == "fedora-44")
    spoilt = tuple(msgspec.structs.replace(file, sha256="0" * 64) for file in fedora.packages)
    wrong = msgspec.structs.replace(fedora, packages=spoilt)
    checkout.relock(lambda lock: msgspec.structs.replace(lock, toolchains=(*lock.toolchains, wrong)))
    ran = checkout.doit("toolchain:fedora-44/amd64").ended(2)
    (complaint,) = (line for line in ran.err.splitlines() if line.startswith("doit: "))
    assert re.search(r"make-4\.3-1\.fc44\.x86_64\.rpm .*: wanted sha256 0{64}, got [0-9a-f]{64}", complaint)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.stat().st_size]


@pytest.mark.parametrize("bad", ["cut short", "a bomb", "no archive", "another kernel"])
def test_a_pair_whose_pinned_archive_is_broken_is_one_line_and_leaves_nothing(
    bad: str, world: World, tmp_path: Path, environ: dict[str, str]
) -> None:
    """The archive is what the lock says to the byte: its pin is wrong, or was made to be."""
    settings = {name: world.checkout.environ[name] for name in ("DRIVER_REGISTRY", "DRIVER_MIRRORS")}
    checkout = Checkout(tmp_path / "checkout", **settings, **environ)
    adopt_layers(world.checkout, checkout)
    for name in ("versions.toml", "versions.lock"):
        shutil.copy2(world.checkout.root / name, checkout.root / name)
    kernel = world.kernel(FLATCAR_KERNEL)
    (pinned,) = kernel.headers
    whole = world.vendors.place(pinned.urls[0]).read_bytes()
    data = {
        "cut short": whole[: len(whole) // 2],
        "a bomb": whole + bz2.compress(bytes(512)),  # other bytes: what was unpacked once is not unpacked again
        "no archive": b"<html>not found</html>" * 1000,
    }.get(bad, whole)
    url = pinned.urls[0].replace("/flatcar_developer", f"/{bad.replace(' ', '-')}/flatcar_developer")
    world.vendors.place(url).write_bytes(data)
    file = msgspec.structs.replace(pinned, urls=(url,), sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    name = "6.1.177-flatcar" if bad == "another kernel" else FLATCAR_KERNEL
    broken = msgspec.structs.replace(kernel, kernel=name, headers=(file,))
    checkout.relock(lambda lock: msgspec.structs.replace(lock, kernels=(broken,)))
    ran = checkout.doit(DRIVER_MAX_UNPACKED=str(64 << 20) if bad == "a bomb" else "")
    assert ran.status in (1, 2)
    says = {
        "cut short": "is damaged or cut off",
        "a bomb": "unpacks to more than 67108864 bytes",
        "no archive": "flatcar_developer_container.bin.bz2",
        "another kernel": f"is not the developer container of {name}: it has {FLATCAR_KERNEL}",
    }
    told = [line for line in ran.err.splitlines() if says[bad] in line]
    assert told, ran.err
    assert "Traceback" not in ran.err + ran.out
    build = checkout.root / "build"
    assert not [path for path in build.glob("trees/**/*") if "headers" in path.name or path.name.startswith(".")]
    assert not [path for path in build.iterdir() if path.name.startswith((".boot", ".export", ".kernel"))]
    (pair,) = checkout.space().plan.pairs
    assert pair.recipe_tag not in world.checkout.space().registry.tags()


def test_an_image_for_machines_with_nvswitch_carries_the_fabric_manager_of_its_version_and_says_so(world: World) -> None:
    space = world.checkout.space()
    driver = space.lock.driver(DRIVER, "amd64")
    assert [(file.version, file.trust) for file in driver.fabric] == [(DRIVER, "tls-first-sight")]
    with space.shop.store.open(space.shop.local(space.shop.userspace(driver))) as tar:
        names = set(tar.getnames())
    volume = "usr/local/nvidia"
    assert {f"{volume}/bin/nv-fabricmanager", f"{volume}/share/nvidia/nvswitch/fabricmanager.cfg"} <= names
    assert {"usr/bin/nv-fabricmanager", "usr/share/nvidia/nvswitch", "usr/lib64/libnvfm.so.1"} <= names
    assert [labels["io.coreos-nvidia.fabric-manager"] for labels in world.labels()] == [DRIVER] * 2


def test_a_redist_archive_gives_the_same_module_sources_and_a_proved_userspace(
    world: World, room: Path, environ: dict[str, str]
) -> None:
    """Pinned by the sum of its manifest; what is compiled then is what a run file gives, so that is not compiled again here."""
    settings = {name: world.checkout.environ[name] for name in ("DRIVER_REGISTRY", "DRIVER_MIRRORS")}
    checkout = Checkout(room / "coreos-redist", **settings, **environ)
    adopt_layers(world.checkout, checkout)
    wishes = (world.checkout.root / "versions.toml").read_text()
    wishes = wishes.replace('sources = ["data-centre"]', f'sources = ["redist"]\ncuda = ["{CUDA}"]')
    (checkout.root / "versions.toml").write_text(wishes)
    checkout.relock(lambda lock: msgspec.structs.replace(lock, drivers=(), kernels=(), pending=(), pending_drivers=()))
    checkout.doit("update").ended(0)
    driver = checkout.space().lock.driver(DRIVER, "amd64")
    assert (driver.source, driver.kinds, driver.userspace[0].trust) == ("redist", ("open", "proprietary"), "vendor-sum")
    assert driver.fabric
    checkout.doit(f"driver:{DRIVER}/amd64").ended(0)
    space, its_space = checkout.space(), world.checkout.space()
    layer = space.shop.userspace(driver)
    with space.shop.store.open(space.shop.local(layer)) as tar:
        names = set(tar.getnames())
    lib = "usr/local/nvidia/lib64"
    assert {f"{lib}/libcuda.so.{DRIVER}", f"{lib}/libcuda.so.1", f"{lib}/libcuda.so", "usr/bin/nvidia-smi"} <= names
    assert {f"firmware/nvidia/{DRIVER}/gsp_ga10x.bin", "usr/local/nvidia/bin/nv-fabricmanager"} <= names
    trees_of = [(space, driver), (its_space, its_space.lock.driver(DRIVER, "amd64"))]
    ours, theirs = (
        {(e.name, hashlib.sha256(e.data.read() if e.data else b"").hexdigest()) for e in module_sources(at, one)}
        for at, one in trees_of
    )
    assert ours == theirs


def module_sources(space: Workspace, driver: Driver) -> Iterator[Entry]:
    """What is compiled of a driver, but for the empty members that one packer keeps and another does not."""
    (tree,) = of_driver(driver, "modules")
    with tempfile.TemporaryDirectory() as place:
        paths = [space.inputs.lay(file, Path(place)) for file in tree.files]
        yield from (e for e in tars.entries(tree.make, paths, "", Path(place), space.inputs.max_unpacked) if e.kind == "file")


def test_an_older_driver_comes_from_the_consumer_site_where_the_data_centre_has_none(old: World) -> None:
    old.update.ended(0)
    version = DriverVersion(OLD)
    assert not old.vendors.place(tesla_url(version, "amd64")).exists()
    driver = old.checkout.space().lock.driver(OLD, "amd64")
    assert (driver.source, driver.kinds, driver.userspace[0].trust) == ("run", ("proprietary",), "vendor-sum")
    assert driver.userspace[0].urls == (tesla_url(version, "amd64"), xfree86_url(version, "amd64"))


def test_a_driver_with_proprietary_modules_only_has_a_proved_userspace(old: World) -> None:
    old.build.ended(0)
    space = old.checkout.space()
    layer = space.shop.userspace(space.lock.driver(OLD, "amd64"))
    with space.shop.store.open(space.shop.local(layer)) as tar:
        names = set(tar.getnames())
    assert {f"usr/local/nvidia/lib64/libcuda.so.{OLD}", "usr/local/nvidia/lib64/libcuda.so.1", "usr/bin/nvidia-smi"} <= names
    assert not [name for name in names if name.startswith("firmware/nvidia/") and name.endswith(".bin")]


def test_a_flatcar_release_without_a_container_is_pinned_from_its_config_and_kernel_orgs_source(old: World) -> None:
    places = (
        file_url("beta", "amd64", BARE_RELEASE, DEVELOPER_CONTAINER),
        f"{BINCACHE}/amd64/{BARE_RELEASE}/{DEVELOPER_CONTAINER}",
    )
    assert not [url for url in places if old.vendors.place(url).exists()], "both places answer 404"
    kernel = old.kernel(FLATCAR_KERNEL)
    assert (kernel.os, kernel.form, kernel.toolchain) == ("flatcar", "source", "debian-12-source")
    assert [(release.channel, release.version) for release in kernel.releases] == [("beta", BARE_RELEASE)]
    assert [file.file_name for file in kernel.headers] == [CONFIG, TARBALL]
    assert [file.trust for file in (*kernel.headers, *kernel.image)] == ["vendor-sum"] * 3


def test_its_modules_are_compiled_and_loaded_on_the_booted_kernel_and_pushed(old: World, tmp_path: Path) -> None:
    pair = f"flatcar/amd64:{FLATCAR_KERNEL}-{OLD}"
    assert old.build.outcomes == {pair: "built"}
    assert old.build.steps("proof") == [pair]
    assert f"{OLD}-{FLATCAR_KERNEL}-flatcar{BARE_RELEASE}" in old.checkout.space().registry.tags()
    place = old.module(FLATCAR_KERNEL, tmp_path)
    module = read_module(place)
    assert (module.first("vermagic").split()[0], module.first("version")) == (FLATCAR_KERNEL, OLD)
    assert module.first("license") == "NVIDIA"
    assert [labels["io.coreos-nvidia.kinds"] for labels in old.labels()] == ["proprietary"]
    flatcar = old.vendors.kernels[FLATCAR_KERNEL]
    booted = boot.boot(flatcar.vmlinuz, {"proprietary": place}, base=old.base(tmp_path / "base"), kernel_modules=None)
    assert "No such device" in booted.lines["proprietary"], "out of the image that was pushed"


def test_a_source_gives_every_module_and_each_is_held_against_what_the_kernel_exports(old: World, tmp_path: Path) -> None:
    """nvidia-modeset takes from nvidia and from the kernel; what only the kernel's table says cannot be left out of it."""
    (row,) = (row for row in old.checkout.index()["pairs"] if row["driver"] == OLD)  # the registry has the other checkouts' too
    assert set(row["proof"]["modules"]["proprietary"]) == set(OLD_MODULES)
    place = old.module(FLATCAR_KERNEL, tmp_path).parent
    exports = kernel_image.exports(old.vendors.kernels[FLATCAR_KERNEL].vmlinuz)
    told: dict[str, Any] = {"kernel": FLATCAR_KERNEL, "driver": OLD, "kind": "proprietary", "arch": "amd64", "modversions": False}
    told["expected"] = [f"{name}.ko" for name in OLD_MODULES]
    assert set(static.prove_modules(place, symvers=exports, **told)["modules"]) == set(OLD_MODULES)
    wants = {module: set(read_module(place / f"{module}.ko").undefined) for module in OLD_MODULES}
    gone = min(wants.pop("nvidia-modeset") & set(exports) - set().union(*wants.values()))
    with pytest.raises(PairFailed, match=f"nvidia-modeset.ko: unknown symbol {gone}"):
        static.prove_modules(place, symvers={name: one for name, one in exports.items() if name != gone}, **told)


RETIRED = (
    """
[build]
modules = ["nvidia"]
kinds = ["open"]

[container-linux]
enabled = true
reason = "a stand-in of the tests"
keep = 0
keys = [{{fingerprint = "{key}", source = "{coreos}"}}]
kernels = {{"{release}" = "{kernel}"}}

[kernel-org]
keys = [{{fingerprint = "{key}", source = "{kernel_org}"}}]
"""
    + NVIDIA_WISHES
    + """fabric_manager = true

[[nvidia.exact]]
version = "535.261.03"
reason = "the version of which there is a stand-in"

"""
)
NAMES = ("DOCKER_HOST", "DRIVER_REGISTRY", "DRIVER_MIRRORS")


def source_toolchain(space: Workspace) -> Toolchain:
    """What a kernel's source needs, pinned out of Debian's archive as the committed wishes have it."""
    wanted = space.wanted
    assert wanted.debian is not None
    indices = read_debian(wanted.debian, "amd64", space.fetcher, space.archives)
    only = msgspec.structs.replace(wanted.debian, kernels=())
    made = debian_lock(msgspec.structs.replace(wanted, drivers=()), only, "amd64", space.lock, indices, [])
    return next(t for t in made.toolchains if t.name == "debian-12-source")


@pytest.fixture(scope="module")
def of_source(world: World, room: Path) -> World:
    """A checkout that follows Container Linux and, for the machine one stands on, the committed [debian]."""
    checkout = Checkout(room / "coreos-source", **{name: world.checkout.environ[name] for name in NAMES})
    adopt_layers(world.checkout, checkout)
    toolchain = source_toolchain(checkout.space())
    wishes = RETIRED.format(
        key=world.vendors.fingerprint,
        coreos=COREOS_KEY,
        kernel_org=KERNEL_KEY,
        release=COREOS_RELEASE,
        kernel=COREOS_KERNEL,
    )
    (checkout.root / "versions.toml").write_text(wishes)
    held = world.checkout.space().lock
    held = msgspec.structs.replace(held, toolchains=(*held.toolchains, toolchain), kernels=(), pending=(), pending_drivers=())
    (checkout.root / "versions.lock").write_bytes(lockfile.dump(held))
    update = checkout.doit("update")
    return World(checkout, world.vendors, update, checkout.doit("--json"))


@pytest.fixture(scope="module")
def machine(of_source: World, room: Path) -> World:
    """A checkout on a machine that runs that kernel: what is pinned and built is the machine's own. Nothing is compiled twice."""
    checkout = Checkout(room / "machine", **{name: of_source.checkout.environ[name] for name in NAMES})
    adopt_layers(of_source.checkout, checkout)
    debian = re.search(r"(?ms)^\[debian\]\n.*?(?=^# CoreOS)", (ROOT / "versions.toml").read_text())
    assert debian
    retired = (of_source.checkout.root / "versions.toml").read_text()
    (checkout.root / "versions.toml").write_text(retired + re.sub(r"(?m)^kernels = .*$", "kernels = []", debian[0]))
    held = msgspec.structs.replace(of_source.checkout.space().lock, kernels=(), pending=(), pending_drivers=())
    (checkout.root / "versions.lock").write_bytes(lockfile.dump(held))
    own = of_source.vendors.kernels[COREOS_KERNEL]
    files = ("--config", str(own.config), "--kernel-image", str(own.vmlinuz))
    update = checkout.doit("update", "--host", "--kernel-release", COREOS_KERNEL, *files)
    return World(checkout, of_source.vendors, update, checkout.doit("--json", "image:host*"))


def test_a_container_linux_release_goes_from_the_archived_feed_to_a_booted_module(of_source: World, tmp_path: Path) -> None:
    of_source.update.ended(0)
    of_source.build.ended(0)
    kernel = of_source.kernel(COREOS_KERNEL)
    assert (kernel.os, kernel.form, kernel.toolchain) == ("container-linux", "source", "debian-12-source")
    assert [r.version for r in kernel.releases] == [COREOS_RELEASE]
    assert TARBALL in [file.file_name for file in kernel.headers]
    pair = f"container-linux/amd64:{COREOS_KERNEL}-{DRIVER}"
    assert of_source.build.outcomes == {pair: "built"}
    assert of_source.build.steps("proof") == [pair]
    assert f"{DRIVER}-{COREOS_KERNEL}-coreos{COREOS_RELEASE}" in of_source.checkout.space().registry.tags()
    module = read_module(of_source.module(COREOS_KERNEL, tmp_path))
    assert (module.first("vermagic").split()[0], module.first("version")) == (COREOS_KERNEL, DRIVER)


def test_a_module_made_from_source_is_refused_by_another_vendors_kernel(of_source: World, tmp_path: Path) -> None:
    module = of_source.module(COREOS_KERNEL, tmp_path)
    flatcar = of_source.vendors.kernels[FLATCAR_KERNEL]
    with pytest.raises(PairFailed, match=f"version magic '{COREOS_KERNEL} .*' should be '{FLATCAR_KERNEL} "):
        boot.boot(flatcar.vmlinuz, {"open": module}, base=of_source.base(tmp_path / "base"), kernel_modules=None)


def test_the_machines_own_kernel_is_pinned_built_proved_by_a_boot_and_pushed_under_its_plain_tag(machine: World) -> None:
    machine.update.ended(0)
    machine.build.ended(0)
    pair = f"host/amd64:{COREOS_KERNEL}-{DRIVER}"
    assert machine.build.outcomes == {pair: "built"}
    assert machine.build.steps("proof") == [pair]
    assert f"{COREOS_KERNEL}-{DRIVER}" in machine.checkout.space().registry.tags()
