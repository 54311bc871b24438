"""``nvidia-driver``, the program in every image, on synthetic machines: a /sys, /proc and /dev of plain files.

The programs that change a kernel are stand-ins: they write down what was asked of them and change the synthetic /sys as a
kernel would. The program itself runs under each shell that an image or a host may have.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

IMAGE: Final = Path(__file__).resolve().parents[2] / "host" / "image"
PROGRAM: Final = IMAGE / "nvidia-driver"
KERNEL: Final = "6.12.90+deb13-cloud-amd64"
DRIVER: Final = "580.173.02"
H200: Final = "2335"
UUID: Final = "GPU-01234567-89ab-cdef-0123-456789abcdef"
MARKER: Final = "~Module signature appended~\n"

STAND_INS: Final = {
    "insmod": r"""
name=$(basename "$1" .ko); file=$1; shift
echo "insmod $name${*:+ $*}" >> "$LOG"; echo "$file" >> "$LOG.files"
if [ -e "$REFUSE/$name" ]; then echo "insmod: ERROR: could not insert module $file: $(cat "$REFUSE/$name")" >&2; exit 1; fi
own=$(echo "$name" | tr - _); mkdir -p "$SYSFS/module/$own/holders"; echo 0 > "$SYSFS/module/$own/refcnt"
sed -n 's/^version: //p' "$file" > "$SYSFS/module/$own/version"
for below in $(sed -n 's/^depends: //p' "$file" | tr ',-' ' _'); do
  [ -e "$SYSFS/module/$below/refcnt" ] || continue
  echo $(($(cat "$SYSFS/module/$below/refcnt") + 1)) > "$SYSFS/module/$below/refcnt"; mkdir -p "$SYSFS/module/$below/holders/$own"
done
""",
    "rmmod": r"""
echo "rmmod $1" >> "$LOG"; own=$(echo "$1" | tr - _)
[ "$(cat "$SYSFS/module/$own/refcnt")" = 0 ] || { echo "rmmod: ERROR: Module $1 is in use" >&2; exit 1; }
rm -r "$SYSFS/module/$own"
for held in "$SYSFS"/module/*/holders/"$own"; do
  [ -d "$held" ] || continue
  rmdir "$held"; below=${held%/holders/*}; echo $(($(cat "$below/refcnt") - 1)) > "$below/refcnt"
done
""",
    "modprobe": r"""
echo "modprobe $*" >> "$LOG"; for last; do :; done
[ -e "$HOST_MODULES/$last" ] || exit 1
mkdir -p "$SYSFS/module/$last"
""",
    "modinfo": """sed -n 's/^depends: //p' "$3" """,
    "dmesg": """cat "$LOG.dmesg" 2> /dev/null || : """,
    "mknod": r"""echo "mknod $*" >> "$LOG"; [ "$1" = -m ] || exit 1; : > "$3" """,
    "mount": """echo "mount $*" >> "$LOG" """,
    "umount": """echo "umount $*" >> "$LOG" """,
    "nvidia-smi": r"""echo "nvidia-smi $*" >> "$LOG"; exit 9""",
    "nvidia-persistenced": r"""echo "nvidia-persistenced $*" >> "$LOG" """,
}

SHELLS: Final = {"dash": ["dash"], "busybox": ["busybox", "sh"]}


@pytest.fixture(params=sorted(SHELLS))
def shell(request: pytest.FixtureRequest) -> list[str]:
    words = SHELLS[str(request.param)]
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    return words


class Machine:
    """A synthetic machine with one H200, an image for its kernel, and stand-ins for the programs that change a kernel."""

    def __init__(self, root: Path, shell: list[str]) -> None:
        self.root, self.shell = root, shell
        self.sys, self.proc, self.dev, self.run_dir = root / "sys", root / "proc", root / "dev", root / "run"
        self.host, self.image, self.bin, self.log = root / "host", root / "image", root / "bin", root / "log"
        self.environment: dict[str, str] = {}
        for name, text in STAND_INS.items():
            self.program(name, text)
        for directory in (self.dev, self.run_dir, self.host, root / "refuse", root / "host-modules", root / "tmp"):
            directory.mkdir()
        self.write("proc/sys/kernel/osrelease", KERNEL)
        self.write("proc/devices", "Character devices:\n195 nvidia\n195 nvidiactl\n238 nvidia-uvm\n241 nvidia-caps\n\nBlock devices:\n241 virtblk")
        self.write("proc/driver/nvidia/params", "ModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 0\nDeviceFileMode: 438")
        self.write("sys/module/firmware_class/parameters/path", "")
        self.write("sys/kernel/security/lockdown", "[none] integrity confidentiality")
        self.pci("0000:00:00.0", "0x8086", "0x0d57", "0x060000")
        self.gpu("0000:00:06.0", H200, minor=0, uuid=UUID)
        self.image_of()

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n" if text else "")
        return file

    def program(self, name: str, text: str, directory: Path | None = None) -> None:
        file = (directory or self.bin) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text.strip()}\n")
        file.chmod(0o755)

    def pci(self, address: str, vendor: str, device: str, kind: str) -> None:
        for name, text in (("vendor", vendor), ("device", device), ("class", kind)):
            self.write(f"sys/bus/pci/devices/{address}/{name}", text)

    def gpu(self, address: str, device: str, *, minor: int, uuid: str) -> None:
        self.pci(address, "0x10de", f"0x{device}", "0x030200")
        text = f"Model: \t\t NVIDIA H200\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\nGPU Excluded:\t No"
        self.write(f"proc/driver/nvidia/gpus/{address}/information", text)

    def no_gpu(self) -> None:
        shutil.rmtree(self.sys / "bus/pci/devices/0000:00:06.0")
        shutil.rmtree(self.proc / "driver/nvidia/gpus")

    def image_of(self, kernel: str = KERNEL, driver: str = DRIVER) -> None:
        modules = "nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem"
        lines = [f"KERNEL={kernel}", f"DRIVER={driver}", "ARCH=amd64", 'KINDS="open proprietary"', "RECOMMENDED=open", f'MODULES="{modules}"']
        self.write("image/opt/nvidia-driver/image.env", "\n".join(lines))
        needs = {"nvidia": "i2c-core", "nvidia-uvm": "nvidia", "nvidia-modeset": "nvidia", "nvidia-drm": "nvidia,nvidia-modeset", "nvidia-peermem": "nvidia"}
        for module, depends in needs.items():
            text = f"version: {driver}\ndepends: {depends}"
            self.write(f"image/opt/lib/modules/{kernel}/{module}.ko", text)
            self.write(f"image/opt/proprietary/lib/modules/{kernel}/{module}.ko", text)
        self.provide("i2c-core")
        self.write(f"image/firmware/nvidia/{driver}/gsp_ga10x.bin", "firmware")

    def provide(self, *names: str) -> None:
        """Modules that the host's kernel has, in its own tree."""
        self.write(f"host/lib/modules/{KERNEL}/modules.builtin", "kernel/drivers/video/video.ko")
        for name in names:
            self.write(f"host-modules/{name}", "x")

    def refuse(self, module: str, text: str) -> None:
        self.write(f"refuse/{module}", text)

    def load_by_hand(self, *modules: str, driver: str = DRIVER) -> None:
        """As if somebody had loaded them before."""
        for module in modules:
            file = self.write(f"tmp/{module}.ko", f"version: {driver}\ndepends: {'' if module == 'nvidia' else 'nvidia'}")
            subprocess.run([self.bin / "insmod", file], env=self.env(), check=True)
        self.log.unlink()

    def uses(self, pid: int, command: str, device: str = "/dev/nvidia0") -> None:
        (self.proc / f"{pid}/fd").mkdir(parents=True)
        (self.proc / f"{pid}/fd/3").symlink_to("/dev/null")
        (self.proc / f"{pid}/fd/7").symlink_to(device)
        self.write(f"proc/{pid}/comm", command)

    def env(self) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "SYSFS": str(self.sys), "PROC": str(self.proc), "DEV": str(self.dev), "RUN": str(self.run_dir),
            "HOST_ROOT": str(self.host), "IMAGE_ROOT": str(self.image), "TMPDIR": str(self.root / "tmp"),
            "LOG": str(self.log), "REFUSE": str(self.root / "refuse"), "HOST_MODULES": str(self.root / "host-modules"),
        } | self.environment  # fmt: skip

    def run(self, *words: str, status: int = 0) -> str:
        """Runs the program, checks its exit status, and returns what it said."""
        done = subprocess.run(
            [*self.shell, str(PROGRAM), *words], env=self.env(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        self.out = done.stdout
        return done.stderr

    def asked(self, *programs: str) -> list[str]:
        """What was asked of these stand-ins, in order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.split()[0] in (programs or ("insmod", "rmmod"))]

    def loaded(self) -> set[str]:
        return {path.name for path in (self.sys / "module").glob("nvidia*")}


@pytest.fixture
def machine(tmp_path: Path, shell: list[str]) -> Machine:
    return Machine(tmp_path, shell)


ALL: Final = ["insmod nvidia", "insmod nvidia-uvm", "insmod nvidia-modeset", "insmod nvidia-drm"]
GONE: Final = ["rmmod nvidia-drm", "rmmod nvidia-modeset", "rmmod nvidia-uvm", "rmmod nvidia"]


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
    [("No such device", 17), ("Key was rejected by service", 15), ("Required key not available", 15), ("Invalid module format", 11)],
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
    machine.program("insmod", STAND_INS["insmod"] + '\n[ "$name" != nvidia-uvm ] || kill -TERM "$(cut -d " " -f 4 "/proc/$PPID/stat")"\n')
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
    text = '# a comment\noptions nvidia NVreg_Foo=1 \\\n  NVreg_RegistryDwords="a=1;b=2"\noptions nvidia_drm modeset=1\noptions other x=1\nblacklist nouveau'
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
    assert f"10de:{H200} (legacy 470)" in machine.run("load", status=17)
    assert machine.asked() == []


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
def test_unsigned_modules_are_not_tried_where_the_kernel_takes_only_signed_ones(machine: Machine, file: str, text: str, reason: str) -> None:
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
    assert machine.out == f"NVIDIA driver: not loaded on {KERNEL}, 1 GPU(s); image: {DRIVER} for {KERNEL}\n"


def test_status_names_version_kind_and_users(machine: Machine) -> None:
    machine.run("load")
    machine.write("proc/driver/nvidia/version", f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {DRIVER}  Release Build")
    machine.uses(4711, "python3")
    machine.run("status")
    assert machine.out.startswith(f"NVIDIA driver: {DRIVER} open loaded on {KERNEL}, 1 GPU(s), used by 4711 (python3)")


def test_status_as_json(machine: Machine) -> None:
    machine.run("load")
    machine.uses(4711, 'odd "name"\\')
    machine.run("status", "--json")
    document = json.loads(machine.out)
    assert document["image"] == {"kernel": KERNEL, "driver": DRIVER, "kinds": ["open", "proprietary"], "recommended": "open"}
    assert document["loaded"] == {"driver": DRIVER, "kind": None, "modules": ["nvidia", "nvidia-uvm", "nvidia-modeset", "nvidia-drm"]}
    assert document["gpus"] == [{"address": "0000:00:06.0", "id": f"10de:{H200}", "bound_to": "", "minor": 0, "model": "NVIDIA H200"}]
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


# The GPU Operator's contract


class Init:
    """A running ``nvidia-driver init``."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.process = subprocess.Popen([*machine.shell, str(PROGRAM), "init"], env=machine.env(), stderr=subprocess.PIPE, text=True)
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
    assert machine.asked("nvidia-persistenced", "nv-fabricmanager") == ["nv-fabricmanager", "nvidia-persistenced --persistence-mode"]


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


# The CDI specification

SHARED_ROOT: Final = "usr/local/nvidia"


def userspace(machine: Machine, below: str) -> None:
    """The nvidia-docker layout, synthetic."""
    for library, soname in {"libcuda": "1", "libnvidia-ml": "1", "libnvidia-eglcore": "", "vdpau/libvdpau_nvidia": "1"}.items():
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
    machine.write("proc/driver/nvidia/capabilities/gpu0/mig/gi1/access", "DeviceFileMinor: 12\nDeviceFileMode: 292\nDeviceFileModify: 1")
    machine.run("load")
    userspace(machine, f"host/{SHARED_ROOT}")


def spec(machine: Machine, *words: str) -> dict[str, object]:
    machine.run("cdi", "--output", "-", "--driver-root", f"/{SHARED_ROOT}", *words)
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
    machine.program("nvidia-smi", 'echo "GPU 0: NVIDIA H200 (UUID: GPU-aa)"; echo "  MIG 1g.18gb Device 0: (UUID: MIG-cc)"; echo "GPU 1: NVIDIA H200 (UUID: GPU-bb)"')
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
    real = f"/{SHARED_ROOT}/lib64/libcuda.so.{DRIVER}"
    for directory in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64"):
        for name in (f"libcuda.so.{DRIVER}", "libcuda.so.1", "libcuda.so"):
            assert mounts[f"{directory}/{name}"] == real
        assert f"{directory}/vdpau/libvdpau_nvidia.so.1" in mounts
        assert mounts[f"{directory}/gbm/nvidia-drm_gbm.so"] == f"/{SHARED_ROOT}/lib64/libnvidia-ml.so.{DRIVER}"
    assert not [path for path in mounts if "libother" in path]
    assert mounts["/usr/bin/nvidia-smi"] == f"/{SHARED_ROOT}/bin/nvidia-smi"
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
    machine.run("cdi", "--driver-root", f"/{SHARED_ROOT}")
    assert (machine.run_dir / "cdi/nvidia.yaml").read_text() != ""
    assert [p.name for p in (machine.run_dir / "cdi").iterdir()] == ["nvidia.yaml"]
    first = (machine.run_dir / "cdi/nvidia.yaml").read_text()
    spec(machine)
    assert machine.out == first


def test_cdi_warns_of_another_file_for_the_same_devices(machine: Machine) -> None:
    live(machine)
    other = machine.write("host/etc/cdi/nvidia.yaml", "cdiVersion: 0.5.0\nkind: nvidia.com/gpu")
    assert str(other) in machine.run("cdi", "--driver-root", f"/{SHARED_ROOT}")


def test_cdi_without_a_loaded_driver_says_what_to_do(machine: Machine) -> None:
    assert "'nvidia-driver load' first" in machine.run("cdi", status=3)


def test_cdi_refuses_libraries_of_another_version(machine: Machine) -> None:
    live(machine)
    (machine.host / SHARED_ROOT / f"lib64/libcuda.so.{DRIVER}").unlink()
    assert f"libcuda.so.{DRIVER} is missing" in machine.run("cdi", "--driver-root", f"/{SHARED_ROOT}", status=2)


# The nvidia-docker volume


def test_the_volume_is_filled_before_any_module_is_loaded_and_its_stamp_comes_last(machine: Machine) -> None:
    userspace(machine, "image/usr/local/nvidia")
    machine.write("image/usr/lib/x86_64-linux-gnu/libc.so.6", "libc")
    machine.run("volume")
    volume = machine.host / f"var/lib/nvidia-docker/volumes/nvidia_driver/{DRIVER}"
    assert (volume / ".complete").read_text() == f"{DRIVER}\n"
    assert os.readlink(volume / "lib64/libcuda.so") == "libcuda.so.1"
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


# The program itself


def test_help_lists_every_exit_status_that_the_program_uses(machine: Machine) -> None:
    machine.run("help")
    table = {int(line.split()[0]) for line in machine.out.splitlines() if line[:4].strip().isdigit() and line.startswith("  ")}
    text = "\n".join(part.read_text() for part in [PROGRAM, *sorted((IMAGE / "lib").glob("*.sh"))])
    used = {int(word) for line in text.splitlines() for word in _statuses(line)}
    assert used - {127, 143} <= table, "143 is SIGTERM's own, 127 a missing program's"


def _statuses(line: str) -> list[str]:
    words = line.replace(";", " ").replace("=", " ").split()
    return [after for word, after in zip(words, words[1:], strict=False) if word in {"die", "REFUSED", "exit", "return"} and after.isdigit()]


@pytest.mark.parametrize("words", [(), ("reload",), ("load", "--force"), ("status", "-x"), ("cdi", "--output")])
def test_wrong_use_has_its_own_status(machine: Machine, words: tuple[str, ...]) -> None:
    machine.run(*words, status=2)


def test_no_message_is_longer_than_a_line_and_each_says_who_speaks(machine: Machine) -> None:
    machine.refuse("nvidia-uvm", "Unknown symbol in module\nsecond line")
    assert all(line.startswith("nvidia-driver: ") for line in machine.run("load", status=16).splitlines())


def test_shellcheck_finds_nothing() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    parts = [PROGRAM, *sorted((IMAGE / "lib").glob("*.sh"))]
    done = subprocess.run(["shellcheck", "-x", *parts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
