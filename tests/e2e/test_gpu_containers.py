"""Containers on a GPU host, by podman and docker: what the real image writes for them, used as ``docs/host.md`` says.

The volume and the CDI specification are made by ``nvidia-driver`` of the pushed image. The machine is synthetic but for its
device nodes, which are real (tests/gpu_box.py); no GPU answers behind them, so ``nvidia-smi`` ends with 9 and says so, after it
has found every library.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import DRIVER, KERNEL
from tests.clients import PODMAN_RUN, Client
from tests.gpu_box import NODES, UUIDS, GpuBox

pytestmark = [pytest.mark.e2e, pytest.mark.full, pytest.mark.area("host")]

VOLUME = f"/var/lib/nvidia-docker/volumes/nvidia_driver/{DRIVER}"
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
NO_DRIVER = "couldn't communicate with the NVIDIA driver"
SMI = "nvidia-smi || echo status $?"


@pytest.fixture(scope="module")
def box(podman: Client, reference: str, room: Path) -> GpuBox:
    """A host whose volume, firmware and CDI specification the image has made."""
    made = GpuBox(room / "gpu-box", KERNEL, DRIVER)
    podman("pull", "--quiet", "--tls-verify=false", reference)
    podman(*PODMAN_RUN, *made.asks(), reference, "volume")
    copy = f"mkdir -p /host/var/lib/nvidia-driver/{DRIVER} && cp -r /firmware /host/var/lib/nvidia-driver/{DRIVER}/"
    podman(*PODMAN_RUN, *made.asks(), "--entrypoint", "/bin/sh", reference, "-c", copy)
    made.write("sys/module/firmware_class/parameters/path", f"/var/lib/nvidia-driver/{DRIVER}/firmware")
    made.load()
    podman(*PODMAN_RUN, *made.asks(), "--env=DEV=/box/dev", reference, "cdi")
    return made


@pytest.fixture(scope="module")
def plain(plain_base: str, podman: Client) -> str:
    """An image with a C library and a shell, and nothing of NVIDIA's."""
    podman("pull", "--quiet", "--tls-verify=false", plain_base)
    return plain_base


def in_podman(box: GpuBox, podman: Client, words: tuple[str, ...], image: str, script: str) -> str:
    return box.run(shlex.join([*podman.words, *PODMAN_RUN, *words, image, "/bin/sh", "-c", script]))


def spec(box: GpuBox) -> dict[str, Any]:
    document = json.loads((box.folder / "run/cdi/nvidia.yaml").read_text())
    assert isinstance(document, dict)
    return document


def test_the_specification_names_every_library_of_the_real_driver_and_only_files_that_are_there(box: GpuBox) -> None:
    mounts = {mount["containerPath"]: mount["hostPath"] for mount in spec(box)["containerEdits"]["mounts"]}
    there = {
        path.name for path in (box.folder / f"lib/nvidia-docker/volumes/nvidia_driver/{DRIVER}/lib64").glob(f"*.so.{DRIVER}")
    }
    assert len(there) > 20
    assert there <= {Path(path).name for path in mounts}
    assert {f"{LIBRARIES}/libcuda.so.1", f"{LIBRARIES}/libcuda.so", "/usr/bin/nvidia-smi"} <= set(mounts)
    assert f"/lib/firmware/nvidia/{DRIVER}/gsp_ga10x.bin" in mounts
    for path in set(mounts.values()):
        assert (box.folder / path.removeprefix("/var/")).is_file(), path


def test_podman_gives_a_container_every_gpu_with_nodes_libraries_and_firmware(box: GpuBox, podman: Client, plain: str) -> None:
    look = f"stat -c '%n %t:%T %a' /dev/nvidia*; echo $NVIDIA_VISIBLE_DEVICES; ls /lib/firmware/nvidia/{DRIVER}; {SMI}"
    said = in_podman(box, podman, ("--device", "nvidia.com/gpu=all"), plain, look).splitlines()
    assert said[: len(NODES)] == [f"/dev/{name} {major:x}:{minor:x} 666" for name, (major, minor) in sorted(NODES.items())]
    assert said[len(NODES)] == "void"
    assert "gsp_ga10x.bin" in said
    assert any(NO_DRIVER in line for line in said)
    assert said[-1] == "status 9", "it ran in an image that holds nothing of NVIDIA's, and no driver answered"


@pytest.mark.parametrize(("device", "nodes"), [("1", ["nvidia1"]), (UUIDS[0], ["nvidia0"])])
def test_podman_gives_one_gpu_by_index_or_by_uuid(box: GpuBox, podman: Client, plain: str, device: str, nodes: list[str]) -> None:
    said = in_podman(box, podman, ("--device", f"nvidia.com/gpu={device}"), plain, "cd /dev; echo nvidia[0-9]*")
    assert said.split() == nodes


def test_every_library_finds_what_it_needs_in_the_container(box: GpuBox, podman: Client, plain: str) -> None:
    names = "libcuda.so.1 libnvidia-ml.so.1 libnvidia-ptxjitcompiler.so.1"
    script = f"for f in {names}; do /lib64/ld-linux-x86-64.so.2 --list {LIBRARIES}/$f; done"
    said = in_podman(box, podman, ("--device", "nvidia.com/gpu=0"), plain, script)
    assert "libc.so.6 =>" in said
    assert "not found" not in said
    assert "Read-only" in in_podman(box, podman, ("--device", "nvidia.com/gpu=0"), plain, "touch /usr/bin/nvidia-smi 2>&1 || :")


def test_a_gpu_that_is_not_there_is_refused(box: GpuBox, podman: Client, plain: str) -> None:
    process = box.started(shlex.join([*podman.words, *PODMAN_RUN, "--device", "nvidia.com/gpu=7", plain, "true"]))
    said = process.communicate(timeout=300)[1]
    assert process.returncode != 0
    assert "nvidia.com/gpu=7" in said


def test_the_volume_serves_a_container_without_cdi(box: GpuBox, podman: Client, plain: str) -> None:
    words = ("--device", "/dev/nvidiactl", "--device", "/dev/nvidia-uvm", "--device", "/dev/nvidia0")
    volume = ("--volume", f"{VOLUME}:/usr/local/nvidia:ro", "--env", "LD_LIBRARY_PATH=/usr/local/nvidia/lib64")
    said = in_podman(box, podman, (*words, *volume), plain, f"cd /dev; echo nvidia*; /usr/local/nvidia/bin/{SMI}")
    assert said.splitlines()[0].split() == ["nvidia-uvm", "nvidia0", "nvidiactl"]
    assert NO_DRIVER in said
    assert said.splitlines()[-1] == "status 9"


@pytest.fixture
def named(docker: Client, box: GpuBox) -> Iterator[str]:
    """The named volume of ``docs/host.md``; docker's daemon sees the folder, not the namespace."""
    device = box.folder / "lib" / VOLUME.removeprefix("/var/lib/")
    name = f"nvidia_driver_{DRIVER}"
    docker("volume", "create", "-d", "local", "-o", "type=none", "-o", "o=bind", "-o", f"device={device}", name)
    yield name
    docker("volume", "rm", "--force", name)


def test_docker_without_cdi_takes_devices_and_the_named_volume(box: GpuBox, docker: Client, plain_base: str, named: str) -> None:
    devices = [f"--device={box.folder}/dev/{name}:/dev/{name}" for name in ("nvidiactl", "nvidia-uvm", "nvidia0")]
    words = (
        "--network",
        "none",
        *devices,
        "--volume",
        f"{named}:/usr/local/nvidia:ro",
        "--env",
        "LD_LIBRARY_PATH=/usr/local/nvidia/lib64",
    )
    script = f"cd /dev; echo nvidia*; /usr/local/nvidia/bin/{SMI}"
    docker("pull", "--quiet", plain_base)
    for _ in range(2):
        said = docker("run", "--rm", *words, plain_base, "/bin/sh", "-c", script)
        assert said.splitlines()[0].split() == ["nvidia-uvm", "nvidia0", "nvidiactl"]
        assert NO_DRIVER in said
        assert said.splitlines()[-1] == "status 9", "the volume outlives the container that used it"
    docker("image", "rm", "--force", plain_base)


def test_the_hosts_own_nvidia_smi_runs_by_the_volumes_loader(box: GpuBox) -> None:
    said = box.run(f"env -i {VOLUME}/host-bin/{SMI}")
    assert NO_DRIVER in said
    assert said.splitlines()[-1] == "status 9"


def test_a_second_volume_run_changes_nothing_and_a_missing_stamp_fills_it_again(
    box: GpuBox, podman: Client, reference: str
) -> None:
    place = box.folder / "lib" / VOLUME.removeprefix("/var/lib/")
    before = place.stat().st_ino
    podman(*PODMAN_RUN, *box.asks(), reference, "volume")
    assert place.stat().st_ino == before
    (place / ".complete").unlink()
    (place / "lib64/libcuda.so.1").unlink()
    podman(*PODMAN_RUN, *box.asks(), reference, "volume")
    assert (place / ".complete").read_text() == f"{DRIVER}\n"
    assert (place / "lib64/libcuda.so.1").exists()
