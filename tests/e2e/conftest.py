"""What the end-to-end tests share besides the pairs (tests/support/pairs.py): clients of the images, hosts, stand-ins.

The engine is the one that ``./doit.sh test`` found or started. What lies below ``build/`` goes with the session; what is slow to
make and the same in every session is kept in the user's cache (tests/support/cache.py).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import host_vm
from tests.checkout import DRIVER, KERNEL, Checkout
from tests.clients import RUNTIME, Client
from tests.host_site import Site, running_site
from tests.host_vm import Disk
from tests.standins import loaded_driver, vendors
from tests.support.cache import Cache
from tests.support.pairs import Made, Pairs


@pytest.fixture(scope="module")
def room(scratch: Path) -> Iterator[Path]:
    """A folder of one module of tests there, which goes with the module: those of all would fill a small disk."""
    with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as folder:  # what is left goes with the session
        yield Path(folder)


@pytest.fixture
def bare(tmp_path: Path, environ: dict[str, str]) -> Checkout:
    """A checkout of one test, with no registry."""
    return Checkout(tmp_path / "checkout", DRIVER_REGISTRY="localhost:1", **environ)


@pytest.fixture(scope="session")
def reference(images_at: str) -> str:
    """The image of one pair, as the clients name it."""
    return f"{images_at}/driver:{KERNEL}-{DRIVER}"


@pytest.fixture(scope="session")
def digest(pairs: Pairs) -> str:
    """Its digest by the index."""
    return str(pairs.first.built["digest"])


@pytest.fixture(scope="session")
def plain_base(pairs: Pairs, images_at: str) -> str:
    """The runtime base by itself: a shell and a C library, and nothing of NVIDIA's."""
    (tag,) = (tag for tag in pairs.first.tags if tag.startswith("base-"))
    return f"{images_at}/driver:{tag}"


@pytest.fixture(scope="session")
def full_image(full_checkout: Checkout, full: Made) -> str:
    """The image of ``full``, with every module and both kinds, by its digest."""
    return f"{full_checkout.environ['DRIVER_REGISTRY']}/driver@{full.built['digest']}"


@pytest.fixture(scope="session")
def docker(engine_host: str, reference: str) -> Iterator[Client]:
    """Docker's own client; the image is forgotten afterwards."""
    client = Client("docker", "--host", engine_host)
    yield client
    client("image", "rm", "--force", reference)


@pytest.fixture(scope="session")
def podman(scratch: Path, docker: Client) -> Iterator[Client]:
    """podman with storage of its own. No cgroups: a machine without systemd may not have them."""
    if os.geteuid() != 0:
        pytest.skip("podman needs root, or subordinate ids, to unpack an image with files of its own owners")
    driver = "overlay" if docker("info", "--format", "{{.Driver}}").strip() == "overlay2" else "vfs"
    places = ["--root", str(scratch / "podman"), "--runroot", str(scratch / "podman.run"), "--storage-driver", driver]
    client = Client("podman", *places, "--cgroup-manager", "cgroupfs", "--runtime", RUNTIME)
    yield client
    client("image", "rm", "--all", "--force")
    # Not 'system reset': it would take the machine's own networks along.
    for line in Path("/proc/self/mountinfo").read_text().splitlines()[::-1]:
        if (place := line.split()[4]).startswith(f"{scratch}/podman"):
            subprocess.run(["umount", place], check=True)


@pytest.fixture(scope="session")
def bare_disk(cache: Cache) -> Disk:
    """A virtual machine's disk with nothing of ours but the units that run a case."""
    return Disk(host_vm.bare_disk(cache))


@pytest.fixture(scope="session")
def installed(cache: Cache, bare_disk: Disk) -> Disk:
    """A disk on which our shell line was run."""
    return host_vm.installed_disk(cache, bare_disk)


@pytest.fixture(scope="session")
def standin_kernels(cache: Cache, bare_checkout: Checkout) -> Path:
    """A folder with the stand-in kernel under each vendor's name (tests/standins/vendors.py)."""
    return vendors.kernels(cache, bare_checkout.space().inputs)


@pytest.fixture(scope="session")
def bare_checkout(scratch: Path, environ: dict[str, str]) -> Checkout:
    """A checkout of the session in which nothing is built."""
    return Checkout(scratch / "bare", DRIVER_REGISTRY="localhost:1", **environ)


@pytest.fixture(scope="session")
def standins(scratch: Path, environ: dict[str, str]) -> dict[str, dict[str, bytes]]:
    """Stand-in kernel modules for KERNEL, by driver."""
    checkout = Checkout(scratch / "standins", DRIVER_REGISTRY="localhost:1", **environ)
    return {
        driver: loaded_driver.compile_modules(checkout, KERNEL, driver, scratch / driver) for driver in (DRIVER, "535.309.01")
    }


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A registry of one test behind a wire that can fail."""
    with running_site(tmp_path / "site") as made:
        yield made
