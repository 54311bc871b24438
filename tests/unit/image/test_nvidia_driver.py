"""``nvidia-driver``: loading, unloading, status, each under each shell that an image or a host may have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from pipeline.upstream.nvidia import supported_gpus
from tests.synthetic_machine import (
    ALL,
    DRIVER,
    GONE,
    H200,
    IMAGE,
    KERNEL,
    MARKER,
    PROGRAM,
    SHELLS,
    STAND_INS,
    UUID,
    Machine,
    machine_of,
)

RECORDED: Final = IMAGE.parents[1] / "shared"
TAG: Final = KERNEL.replace("+", "_")


@pytest.fixture(params=sorted(SHELLS))
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return machine_of(tmp_path, str(request.param))


# Loading


def test_load_inserts_each_module_after_what_it_builds_on(machine: Machine) -> None:
    said = machine.run("load")
    assert machine.asked() == ALL
    assert f"driver {DRIVER} is ready: 1 GPU(s)" in said


def test_modules_of_the_host_come_first(machine: Machine) -> None:
    machine.run("load")
    asked = machine.asked("modprobe", "insmod")
    needed = f"modprobe -d {machine.host} -S {KERNEL} i2c-core"
    assert asked.index(needed) < asked.index("insmod nvidia")


def test_modules_of_the_host_are_found_through_its_first_process_where_no_tree_is_mounted(machine: Machine) -> None:
    (machine.proc / "1").mkdir()
    machine.host.rename(machine.proc / "1/root")
    machine.run("load")
    assert f"modprobe -d {machine.proc}/1/root -S {KERNEL} i2c-core" in machine.asked("modprobe")


def test_host_modules_that_are_built_in_loaded_or_only_wished_for_are_no_reason_to_refuse(machine: Machine) -> None:
    (machine.root / "host-modules/i2c-core").unlink()
    machine.write(f"image/opt/lib/modules/{KERNEL}/nvidia.ko", f"version: {DRIVER}\ndepends: video,ipmi_devintf")
    (machine.sys / "module/ipmi_devintf").mkdir()
    machine.run("load")
    assert "video" not in " ".join(machine.asked("modprobe"))


def test_a_host_module_that_is_needed_and_missing_is_named_before_anything_is_loaded(machine: Machine) -> None:
    machine.write(f"image/opt/lib/modules/{KERNEL}/nvidia-drm.ko", f"version: {DRIVER}\ndepends: drm_kms_helper,nvidia")
    said = machine.run("load", status=20)
    assert "nvidia-drm needs the host kernel's drm_kms_helper" in said
    assert machine.asked() == []


def test_a_module_refused_late_takes_the_earlier_ones_out_again(machine: Machine) -> None:
    machine.refuse("nvidia-modeset", "Unknown symbol in module")
    said = machine.run("load", status=16)
    assert machine.loaded() == set()
    assert machine.asked()[-2:] == ["rmmod nvidia-uvm", "rmmod nvidia"]
    assert "nvidia-modeset.ko (open) was refused" in said
    assert "Unknown symbol in module" in said


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("No such device", 17),
        ("Key was rejected by service", 15),
        ("Required key not available", 15),
        ("Invalid module format", 11),
    ],
)
def test_what_the_kernel_answers_becomes_an_exit_status_and_one_line(machine: Machine, text: str, status: int) -> None:
    machine.refuse("nvidia", text)
    machine.write("log.dmesg", "[  3.1] NVRM: the kernel's own words")
    said = machine.run("load", status=status)
    (line,) = [line for line in said.splitlines() if "refused" in line]
    assert text in line
    assert "NVRM: the kernel's own words" in line


def test_another_kernels_image_is_refused_and_the_right_one_named(machine: Machine) -> None:
    machine.image_of(kernel="6.1.0-50-cloud-amd64")
    said = machine.run("load", status=11)
    assert f"this image is for kernel 6.1.0-50-cloud-amd64, this host runs {KERNEL}" in said
    assert f"pull driver:6.12.90_deb13-cloud-amd64-{DRIVER}" in said
    assert machine.asked() == []


def test_another_version_already_loaded_is_named_and_left_alone(machine: Machine) -> None:
    machine.load_by_hand("nvidia", driver="570.86.10")
    assert "NVIDIA driver 570.86.10 is loaded" in machine.run("load", status=12)
    assert machine.asked() == []


def test_the_same_driver_already_loaded_is_not_reloaded(machine: Machine) -> None:
    machine.run("load")
    machine.log.unlink()
    machine.uses(4711, "python3")
    assert "nothing is reloaded" in machine.run("load")
    assert machine.asked() == []


def test_a_half_loaded_set_that_nothing_uses_is_cleared_first(machine: Machine) -> None:
    machine.load_by_hand("nvidia", "nvidia-uvm")
    machine.run("load")
    assert machine.asked() == ["rmmod nvidia-uvm", "rmmod nvidia", *ALL]


def test_a_half_loaded_set_in_use_is_completed_and_workloads_live_on(machine: Machine) -> None:
    machine.load_by_hand("nvidia", "nvidia-uvm")
    machine.uses(4711, "python3")
    assert "4711 (python3)" in machine.run("load")
    assert machine.asked() == ["insmod nvidia-modeset", "insmod nvidia-drm"]


def test_a_failure_beside_a_set_in_use_takes_out_only_what_this_run_added(machine: Machine) -> None:
    machine.load_by_hand("nvidia", "nvidia-uvm")
    machine.uses(4711, "python3")
    machine.refuse("nvidia-drm", "Unknown symbol in module")
    machine.run("load", status=16)
    assert machine.loaded() == {"nvidia", "nvidia_uvm"}


def test_without_a_gpu_nothing_is_loaded(machine: Machine) -> None:
    machine.no_gpu()
    assert "no NVIDIA GPU in this machine" in machine.run("load", status=10)
    assert machine.asked() == []


def test_a_proof_without_a_gpu_may_still_try_and_ends_with_no_such_device(machine: Machine) -> None:
    machine.no_gpu()
    machine.environment["NVIDIA_DRIVER_TRY"] = "1"
    machine.refuse("nvidia", "No such device")
    assert "No such device" in machine.run("load", status=10)


def test_a_module_of_another_version_than_the_image_says_is_taken_out_again(machine: Machine) -> None:
    machine.write(f"image/opt/lib/modules/{KERNEL}/nvidia.ko", "version: 1.2.3\ndepends: ")
    assert "nvidia.ko says it is 1.2.3" in machine.run("load", status=16)
    assert machine.loaded() == set()


def test_a_module_missing_from_the_image_is_named(machine: Machine) -> None:
    (machine.image / f"opt/lib/modules/{KERNEL}/nvidia-uvm.ko").unlink()
    assert "nvidia-uvm.ko is missing" in machine.run("load", status=2)
    assert machine.loaded() == set()


def test_modules_may_lie_compressed_in_the_image(machine: Machine) -> None:
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    for file in (machine.image / f"opt/lib/modules/{KERNEL}").iterdir():
        subprocess.run(["zstd", "-q", "--rm", file], check=True)
    machine.run("load")
    assert machine.asked() == ALL
    assert list((machine.root / "tmp").iterdir()) == [], "the unpacked copies are gone"


def test_a_run_that_is_stopped_while_loading_takes_out_what_it_loaded(machine: Machine) -> None:
    machine.program(
        "insmod",
        STAND_INS["insmod"] + '\n[ "$name" != nvidia-uvm ] || kill -TERM "$(cut -d " " -f 4 "/proc/$PPID/stat")"\n',
    )
    machine.run("load", status=143)
    assert machine.loaded() == set()


def test_only_the_modules_asked_for_are_loaded(machine: Machine) -> None:
    machine.environment["NVIDIA_DRIVER_MODULES"] = "nvidia nvidia-uvm"
    machine.run("load")
    assert machine.asked() == ALL[:2]


def test_asking_for_a_module_that_the_image_lacks_is_wrong_use(machine: Machine) -> None:
    machine.environment["NVIDIA_DRIVER_MODULES"] = "nvidia nvidia-fs"
    assert "names nvidia-fs" in machine.run("load", status=2)


def test_peer_memory_is_loaded_where_rdma_is_wanted(machine: Machine) -> None:
    machine.environment["GPU_DIRECT_RDMA_ENABLED"] = "true"
    machine.run("load")
    assert machine.asked()[-1] == "insmod nvidia-peermem"


def test_outside_an_image_the_missing_file_is_named(machine: Machine) -> None:
    (machine.image / "opt/nvidia-driver/image.env").unlink()
    assert "image.env is missing" in machine.run("load", status=2)


# Parameters


def test_module_parameters_come_from_a_file_in_modprobes_form(machine: Machine) -> None:
    lines = [
        "# a comment",
        "options nvidia NVreg_Foo=1 \\",
        '  NVreg_RegistryDwords="a=1;b=2"',
        "options nvidia_drm modeset=1",
        "options other x=1",
        "blacklist nouveau",
    ]
    text = "\n".join(lines)
    machine.write("host/etc/nvidia-driver/modules.conf", text)
    machine.run("load")
    assert machine.asked()[0] == 'insmod nvidia NVreg_Foo=1 NVreg_RegistryDwords="a=1;b=2"'
    assert machine.asked()[1] == "insmod nvidia-uvm"
    assert machine.asked()[3] == "insmod nvidia-drm modeset=1"


def test_parameters_that_look_like_patterns_reach_the_module_as_written(machine: Machine) -> None:
    machine.write("host/etc/nvidia-driver/modules.conf", "options nvidia NVreg_AssignGpus=/*")
    machine.run("load")
    assert machine.asked()[0] == "insmod nvidia NVreg_AssignGpus=/*"


def test_the_gpu_operators_parameter_files_are_read_too(machine: Machine) -> None:
    machine.write("image/drivers/nvidia-uvm.conf", "uvm_disable_hmm=1")
    machine.run("load")
    assert machine.asked()[1] == "insmod nvidia-uvm uvm_disable_hmm=1"


# Kind


def test_the_recommended_kind_is_taken_and_the_reason_said(machine: Machine) -> None:
    assert f"loading open modules of {DRIVER} for {KERNEL} (recommended for {DRIVER})" in machine.run("load")
    assert f"/opt/lib/modules/{KERNEL}/nvidia.ko" in (machine.root / "log.files").read_text()


def test_the_table_of_gpus_goes_before_the_recommendation(machine: Machine) -> None:
    machine.write("image/opt/nvidia-driver/gpus", f"10de:1db1 open\n10de:{H200} proprietary")
    assert f"loading proprietary modules of {DRIVER} for {KERNEL} (GPU 10de:{H200} takes no other)" in machine.run("load")
    assert f"/opt/proprietary/lib/modules/{KERNEL}/nvidia.ko" in (machine.root / "log.files").read_text()


def test_the_setting_goes_before_the_table(machine: Machine) -> None:
    machine.write("image/opt/nvidia-driver/gpus", f"10de:{H200} proprietary")
    machine.environment["KERNEL_MODULE_TYPE"] = "open"
    assert "(KERNEL_MODULE_TYPE=open)" in machine.run("load")


def test_a_gpu_that_the_branch_no_longer_serves_is_named_with_its_branch(machine: Machine) -> None:
    machine.write("image/opt/nvidia-driver/gpus", f"10de:{H200} legacy 470")
    said = machine.run("load", status=17)
    assert f"GPU 10de:{H200} needs branch 470, which {DRIVER} no longer serves: pull driver:{TAG}-470" in said
    assert machine.asked() == []


def test_beside_a_gpu_that_is_served_one_of_an_older_branch_is_named_and_no_obstacle(machine: Machine) -> None:
    machine.write("image/opt/nvidia-driver/gpus", f"10de:{H200} both\n10de:102d legacy 470")
    machine.gpu("0000:00:07.0", "102d", minor=1, uuid=UUID.replace("0", "1"))
    assert "warning: GPU 10de:102d needs branch 470" in machine.run("load")
    assert machine.asked() == ALL


def test_a_board_with_a_line_of_its_own_goes_before_its_device(machine: Machine) -> None:
    lines = [f"10de:{H200} open", f"10de:{H200}:10de:18be proprietary", f"10de:{H200}:10de:0001 legacy 470"]
    machine.write("image/opt/nvidia-driver/gpus", "\n".join(lines))
    machine.run("kind")
    assert machine.out == "proprietary\n"
    machine.gpu("0000:00:06.0", H200, minor=0, uuid=UUID, board="0x1028:0x18be")
    machine.run("kind")
    assert machine.out == "open\n"


def test_boards_of_one_device_that_differ_are_told_apart_where_no_line_stands_for_all(machine: Machine) -> None:
    machine.write("image/opt/nvidia-driver/gpus", f"10de:{H200}:10de:18be proprietary\n10de:{H200}:10de:0001 open")
    machine.run("kind")
    assert machine.out == "proprietary\n"


def test_where_either_kind_runs_the_recommended_one_is_taken_and_that_said(machine: Machine) -> None:
    machine.write("image/opt/nvidia-driver/gpus", f"10de:{H200} both")
    assert f"open modules of {DRIVER} (recommended for {DRIVER}; GPU 10de:{H200} takes either)" in machine.run("kind")


def test_a_gpu_that_the_list_lacks_is_named_and_tried(machine: Machine) -> None:
    machine.write("image/opt/nvidia-driver/gpus", "10de:1db1 both")
    assert f"GPU 10de:{H200} is not in the list of {DRIVER}: it may be newer than this driver" in machine.run("load")
    assert machine.asked() == ALL


def test_a_setting_that_the_gpu_does_not_bear_is_told(machine: Machine) -> None:
    machine.write("image/opt/nvidia-driver/gpus", f"10de:{H200} open")
    machine.environment["KERNEL_MODULE_TYPE"] = "proprietary"
    assert f"GPU 10de:{H200} takes only open modules, and KERNEL_MODULE_TYPE=proprietary" in machine.run("kind")
    assert machine.out == "proprietary\n"


def test_the_kind_is_told_for_an_image_of_another_kernel_too(machine: Machine) -> None:
    machine.image_of(kernel="6.12.91-next")
    machine.run("kind")
    assert machine.out == "open\n"
    assert machine.asked() == []


@pytest.mark.skipif(not RECORDED.is_dir(), reason="what was recorded of hosts and upstreams is not beside this checkout")
def test_on_a_recorded_host_nvidias_real_list_decides(machine: Machine) -> None:
    shutil.rmtree(machine.sys / "bus/pci/devices")
    inventory = (RECORDED / "hosts/h200-580.159.04.inventory.txt").read_text()
    found = re.findall(r"^(\S+:\S+) (0x\w{4}) (0x\w{4}) (0x\w{6}) (0x\w{4}) (0x\w{4})", inventory, re.MULTILINE)
    for address, vendor, device, kind, *board in found:
        machine.pci(address, vendor, device, kind, ":".join(board))
    assert any(row[:3] == ("0000:00:06.0", "0x10de", "0x2335") for row in found)
    listed = (RECORDED / "upstream/nvidia/supported-gpus/focal-nvidia-driver-525-supported-gpus.json").read_bytes()
    table = machine.image / "opt/nvidia-driver/gpus"
    table.write_bytes(supported_gpus.kind_table(supported_gpus.parse(listed, "525").chips))
    assert "GPU 10de:2335 is not in the list" in machine.run("kind"), "an H200 is newer than 525"
    for gpu, answer in {"0x1b06": "proprietary", "0x2330": "open"}.items():
        machine.pci("0000:00:06.0", "0x10de", gpu, "0x030200")
        machine.run("kind")
        assert machine.out == f"{answer}\n"
    machine.pci("0000:00:06.0", "0x10de", "0x102d", "0x030200")
    assert f"GPU 10de:102d needs branch 470, which {DRIVER} no longer serves" in machine.run("kind", status=17)


def test_a_kind_that_the_image_lacks_is_named_with_those_it_has(machine: Machine) -> None:
    env = machine.image / "opt/nvidia-driver/image.env"
    env.write_text(env.read_text().replace('"open proprietary"', '"open"'))
    machine.environment["KERNEL_MODULE_TYPE"] = "proprietary"
    assert "this image holds: open" in machine.run("load", status=17)


def test_an_unknown_kind_is_wrong_use(machine: Machine) -> None:
    machine.environment["KERNEL_MODULE_TYPE"] = "closed"
    assert "KERNEL_MODULE_TYPE=closed" in machine.run("load", status=2)


# Refusals before the first change


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("sys/kernel/security/lockdown", "none [integrity] confidentiality", "lockdown is integrity"),
        ("sys/module/module/parameters/sig_enforce", "Y", "module.sig_enforce is on"),
    ],
)
def test_unsigned_modules_are_not_tried_where_the_kernel_takes_only_signed_ones(
    machine: Machine, file: str, text: str, reason: str
) -> None:
    machine.write(file, text)
    said = machine.run("load", status=15)
    assert reason in said
    assert "nvidia.ko is not signed" in said
    assert machine.asked("insmod", "rmmod", "modprobe") == []


def test_signed_modules_are_tried_under_lockdown(machine: Machine) -> None:
    machine.write("sys/kernel/security/lockdown", "none [integrity] confidentiality")
    for file in (machine.image / f"opt/lib/modules/{KERNEL}").iterdir():
        file.write_text(file.read_text() + MARKER)
    machine.run("load")
    assert machine.asked() == ALL


def test_a_kernel_closed_to_modules_until_reboot_is_named(machine: Machine) -> None:
    machine.write("proc/sys/kernel/modules_disabled", "1")
    assert "kernel.modules_disabled" in machine.run("load", status=15)


def nouveau(machine: Machine, users: int) -> None:
    (machine.sys / "module/nouveau/holders").mkdir(parents=True)
    machine.write("sys/module/nouveau/refcnt", str(users))


def test_an_unused_nouveau_is_unloaded(machine: Machine) -> None:
    nouveau(machine, 0)
    machine.run("load")
    assert machine.asked() == ["rmmod nouveau", *ALL]


def test_a_nouveau_in_use_is_named(machine: Machine) -> None:
    nouveau(machine, 2)
    assert "modprobe.blacklist=nouveau" in machine.run("load", status=14)
    assert machine.asked() == []


def test_a_gpu_given_to_a_virtual_machine_is_named(machine: Machine) -> None:
    (machine.sys / "bus/pci/devices/0000:00:06.0/driver").symlink_to("../../../bus/pci/drivers/vfio-pci")
    assert "0000:00:06.0 (vfio-pci)" in machine.run("load", status=14)
    assert machine.asked() == []


def test_nvswitch_without_a_fabric_manager_in_the_image_is_refused_before_loading(machine: Machine) -> None:
    machine.pci("0000:00:07.0", "0x10de", "0x22a3", "0x068000")
    assert "NVSwitch at 0000:00:07.0" in machine.run("load", status=18)
    assert machine.asked() == []


def test_nvswitch_is_no_obstacle_where_the_host_runs_the_fabric_manager(machine: Machine) -> None:
    machine.pci("0000:00:07.0", "0x10de", "0x22a3", "0x068000")
    machine.environment["NVIDIA_FABRICMANAGER"] = "host"
    machine.run("load")
    assert machine.asked() == ALL


# Firmware


def test_firmware_is_copied_to_the_host_and_the_kernel_told_the_hosts_path(machine: Machine) -> None:
    machine.run("load")
    place = f"/var/lib/nvidia-driver/{DRIVER}/firmware"
    assert (machine.host / f"{place[1:]}/nvidia/{DRIVER}/gsp_ga10x.bin").read_text() == "firmware\n"
    assert (machine.sys / "module/firmware_class/parameters/path").read_text() == place


def test_firmware_cut_short_by_a_power_cut_is_copied_again(machine: Machine) -> None:
    short = machine.write(f"host/var/lib/nvidia-driver/{DRIVER}/firmware/nvidia/{DRIVER}/gsp_ga10x.bin", "fi")
    machine.run("load")
    assert short.read_text() == "firmware\n"


def test_a_search_path_that_somebody_set_is_kept(machine: Machine) -> None:
    path = machine.write("sys/module/firmware_class/parameters/path", "/usr/local/nvidia/firmware")
    said = machine.run("load")
    assert path.read_text() == "/usr/local/nvidia/firmware\n"
    assert "is already /usr/local/nvidia/firmware and stays" in said


def test_our_own_search_path_of_an_earlier_driver_is_replaced(machine: Machine) -> None:
    path = machine.write("sys/module/firmware_class/parameters/path", "/var/lib/nvidia-driver/570.86.10/firmware")
    machine.run("load")
    assert path.read_text() == f"/var/lib/nvidia-driver/{DRIVER}/firmware"


def test_under_the_gpu_operator_firmware_goes_to_the_directory_it_mounts(machine: Machine) -> None:
    machine.write("proc/self/mountinfo", "1 2 0:3 / /usr/lib/firmware rw - tmpfs tmpfs rw")
    (machine.image / "lib/firmware").mkdir(parents=True)
    machine.run("load")
    assert (machine.image / f"lib/firmware/nvidia/{DRIVER}/gsp_ga10x.bin").exists()
    assert (machine.sys / "module/firmware_class/parameters/path").read_text() == "/run/nvidia/driver/lib/firmware"


# Persistence


def test_persistence_outlives_the_loading_container(machine: Machine) -> None:
    machine.environment["NVIDIA_PERSISTENCED"] = "1"
    machine.run("load")
    assert machine.asked("nvidia-smi", "nvidia-persistenced") == ["nvidia-smi -pm 1"]


def test_persistence_is_not_switched_on_unasked(machine: Machine) -> None:
    machine.run("load")
    assert machine.asked("nvidia-smi", "nvidia-persistenced") == []


# Unloading


def test_unload_goes_backwards(machine: Machine) -> None:
    machine.run("load")
    machine.log.unlink()
    machine.run("unload")
    assert machine.asked() == GONE
    assert machine.loaded() == set()


def test_unload_names_the_processes_that_hold_a_device_and_removes_nothing(machine: Machine) -> None:
    machine.run("load")
    machine.log.unlink()
    machine.uses(4711, "python3")
    machine.uses(4712, "mps server", "/dev/nvidia-uvm")
    machine.uses(4713, "bystander", "/dev/zero")
    said = machine.run("unload", status=13)
    assert "4711 (python3)" in said
    assert "4712 (mps server)" in said
    assert "bystander" not in said
    assert machine.asked() == []


def test_unload_names_a_foreign_module_on_top(machine: Machine) -> None:
    machine.run("load")
    (machine.sys / "module/nvidia/holders/nvidia_fs").mkdir()
    assert "nvidia is used by the module nvidia_fs" in machine.run("unload", status=13)


def test_users_that_this_namespace_cannot_see_are_counted(machine: Machine) -> None:
    machine.run("load")
    machine.write("sys/module/nvidia_uvm/refcnt", "2")
    assert "nvidia-uvm has 2 users that cannot be seen from here" in machine.run("unload", status=13)


def test_a_kernel_that_cannot_unload_is_named(machine: Machine) -> None:
    machine.run("load")
    (machine.sys / "module/nvidia/refcnt").unlink()
    assert "CONFIG_MODULE_UNLOAD" in machine.run("unload", status=13)


def test_unload_with_nothing_loaded_is_done_already(machine: Machine) -> None:
    assert "no NVIDIA module is loaded" in machine.run("unload")


# Status


def test_status_says_in_one_line_that_nothing_is_loaded(machine: Machine) -> None:
    machine.run("status", status=3)
    said = f"NVIDIA driver: not loaded on {KERNEL}, 1 GPU(s); image: {DRIVER} for {KERNEL}"
    assert machine.out == f"{said}, open modules (recommended for {DRIVER})\n"


def test_status_says_where_the_image_does_not_serve_the_gpu(machine: Machine) -> None:
    machine.write("image/opt/nvidia-driver/gpus", f"10de:{H200} legacy 470")
    machine.run("status", status=3)
    assert f"GPU 10de:{H200} needs branch 470" in machine.out
    machine.run("status", "--json", status=3)
    assert json.loads(machine.out)["choice"]["kind"] is None


def test_status_names_version_kind_and_users(machine: Machine) -> None:
    machine.run("load")
    machine.write(
        "proc/driver/nvidia/version",
        f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {DRIVER}  Release Build",
    )
    machine.uses(4711, "python3")
    machine.run("status")
    assert machine.out.startswith(f"NVIDIA driver: {DRIVER} open loaded on {KERNEL}, 1 GPU(s), used by 4711 (python3)")


def test_status_as_json(machine: Machine) -> None:
    machine.run("load")
    machine.uses(4711, 'odd "name"\\')
    machine.run("status", "--json")
    document = json.loads(machine.out)
    assert document["image"] == {
        "kernel": KERNEL,
        "driver": DRIVER,
        "kinds": ["open", "proprietary"],
        "recommended": "open",
    }
    assert document["choice"] == {"kind": "open", "why": f"recommended for {DRIVER}"}
    assert document["loaded"] == {
        "driver": DRIVER,
        "kind": None,
        "modules": ["nvidia", "nvidia-uvm", "nvidia-modeset", "nvidia-drm"],
    }
    assert document["gpus"] == [
        {"address": "0000:00:06.0", "id": f"10de:{H200}", "bound_to": "", "minor": 0, "model": "NVIDIA H200"}
    ]
    assert document["holders"] == [{"pid": 4711, "command": 'odd "name"\\'}]
    assert document["firmware_path"] == f"/var/lib/nvidia-driver/{DRIVER}/firmware"


def test_status_tells_a_loaded_driver_that_is_not_the_images(machine: Machine) -> None:
    machine.load_by_hand("nvidia", driver="570.86.10")
    machine.run("status", status=12)
    assert "570.86.10" in machine.out


def test_status_works_without_an_image(machine: Machine) -> None:
    (machine.image / "opt/nvidia-driver/image.env").unlink()
    machine.load_by_hand("nvidia")
    machine.run("status", "--json")
    assert json.loads(machine.out)["image"] is None


# The program itself


def test_help_lists_every_exit_status_that_the_program_uses(machine: Machine) -> None:
    machine.run("help")
    table = {int(line.split()[0]) for line in machine.out.splitlines() if line[:4].strip().isdigit() and line.startswith("  ")}
    text = "\n".join(part.read_text() for part in [PROGRAM, *sorted((IMAGE / "lib").glob("*.sh"))])
    used = {int(word) for line in text.splitlines() for word in _statuses(line)}
    assert used - {127, 143} <= table, "143 is SIGTERM's own, 127 a missing program's"


def _statuses(line: str) -> list[str]:
    words = line.replace(";", " ").replace("=", " ").split()
    return [after for word, after in pairwise(words) if word in {"die", "REFUSED", "exit", "return"} and after.isdigit()]


@pytest.mark.parametrize("words", [(), ("reload",), ("load", "--force"), ("status", "-x"), ("cdi", "--output")])
def test_wrong_use_has_its_own_status(machine: Machine, words: tuple[str, ...]) -> None:
    machine.run(*words, status=2)


def test_no_message_is_longer_than_a_line_and_each_says_who_speaks(machine: Machine) -> None:
    machine.refuse("nvidia-uvm", "Unknown symbol in module\nsecond line")
    assert all(line.startswith("nvidia-driver: ") for line in machine.run("load", status=16).splitlines())
