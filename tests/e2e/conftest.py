"""What the end-to-end tests of the pipeline share beside the pairs (tests/beside.py): clients of the images, hosts, stand-ins.

The engine is the one that ``./doit.sh test`` found or started, the download cache is this checkout's, so packages come
over the network once. Everything else (checkouts, registries) lies below ``build/`` and goes with the session.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.registry import Registry
from tests.beside import IMAGES, Full
from tests.checkout import DRIVER, KERNEL, Checkout, Place, Whole
from tests.clients import RUNTIME, Client
from tests.host_site import Site, running_site
from tests.host_vm import Disk
from tests.standins import loaded_driver


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
def full_index(full: Full) -> dict[str, Any]:
    """``build/index.json`` as it was after ``full``."""
    return full.index


@pytest.fixture(scope="session")
def full_tags(full: Full) -> dict[str, str]:
    """Every tag of the registry after ``full``, and the digest it named."""
    return full.tags


@pytest.fixture(scope="session")
def reference(whole: Whole) -> str:
    """The image of one pair, as the clients name it."""
    return f"{whole.registry.address}/driver:{KERNEL}-{DRIVER}"


@pytest.fixture(scope="session")
def digest(whole: Whole) -> str:
    """Its digest by the index."""
    rows = {(row["kernel"], row["driver"]): row for row in whole.checkout.index()["pairs"]}
    return str(rows[KERNEL, DRIVER]["digest"])


@pytest.fixture(scope="session")
def full_image(registry: Place, full_index: dict[str, Any]) -> str:
    """The image of ``full``, with every module and both kinds, by its digest."""
    (row,) = [row for row in full_index["pairs"] if row["outcome"] == "built"]
    return f"{registry.address}/driver@{row['digest']}"


@pytest.fixture(scope="session")
def whole_base(whole: Whole) -> str:
    """The runtime base by itself: a shell and a C library, and nothing of NVIDIA's."""
    space = whole.checkout.space()
    recipe = space.plan.renderer.base(space.lock.base("amd64")).recipe
    return f"{whole.registry.address}/driver:base-{recipe[:16]}"


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
def images(request: pytest.FixtureRequest) -> Registry:
    """Where the real images lie: ``DRIVER_TEST_IMAGES`` names a registry that has them, else they are built (``whole``)."""
    given = os.environ.get(IMAGES)
    return Registry(given or request.getfixturevalue("whole").registry.address, environ={})


@pytest.fixture(scope="session")
def disk(installed: tuple[Disk, str]) -> Disk:
    """The disk alone."""
    return installed[0]


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
