"""``nvidia-driver init`` and its side container, as the GPU Operator calls them."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.synthetic_machine import (
    ALL,
    GONE,
    PROGRAM,
    SHELLS,
    Machine,
    machine_of,
)


@pytest.fixture(params=sorted(SHELLS))
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return machine_of(tmp_path, str(request.param))


# The GPU Operator's contract


class Init:
    """A running ``nvidia-driver init``."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.process = subprocess.Popen(
            [*machine.shell, str(PROGRAM), "init"], env=machine.env(), stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        self.said = ""
        for line in self.process.stderr:
            self.said += line
            if "staying" in line:
                break

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=30)
        self.said += rest
        return self.process.returncode


@pytest.fixture
def running(machine: Machine) -> Iterator[Init]:
    machine.environment["DRIVER_CONFIG_DIGEST"] = "886542011"
    init = Init(machine)
    yield init
    if init.process.poll() is None:
        init.process.terminate()
    init.process.communicate(timeout=30)


def test_init_loads_mounts_the_driver_root_says_ready_and_stays(machine: Machine, running: Init) -> None:
    run = machine.run_dir / "nvidia"
    assert running.process.poll() is None
    assert machine.asked() == ALL
    assert machine.asked("mount")[-1] == f"mount --rbind {machine.image} {run}/driver"
    assert (run / "validations/.driver-daemons-status").read_text() == "Ready\n"
    assert (run / "nvidia-driver.state").read_text() == "886542011"
    assert (run / "nvidia-driver.pid").read_text() == f"{running.process.pid}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_init_unloads_unmounts_and_takes_its_ready_files_back(machine: Machine, running: Init, number: int) -> None:
    run = machine.run_dir / "nvidia"
    ready = run / "validations/.driver-ctr-ready"
    ready.write_text("")
    machine.write("proc/self/mountinfo", f"1 2 0:3 / {run}/driver rw - overlay overlay rw")
    machine.log.unlink()
    assert running.stop(number) == 0
    assert machine.asked() == GONE
    assert machine.asked("umount") == [f"umount -l {run}/driver"]
    assert not ready.exists()
    assert (run / "validations/.driver-daemons-status").read_text() == "NotReady\n"
    assert not (run / "nvidia-driver.state").exists()


def test_a_stopped_init_leaves_a_driver_in_use_and_its_libraries(machine: Machine, running: Init) -> None:
    machine.uses(4711, "python3")
    machine.log.unlink()
    assert running.stop() == 13
    assert "4711 (python3)" in running.said
    assert machine.asked("rmmod", "umount") == []


def test_a_second_init_is_refused(machine: Machine, running: Init) -> None:
    machine.write(f"proc/{running.process.pid}/cmdline", "sh /usr/bin/nvidia-driver init")
    assert f"another nvidia-driver init runs (pid {running.process.pid}" in machine.run("init", status=21)


def test_without_a_flock_program_the_living_pid_holds_the_lock(machine: Machine) -> None:
    machine.program("flock", "exit 127")
    machine.write("run/nvidia/nvidia-driver.pid", "4711")
    machine.write("proc/4711/cmdline", "sh /usr/bin/nvidia-driver init")
    assert "pid 4711" in machine.run("init", status=21)


def test_a_lock_left_by_a_killed_container_is_taken_over(machine: Machine) -> None:
    machine.program("flock", "exit 127")
    machine.write("run/nvidia/nvidia-driver.pid", "4711")
    init = Init(machine)
    assert "staying" in init.said
    assert init.stop() == 0


def test_an_init_that_cannot_mount_the_driver_root_takes_the_driver_out_again(machine: Machine) -> None:
    machine.program("mount", "exit 1")
    assert "cannot mount the driver root" in machine.run("init", status=1)
    assert machine.loaded() == set()


def test_init_starts_persistence_by_the_daemon_and_the_fabric_manager_of_the_image(machine: Machine) -> None:
    machine.pci("0000:00:07.0", "0x10de", "0x22a3", "0x068000")
    machine.program("nv-fabricmanager", 'echo "nv-fabricmanager${*:+ $*}" >> "$LOG"', machine.image / "usr/local/nvidia/bin")
    machine.environment["NVIDIA_PERSISTENCED"] = "1"
    init = Init(machine)
    assert init.stop() == 0
    assert machine.asked("nvidia-persistenced", "nv-fabricmanager") == [
        "nv-fabricmanager",
        "nvidia-persistenced --persistence-mode",
    ]


def test_a_fabric_manager_that_does_not_start_takes_the_driver_out_again(machine: Machine) -> None:
    machine.pci("0000:00:07.0", "0x10de", "0x22a3", "0x068000")
    machine.program("nv-fabricmanager", "exit 1", machine.image / "usr/local/nvidia/bin")
    assert "the Fabric Manager did not start" in machine.run("init", status=18)
    assert machine.loaded() == set()


def test_peer_memory_that_the_image_lacks_is_one_line(machine: Machine) -> None:
    env = machine.image / "opt/nvidia-driver/image.env"
    env.write_text(env.read_text().replace(" nvidia-peermem", ""))
    for command in ("reload_nvidia_peermem", "probe_nvidia_peermem"):
        assert len(machine.run(command, status=19).splitlines()) == 1


def test_the_peer_memory_probe_fails_only_where_infiniband_is_there_and_the_module_is_not(machine: Machine) -> None:
    machine.run("probe_nvidia_peermem")
    (machine.sys / "module/mlx5_core").mkdir()
    assert "nvidia-peermem is not loaded" in machine.run("probe_nvidia_peermem", status=1)
    (machine.sys / "module/nvidia_peermem").mkdir()
    machine.run("probe_nvidia_peermem")


def test_peer_memory_without_infiniband_is_not_waited_for_without_end(machine: Machine) -> None:
    machine.environment["PEERMEM_WAIT"] = "0"
    assert "no InfiniBand driver" in machine.run("reload_nvidia_peermem", status=19)


def test_peer_memory_is_inserted_once_infiniband_is_there(machine: Machine) -> None:
    machine.run("load")
    machine.write("run/nvidia/validations/.driver-ctr-ready", "")
    machine.write("run/mellanox/drivers/.driver-ready", "")
    process = subprocess.Popen(
        [*machine.shell, str(PROGRAM), "reload_nvidia_peermem"], env=machine.env(), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert "nvidia-peermem is loaded" in process.stderr.readline()
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert machine.asked()[-1] == "insmod nvidia-peermem"
