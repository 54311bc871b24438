"""``nvidia-driver cdi`` and ``volume``: what containers get."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Final

import pytest

from tests.synthetic_machine import (
    DRIVER,
    H200,
    IMAGE,
    SHELLS,
    UUID,
    Machine,
    machine_of,
)


@pytest.fixture(params=sorted(SHELLS))
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return machine_of(tmp_path, str(request.param))


# The CDI specification

LAYOUT: Final = "usr/local/nvidia"


def userspace(machine: Machine, below: str) -> None:
    """The nvidia-docker layout, synthetic."""
    for library, soname in {
        "libcuda": "1",
        "libnvidia-ml": "1",
        "libnvidia-eglcore": "",
        "vdpau/libvdpau_nvidia": "1",
    }.items():
        file = machine.write(f"{below}/lib64/{library}.so.{DRIVER}", "x")
        if soname:
            (file.parent / f"{Path(library).name}.so.{soname}").symlink_to(file.name)
    lib = machine.root / below / "lib64"
    (lib / "libcuda.so").symlink_to("libcuda.so.1")
    (lib / "libother.so.1").symlink_to("libcuda.so.999")
    (lib / "gbm").mkdir()
    (lib / "gbm/nvidia-drm_gbm.so").symlink_to(f"../libnvidia-ml.so.{DRIVER}")
    machine.write(f"{below}/bin/nvidia-smi", "x").chmod(0o755)
    machine.write(f"{below}/share/vulkan/icd.d/nvidia_icd.json", "{}")


def live(machine: Machine) -> None:
    """A second GPU, everything loaded, nodes there, libraries on the host."""
    machine.gpu("0000:00:08.0", H200, minor=3, uuid="GPU-????????-????-????-????-????????????")
    machine.write("sys/bus/pci/devices/0000:00:06.0/drm/renderD128/dev", "226:128")
    machine.write("dev/dri/renderD128", "")
    machine.write(
        "proc/driver/nvidia/capabilities/gpu0/mig/gi1/access",
        "DeviceFileMinor: 12\nDeviceFileMode: 292\nDeviceFileModify: 1",
    )
    machine.run("load")
    userspace(machine, f"host/{LAYOUT}")


def spec(machine: Machine, *words: str) -> dict[str, object]:
    machine.run("cdi", "--output", "-", "--driver-root", f"/{LAYOUT}", *words)
    document = json.loads(machine.out)
    assert isinstance(document, dict)
    return document


def nodes_of(document: dict[str, object]) -> dict[str, list[str]]:
    devices = document["devices"]
    assert isinstance(devices, list)
    return {d["name"]: [n["path"] for n in d["containerEdits"]["deviceNodes"]] for d in devices}


def mounts_of(document: dict[str, object]) -> dict[str, str]:
    edits = document["containerEdits"]
    assert isinstance(edits, dict)
    return {m["containerPath"]: m["hostPath"] for m in edits["mounts"]}


def test_cdi_names_each_gpu_by_index_and_uuid_and_all_of_them(machine: Machine) -> None:
    live(machine)
    document = spec(machine)
    first = ["/dev/dri/renderD128", "/dev/nvidia-caps/nvidia-cap12", "/dev/nvidia0"]
    assert nodes_of(document) == {"0": first, UUID: first, "1": ["/dev/nvidia3"], "all": [*first, "/dev/nvidia3"]}
    assert (document["cdiVersion"], document["kind"]) == ("0.5.0", "nvidia.com/gpu")


def test_cdi_takes_uuids_from_nvidia_smi_where_it_runs(machine: Machine) -> None:
    machine.program(
        "nvidia-smi",
        'echo "GPU 0: NVIDIA H200 (UUID: GPU-aa)"; echo "  MIG 1g.18gb Device 0: (UUID: MIG-cc)"\n'
        'echo "GPU 1: NVIDIA H200 (UUID: GPU-bb)"',
    )
    live(machine)
    assert set(nodes_of(spec(machine))) == {"0", "GPU-aa", "1", "GPU-bb", "all"}


def test_cdi_holds_only_fields_that_the_specification_knows(machine: Machine) -> None:
    live(machine)
    document = spec(machine)
    assert set(document) == {"cdiVersion", "kind", "devices", "containerEdits"}
    edits = document["containerEdits"]
    assert isinstance(edits, dict)
    assert set(edits) == {"env", "deviceNodes", "mounts"}
    assert {frozenset(m) for m in edits["mounts"]} == {frozenset({"hostPath", "containerPath", "options"})}


def test_cdi_common_nodes_are_those_that_exist(machine: Machine) -> None:
    live(machine)
    (machine.dev / "nvidia-modeset").unlink()
    edits = spec(machine)["containerEdits"]
    assert isinstance(edits, dict)
    assert [n["path"] for n in edits["deviceNodes"]] == ["/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidiactl"]


def test_cdi_mounts_each_library_by_version_and_by_soname_where_the_host_has_no_hook(machine: Machine) -> None:
    live(machine)
    mounts = mounts_of(spec(machine))
    real = f"/{LAYOUT}/lib64/libcuda.so.{DRIVER}"
    for directory in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64"):
        for name in (f"libcuda.so.{DRIVER}", "libcuda.so.1", "libcuda.so"):
            assert mounts[f"{directory}/{name}"] == real
        assert f"{directory}/vdpau/libvdpau_nvidia.so.1" in mounts
        assert mounts[f"{directory}/gbm/nvidia-drm_gbm.so"] == f"/{LAYOUT}/lib64/libnvidia-ml.so.{DRIVER}"
    assert not [path for path in mounts if "libother" in path]
    assert mounts["/usr/bin/nvidia-smi"] == f"/{LAYOUT}/bin/nvidia-smi"
    assert "/usr/share/vulkan/icd.d/nvidia_icd.json" in mounts


def test_cdi_uses_the_hosts_hooks_where_it_has_them(machine: Machine) -> None:
    live(machine)
    machine.program("nvidia-ctk", ":", machine.host / "usr/bin")
    edits = spec(machine)["containerEdits"]
    assert isinstance(edits, dict)
    links, cache = edits["hooks"]
    assert links["path"] == "/usr/bin/nvidia-ctk"
    assert links["args"][:3] == ["nvidia-ctk", "hook", "create-symlinks"]
    assert f"libcuda.so.{DRIVER}::/usr/lib/x86_64-linux-gnu/libcuda.so.1" in links["args"]
    assert cache["args"] == ["nvidia-ctk", "hook", "update-ldcache", "--folder", "/usr/lib/x86_64-linux-gnu"]


def test_cdi_mounts_firmware_from_where_the_kernel_has_it(machine: Machine) -> None:
    live(machine)
    mounts = mounts_of(spec(machine))
    place = f"/var/lib/nvidia-driver/{DRIVER}/firmware/nvidia/{DRIVER}/gsp_ga10x.bin"
    assert mounts[f"/lib/firmware/nvidia/{DRIVER}/gsp_ga10x.bin"] == place


def test_cdi_is_the_same_text_each_time_and_written_whole(machine: Machine) -> None:
    live(machine)
    spec(machine)
    machine.run("cdi", "--driver-root", f"/{LAYOUT}")
    assert (machine.run_dir / "cdi/nvidia.yaml").read_text() != ""
    assert [p.name for p in (machine.run_dir / "cdi").iterdir()] == ["nvidia.yaml"]
    first = (machine.run_dir / "cdi/nvidia.yaml").read_text()
    spec(machine)
    assert machine.out == first


def test_cdi_warns_of_another_file_for_the_same_devices(machine: Machine) -> None:
    live(machine)
    other = machine.write("host/etc/cdi/nvidia.yaml", "cdiVersion: 0.5.0\nkind: nvidia.com/gpu")
    assert str(other) in machine.run("cdi", "--driver-root", f"/{LAYOUT}")


def test_cdi_without_a_loaded_driver_says_what_to_do(machine: Machine) -> None:
    assert "'nvidia-driver load' first" in machine.run("cdi", status=3)


def test_cdi_refuses_libraries_of_another_version(machine: Machine) -> None:
    live(machine)
    (machine.host / LAYOUT / f"lib64/libcuda.so.{DRIVER}").unlink()
    assert f"libcuda.so.{DRIVER} is missing" in machine.run("cdi", "--driver-root", f"/{LAYOUT}", status=2)


INVENTORY: Final = IMAGE.parents[1] / "shared/hosts/h200-580.159.04.inventory.txt"


def test_cdi_of_a_recorded_host_mounts_each_library_of_its_driver(machine: Machine) -> None:
    if not INVENTORY.exists():
        pytest.skip("the recorded inventory of a GPU host is not beside this checkout")
    text, driver = INVENTORY.read_text(), "580.159.04"
    tree = re.findall(r"^([dfl]) \d+ \d+ (/usr/local/nvidia\S*) -> (\S*)$", text, re.MULTILINE)
    for kind, path, target in tree:
        place = machine.host / path[1:]
        if kind == "d":
            place.mkdir(parents=True, exist_ok=True)
        elif kind == "l":
            place.symlink_to(target)
        else:
            place.write_text("")
    information = re.search(r"^Model:.*?^GPU Excluded:\s+No$", text, re.MULTILINE | re.DOTALL)
    assert information is not None
    machine.write("proc/driver/nvidia/gpus/0000:00:06.0/information", information[0])
    machine.write("sys/module/firmware_class/parameters/path", "/usr/local/nvidia/firmware")
    (machine.image / "opt/nvidia-driver/image.env").unlink()
    machine.load_by_hand("nvidia", "nvidia-uvm", driver=driver)
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"):
        machine.write(f"dev/{name}", "")

    machine.run("cdi", "--output", "-")

    document = json.loads(machine.out)
    nodes = ["/dev/nvidia0"]
    assert nodes_of(document) == {"0": nodes, "GPU-00000000-0000-0000-0000-000000000000": nodes, "all": nodes}
    mounts = mounts_of(document)
    files = {path for kind, path, _ in tree if kind == "f" and path.endswith(f".so.{driver}")}
    assert len(files) > 25
    assert files == {host for place, host in mounts.items() if place.startswith("/usr/lib64/")}
    names = {path.rsplit("/", 1)[1] for kind, path, _ in tree if kind == "l" and re.search(r"lib64/.*\.so\.\d+$", path)}
    assert names <= {place.rsplit("/", 1)[1] for place in mounts}
    firmware = "/usr/local/nvidia/firmware/nvidia/580.159.04/gsp_ga10x.bin"
    assert mounts["/lib/firmware/nvidia/580.159.04/gsp_ga10x.bin"] == firmware


# The nvidia-docker volume


def test_the_volume_is_filled_before_any_module_is_loaded_and_its_stamp_comes_last(machine: Machine) -> None:
    userspace(machine, "image/usr/local/nvidia")
    machine.write("image/usr/lib/x86_64-linux-gnu/libc.so.6", "libc")
    machine.run("volume")
    volume = machine.host / f"var/lib/nvidia-docker/volumes/nvidia_driver/{DRIVER}"
    assert (volume / ".complete").read_text() == f"{DRIVER}\n"
    assert (volume / "lib64/libcuda.so").readlink() == Path("libcuda.so.1")
    assert (volume / "lib").is_dir()
    assert (volume / "glibc/libc.so.6").exists()
    starter = (volume / "host-bin/nvidia-smi").read_text()
    assert f"v=/var/lib/nvidia-docker/volumes/nvidia_driver/{DRIVER}\n" in starter
    assert os.access(volume / "host-bin/nvidia-smi", os.X_OK)
    assert machine.asked() == []


def test_a_volume_without_its_stamp_is_filled_again(machine: Machine) -> None:
    userspace(machine, "image/usr/local/nvidia")
    left = machine.write(f"host/var/lib/nvidia-docker/volumes/nvidia_driver/{DRIVER}/lib64/half", "x")
    machine.write(f"host/var/lib/nvidia-docker/volumes/nvidia_driver/.{DRIVER}.new/half", "x")
    machine.run("volume")
    assert not left.exists()
    assert [path.name for path in left.parent.parent.parent.iterdir()] == [DRIVER]


def test_a_complete_volume_is_left_alone(machine: Machine) -> None:
    userspace(machine, "image/usr/local/nvidia")
    machine.run("volume")
    before = (machine.host / f"var/lib/nvidia-docker/volumes/nvidia_driver/{DRIVER}").stat().st_ino
    assert "is complete" in machine.run("volume")
    assert (machine.host / f"var/lib/nvidia-docker/volumes/nvidia_driver/{DRIVER}").stat().st_ino == before


def test_cdi_takes_libraries_from_the_volume_where_it_is_complete(machine: Machine) -> None:
    live(machine)
    userspace(machine, "image/usr/local/nvidia")
    machine.run("volume")
    machine.run("cdi", "--output", "-")
    place = f"/var/lib/nvidia-docker/volumes/nvidia_driver/{DRIVER}/lib64/libcuda.so.{DRIVER}"
    assert mounts_of(json.loads(machine.out))["/usr/lib64/libcuda.so.1"] == place
