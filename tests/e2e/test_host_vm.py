"""A whole host in a virtual machine: real units, real kernels, real modules, podman and docker, a real registry.

There is no GPU in it, so ``NVIDIA_DRIVER_TRY=1`` lets the loader try: the real ``nvidia.ko`` of the running kernel answers ENODEV
("No such device"), which proves that image, kernel, unit and container fit together. Status 10 is the expected end.

``DRIVER_TEST_IMAGES`` names a registry that holds the images already; else they are built for the session (``whole``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import index as indexes
from pipeline.assemble import Store
from pipeline.index import Entry, Index
from pipeline.registry import Registry
from tests import host_vm, registry_process
from tests.host_machine import KERNEL, NEXT, A
from tests.host_vm import GATEWAY, ROOT, Disk, Vm
from tests.registry_process import running_registry

pytestmark = [
    pytest.mark.budget("host"),
    pytest.mark.e2e,
    pytest.mark.skipif(not registry_process.installed(), reason=registry_process.MISSING),
    pytest.mark.skipif(
        bool(host_vm.missing()), reason=f"not installed: {' '.join(host_vm.missing())} (./doit.sh test installs them)"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="making a disk with owners needs root"),
]

SAID = "journalctl -b -u nvidia-driver.service --no-pager -o cat; nvidia-driver-host status"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    return host_vm.make_disk(host_vm.make_root(ROOT / "build/vm"), tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def source(request: pytest.FixtureRequest) -> Registry:
    """Where the real images lie."""
    given = os.environ.get("DRIVER_TEST_IMAGES")
    return Registry(given or request.getfixturevalue("whole").registry.address, environ={})


class Site:
    """A registry of one test, which can be switched off."""

    def __init__(self, root: Path, address: str) -> None:
        self.registry, self.port, self.store = Registry(address, environ={}), address.rpartition(":")[2], Store(root / "layers")

    def settings(self, **more: str) -> dict[str, str]:
        return {
            "DRIVER_REGISTRY": f"http://{GATEWAY}:{self.port}", "DRIVER_VERSION": A, "DRIVER_INSECURE": "1",
            "DRIVER_RUNTIME": "podman", "NVIDIA_DRIVER_TRY": "1", "DRIVER_BOOT_DEADLINE": "300", **more,
        }  # fmt: skip

    def publish_index(self, *entries: Entry) -> None:
        data = indexes.dump(Index(serial=7, generated="2026-11-24T12:00:00Z", pairs=entries))
        host_vm.push_files(self.registry, self.store, {"index.json": data}, "index")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_registry(tmp_path / "registry") as address:
        yield Site(tmp_path, address)


@pytest.mark.parametrize("runtime", ["podman", "docker"])
def test_a_boot_pulls_the_image_and_tries_its_modules_and_an_upgrade_needs_no_registry(
    disk: Disk, source: Registry, tmp_path: Path, runtime: str
) -> None:
    with running_registry(tmp_path / "registry") as address:
        site = Site(tmp_path, address)
        digests = {kernel: host_vm.trim(source, f"{kernel}-{A}", site.registry, [f"{kernel}-{A}"]) for kernel in (KERNEL, NEXT)}
        vm = Vm(disk, tmp_path / "vm", **site.settings(DRIVER_RUNTIME=runtime))
        said = vm.boot(f"{SAID}; nvidia-driver-host prefetch; nvidia-driver-host may-reboot; nvidia-driver-host status --json")
    assert f"loading proprietary modules of {A} for {KERNEL}" in said
    assert "No such device" in said
    assert f"for {NEXT}: {A} is here ({digests[NEXT]}" in said
    assert f"free: the image for {NEXT} is here ({A})" in said
    assert f'"image": "{digests[KERNEL]}"' in said
    started = time.monotonic()
    said = vm.boot(SAID, kernel=NEXT, network=False)
    assert f"loading proprietary modules of {A} for {NEXT}" in said
    assert "No such device" in said
    assert f"{A} here, {digests[NEXT]}" in said
    assert time.monotonic() - started < host_vm.LONGEST
