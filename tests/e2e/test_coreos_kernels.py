"""Fedora CoreOS and Flatcar from recorded feed to booted module, on stand-ins of what their vendors publish.

One kernel compile for the whole file, under each vendor's name; one driver out of a run file, its open ``nvidia`` module only.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from pipeline import boot, lock, proof, vmlinux
from pipeline.build import unpack_layer
from pipeline.elf import read_module
from pipeline.errors import PairFailed
from pipeline.pinned import Kernel
from pipeline.upstream.fedora_kernel import kernel_rpm_urls
from tests.checkout import Checkout, Ran
from tests.registry_process import running_registry
from tests.signed_archive import Key
from tests.standins import packing, toolchain
from tests.standins.vendors import (
    FEDORA_KERNEL,
    FEDORA_KEY,
    FEDORA_RELEASE,
    FLATCAR_KERNEL,
    FLATCAR_KEY,
    FLATCAR_RELEASE,
    TOOLCHAIN_RPMS,
    Vendors,
    vendors,
)

DRIVER = "535.261.03"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.budget("coreos"),
    pytest.mark.skipif(
        not packing.have("rpmbuild", "rpmsign", "mke2fs", "sfdisk", "bzip2", "makeself", "gpg", "gpgv", "flex", "bison", "bc"),
        reason="what makes the stand-ins is not installed (./doit.sh test installs it)",
    ),
]
WISHES = """
[build]
modules = ["nvidia"]
kinds = ["open"]

[fedora-coreos]
streams = ["stable"]
arches = ["amd64"]
keep = 1
images = false
keys = [{{fingerprint = "{key}", source = "{fedora}"}}]

[flatcar]
channels = ["stable"]
arches = ["amd64"]
keep = 1
ahead = false
keys = [{{fingerprint = "{key}", source = "{flatcar}"}}]

[nvidia]
branches = []
sources = ["data-centre"]
arches = ["amd64"]
fabric_manager = true

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


@dataclass(frozen=True)
class World:
    """A checkout that follows the vendors, after its update and its build."""

    checkout: Checkout
    vendors: Vendors
    update: Ran
    build: Ran

    def kernel(self, name: str) -> Kernel:
        return next(k for k in self.checkout.space().lock.kernels if k.kernel == name)

    def module(self, name: str, folder: Path) -> Path:
        """nvidia.ko for that kernel, out of the image in the registry."""
        space = self.checkout.space()
        pair = next(p for p in space.plan.pairs if p.kernel.kernel == name)
        manifest = space.registry.manifest(pair.recipe_tag)
        assert manifest is not None
        layer = json.loads(manifest.data)["layers"][2]
        data = folder / "layer.tar.gz"
        space.registry.download_blob(layer["digest"], layer["size"], data)
        packing.run("tar", "-C", folder, "-xzf", data)
        (found,) = folder.glob("opt/**/nvidia.ko")
        return found

    def labels(self) -> list[dict[str, str]]:
        """Of the image of each pair."""
        space = self.checkout.space()
        manifests = [space.registry.manifest(pair.recipe_tag) for pair in space.plan.pairs]
        digests = [json.loads(manifest.data)["config"]["digest"] for manifest in manifests if manifest]
        return [json.loads(space.registry.blob(digest))["config"]["Labels"] for digest in digests]

    def base(self, folder: Path) -> Path:
        shop = self.checkout.space().shop
        unpack_layer(shop, shop.local(shop.base("amd64")), folder)
        return folder


@pytest.fixture(scope="session")
def world(scratch: Path, environ: dict[str, str], shared: Path) -> Iterator[World]:
    # A registry of its own: what the other tests' index says is theirs.
    with running_registry(scratch / "coreos.registry") as address:
        yield from made_world(scratch, environ, address.replace("127.0.0.1", "localhost"), shared)


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def made_world(scratch: Path, environ: dict[str, str], registry: str, shared: Path) -> Iterator[World]:
    checkout = Checkout(scratch / "coreos", DRIVER_REGISTRY=registry, **environ)
    space = checkout.space()
    work = scratch / "vendors"
    work.mkdir()
    with Key() as key, vendors(work, space.inputs, space.lock, DRIVER, shared / "upstream", key) as made:
        digest = toolchain.pushed(space, registry, checkout.environ, folder(work / "image"))
        wishes = WISHES.format(key=made.fingerprint, fedora=FEDORA_KEY, flatcar=FLATCAR_KEY, digest=digest, **TOOLCHAIN_RPMS)
        (checkout.root / "versions.toml").write_text(wishes)
        kept = msgspec.structs.replace(space.lock, drivers=(), kernels=(), pending=(), pending_drivers=())
        (checkout.root / "versions.lock").write_bytes(lock.dump(kept))
        checkout.environ["DRIVER_MIRRORS"] = str(made.mirrors(work / "mirrors.toml", registry))
        update = checkout.doit("update")
        yield World(checkout, made, update, checkout.doit("--json"))


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
    assert world.kernel(FEDORA_KERNEL).headers[0].urls == kernel_rpm_urls(FEDORA_KERNEL)
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
        proof.prove_modules(
            module.parent,
            kernel=FLATCAR_KERNEL,
            driver=DRIVER,
            kind="open",
            arch="amd64",
            expected=["nvidia.ko"],
            symvers=vmlinux.exports(flatcar.vmlinuz),
            modversions=False,
        )


@pytest.mark.parametrize("kernel", [FEDORA_KERNEL, FLATCAR_KERNEL])
def test_what_a_kernel_image_exports_is_what_its_symvers_say(kernel: str, world: World) -> None:
    build = world.vendors.kernels[kernel]
    said = proof.parse_symvers((build.devel / "Module.symvers").read_text())
    read = vmlinux.exports(build.vmlinuz)
    assert {name: export.gpl_only for name, export in read.items()} == {
        name: export.gpl_only for name, export in said.items() if export.module == "vmlinux"
    }
    assert set(vmlinux.of_system_map(build.system_map.read_text())) == set(read)


def test_the_userspace_out_of_the_run_file_carries_the_drivers_libraries(world: World) -> None:
    space = world.checkout.space()
    layer = space.shop.userspace(space.lock.driver(DRIVER, "amd64"))
    with space.shop.store.open(space.shop.local(layer)) as tar:
        names = set(tar.getnames())
    lib = "usr/local/nvidia/lib64"
    assert {f"{lib}/libcuda.so.{DRIVER}", f"{lib}/libcuda.so.1", f"{lib}/libcuda.so", f"{lib}/libnvidia-ml.so.1"} <= names
    assert {"usr/local/nvidia/bin/nvidia-smi", f"firmware/nvidia/{DRIVER}/gsp_ga10x.bin"} <= names
    assert f"usr/share/licenses/nvidia-{DRIVER}/LICENSE" in names
    assert not [name for name in names if "nvidia-installer" in name]


def test_the_compilers_packages_are_installed_from_what_is_pinned_and_without_a_network(world: World) -> None:
    """Fedora's stand-in has neither make nor patch; a ``RUN`` has no network (pipeline/engine.py), and rpm is a real one."""
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
