"""Flatcar from its recorded feed to a booted module: the one CoreOS kernel of every run, on stand-ins.

The other families, the source route and what goes wrong are in test_coreos_kernels.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline.config import lockfile
from pipeline.core.errors import PairFailed
from pipeline.formats.kernels.kernel_module import read_module
from pipeline.proof import boot, static
from tests.checkout import DRIVER, Checkout
from tests.registry_process import running_registry
from tests.signed_archive import Key
from tests.standins import packing
from tests.standins.vendors import (
    FLATCAR_KERNEL,
    FLATCAR_KEY,
    FLATCAR_RELEASE,
    FLATCAR_WISHES,
    NVIDIA_WISHES,
    flatcar_alone,
)
from tests.standins.world import World
from tests.support.cache import Cache

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.area("coreos"),
    pytest.mark.skipif(
        not packing.have("mke2fs", "sfdisk", "bzip2", "makeself", "gpg", "gpgv", "flex", "bison", "bc"),
        reason="what makes the stand-ins is not installed (./doit.sh test installs it)",
    ),
]
WISHES = (
    """
[build]
modules = ["nvidia"]
kinds = ["open"]
"""
    + FLATCAR_WISHES
    + NVIDIA_WISHES
    + """
[[nvidia.exact]]
version = "535.261.03"
reason = "the version of which there is a stand-in"
"""
)
PAIR = f"flatcar/amd64:{FLATCAR_KERNEL}-{DRIVER}"


@pytest.fixture(scope="module")
def world(room: Path, cache: Cache, environ: dict[str, str], shared: Path, standin_kernels: Path) -> Iterator[World]:
    """Flatcar's one release, pinned and built."""
    with running_registry(room / "registry") as address:
        registry = address.replace("127.0.0.1", "localhost")
        checkout = Checkout(room / "flatcar", DRIVER_REGISTRY=registry, **environ)
        space, work, recorded = checkout.space(), room / "vendors", shared / "upstream"
        work.mkdir()
        with Key() as key, flatcar_alone(work, cache, space.inputs, space.lock, DRIVER, recorded, key, standin_kernels) as made:
            wishes = WISHES.format(channel="stable", key=made.fingerprint, flatcar=FLATCAR_KEY)
            (checkout.root / "versions.toml").write_text(wishes)
            kept = msgspec.structs.replace(space.lock, drivers=(), kernels=(), pending=(), pending_drivers=())
            (checkout.root / "versions.lock").write_bytes(lockfile.dump(kept))
            checkout.environ["DRIVER_MIRRORS"] = str(made.mirrors(work / "mirrors.toml", registry))
            update = checkout.doit("update")
            yield World(checkout, made, update, checkout.doit("--json"))


def test_an_update_pins_kernel_and_driver_out_of_the_feeds(world: World) -> None:
    world.update.ended(0)
    held = world.checkout.space().lock
    kernel = world.kernel(FLATCAR_KERNEL)
    assert (kernel.os, kernel.form) == ("flatcar", "developer-container")
    assert [release.version for release in kernel.releases] == [FLATCAR_RELEASE]
    assert (held.driver(DRIVER, "amd64").source, held.driver(DRIVER, "amd64").kinds) == ("run", ("open", "proprietary"))


def test_the_pair_is_built_proved_by_a_boot_and_pushed(world: World, tmp_path: Path) -> None:
    world.build.ended(0)
    assert world.build.outcomes == {PAIR: "built"}
    assert world.build.steps("proof") == [PAIR]
    tags = set(world.checkout.space().registry.tags())
    assert {f"{FLATCAR_KERNEL}-{DRIVER}", f"{DRIVER}-{FLATCAR_KERNEL}-flatcar{FLATCAR_RELEASE}"} <= tags
    module = read_module(world.module(FLATCAR_KERNEL, tmp_path))
    assert (module.first("vermagic").split()[0], module.first("version")) == (FLATCAR_KERNEL, DRIVER)
    (row,) = (row for row in world.checkout.index()["pairs"] if row["outcome"] == "built")
    assert "No such device" in row["proof"]["boot"]["open"]


def test_a_module_with_another_kernels_name_is_refused_by_proof_and_kernel(world: World, tmp_path: Path) -> None:
    module = world.module(FLATCAR_KERNEL, tmp_path)
    altered = tmp_path / "altered/nvidia.ko"
    altered.parent.mkdir()
    data = module.read_bytes()
    other = FLATCAR_KERNEL.replace("flatcar", "flatbed")
    assert data.count(b"vermagic=" + FLATCAR_KERNEL.encode()) == 1
    altered.write_bytes(data.replace(b"vermagic=" + FLATCAR_KERNEL.encode(), b"vermagic=" + other.encode()))
    with pytest.raises(PairFailed, match=f"vermagic is '{other} .*', the kernel is {FLATCAR_KERNEL}"):
        static.prove_modules(
            altered.parent,
            kernel=FLATCAR_KERNEL,
            driver=DRIVER,
            kind="open",
            arch="amd64",
            expected=["nvidia.ko"],
            symvers={},
            modversions=False,
        )
    flatcar = world.vendors.kernels[FLATCAR_KERNEL]
    with pytest.raises(PairFailed, match=f"version magic '{other} .*' should be '{FLATCAR_KERNEL} "):
        boot.boot(flatcar.vmlinuz, {"open": altered}, base=world.base(tmp_path / "base"), kernel_modules=None)


def test_a_second_run_finds_all_done(world: World) -> None:
    again = world.checkout.doit("--json", DOCKER_HOST="unix:///nowhere/docker.sock").ended(0)
    assert again.work == []
