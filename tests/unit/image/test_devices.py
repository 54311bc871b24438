"""``nvidia-driver`` makes device nodes as NVIDIA's own tool does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.synthetic_machine import (
    SHELLS,
    Machine,
    machine_of,
)


@pytest.fixture(params=sorted(SHELLS))
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return machine_of(tmp_path, str(request.param))


# Device nodes


def test_device_nodes_get_the_numbers_and_modes_that_the_driver_names(machine: Machine) -> None:
    machine.write("proc/driver/nvidia/capabilities/mig/config", "DeviceFileMinor: 1\nDeviceFileMode: 256\nDeviceFileModify: 1")
    machine.write("proc/driver/nvidia/capabilities/mig/monitor", "DeviceFileMinor: 2\nDeviceFileMode: 292\nDeviceFileModify: 1")
    machine.run("load")
    dev = machine.dev
    assert machine.asked("mknod") == [
        f"mknod -m 666 {dev}/nvidiactl c 195 255",
        f"mknod -m 666 {dev}/nvidia-modeset c 195 254",
        f"mknod -m 666 {dev}/nvidia0 c 195 0",
        f"mknod -m 666 {dev}/nvidia-uvm c 238 0",
        f"mknod -m 666 {dev}/nvidia-uvm-tools c 238 1",
        f"mknod -m 400 {dev}/nvidia-caps/nvidia-cap1 c 241 1",
        f"mknod -m 444 {dev}/nvidia-caps/nvidia-cap2 c 241 2",
    ]


def test_nodes_of_a_switch_are_made_only_where_there_is_one(machine: Machine) -> None:
    machine.write("proc/devices", "Character devices:\n195 nvidia\n239 nvidia-nvswitch\n\nBlock devices:\n")
    machine.run("load")
    assert not any("nvswitch" in line for line in machine.asked("mknod"))
    machine.pci("0000:07:00.0", "0x10de", "0x22a3", "0x068000")
    (machine.proc / "driver/nvidia-nvswitch/devices/0000:07:00.0").mkdir(parents=True)
    machine.environment["NVIDIA_FABRICMANAGER"] = "host"
    machine.run("load")
    made = [line.split()[3].rpartition("/")[2] for line in machine.asked("mknod") if "nvswitch" in line]
    assert made == ["nvidia-nvswitchctl", "nvidia-nvswitch0"]


def test_nodes_already_right_are_kept_and_wrong_ones_made_anew(machine: Machine) -> None:
    try:
        os.mknod(machine.dev / "nvidiactl", 0o20600, os.makedev(195, 255))
        os.mknod(machine.dev / "nvidia-uvm", 0o20666, os.makedev(250, 0))
    except PermissionError:
        pytest.skip("making device nodes is not allowed here")
    machine.run("load")
    asked = " ".join(machine.asked("mknod"))
    assert "nvidiactl" not in asked
    assert (machine.dev / "nvidiactl").stat().st_mode & 0o777 == 0o666
    assert "nvidia-uvm c 238 0" in asked


def test_nodes_are_left_alone_where_the_administrator_says_so(machine: Machine) -> None:
    machine.write("proc/driver/nvidia/params", "ModifyDeviceFiles: 0")
    machine.run("load")
    assert machine.asked("mknod") == []
