"""Synthetic machines for ``nvidia-driver``, the program in every image: a /sys, /proc and /dev of plain files.

The programs that change a kernel are stand-ins: they write down what was asked of them and change the synthetic
/sys as a kernel would. The program itself runs under each shell that an image or a host may have.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

IMAGE: Final = Path(__file__).resolve().parents[1] / "image"
PROGRAM: Final = IMAGE / "nvidia-driver"
KERNEL: Final = "6.12.90+deb13-cloud-amd64"
DRIVER: Final = "580.173.02"
H200: Final = "2335"
UUID: Final = "GPU-01234567-89ab-cdef-0123-456789abcdef"
MARKER: Final = "~Module signature appended~\n"

READ_TEXT: Final = r"""
depends=''; version=''
while read -r key rest; do
  case $key in version:) version=$rest ;; depends:) depends=$rest ;; esac
done < "$file"
""".strip()
"""How the stand-in of insmod reads a module that is a text with the lines ``version:`` and ``depends:``."""
READ_MODULE: Final = 'version=$(modinfo -F version "$file"); depends=$(modinfo -F depends "$file")'
"""How it reads a real one."""
STAND_INS: Final = {
    "insmod": r"""
name=${1##*/}; name=${name%.ko}; file=$1; shift
echo "insmod $name${*:+ $*}" >> "$LOG"; echo "$file" >> "$LOG.files"
if [ -e "$REFUSE/$name" ]; then
  echo "insmod: ERROR: could not insert module $file: $(cat "$REFUSE/$name")" >&2; exit 1
fi
underscored() { own=$1; while :; do case $own in *-*) own=${own%%-*}_${own#*-} ;; *) break ;; esac; done; }
"""
    + READ_TEXT
    + r"""
underscored "$depends"; depends=$own; underscored "$name"
mkdir -p "$SYSFS/module/$own/holders"; echo 0 > "$SYSFS/module/$own/refcnt"; echo "$version" > "$SYSFS/module/$own/version"
IFS=,
for below in $depends; do
  [ -e "$SYSFS/module/$below/refcnt" ] || continue
  read -r users < "$SYSFS/module/$below/refcnt"; echo $((users + 1)) > "$SYSFS/module/$below/refcnt"
  mkdir -p "$SYSFS/module/$below/holders/$own"
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
echo "modprobe $*" >> "$LOG"; status=0
while :; do case $1 in -a) shift ;; -d | -S) shift 2 ;; *) break ;; esac; done
for name; do if [ -e "$HOST_MODULES/$name" ]; then mkdir -p "$SYSFS/module/$name"; else status=1; fi; done
exit $status
""",
    "modinfo": """shift 2; sed -n 's/^depends: //p' "$@" """,
    "dmesg": """cat "$LOG.dmesg" 2> /dev/null || : """,
    "mknod": r"""echo "mknod $*" >> "$LOG"; [ "$1" = -m ] || exit 1; : > "$3" """,
    "mount": """echo "mount $*" >> "$LOG" """,
    "umount": """echo "umount $*" >> "$LOG" """,
    "nvidia-smi": r"""echo "nvidia-smi $*" >> "$LOG"; exit 9""",
    "nvidia-persistenced": r"""echo "nvidia-persistenced $*" >> "$LOG" """,
}

SHELLS: Final = {"dash": ["dash"], "busybox": ["busybox", "sh"]}


class Machine:
    """One H200, an image for the machine's kernel, and stand-ins for the programs that change a kernel."""

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
        self.write(
            "proc/devices",
            "Character devices:\n195 nvidia\n238 nvidia-uvm\n241 nvidia-caps\n\nBlock devices:\n241 virtblk",
        )
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

    def pci(self, address: str, vendor: str, device: str, kind: str, board: str = "0x10de:0x18be") -> None:
        subsystem = board.split(":")
        values = {"vendor": vendor, "device": device, "class": kind}
        for name, text in (values | {"subsystem_vendor": subsystem[0], "subsystem_device": subsystem[1]}).items():
            self.write(f"sys/bus/pci/devices/{address}/{name}", text)

    def gpu(self, address: str, device: str, *, minor: int, uuid: str, board: str = "0x10de:0x18be") -> None:
        self.pci(address, "0x10de", f"0x{device}", "0x030200", board)
        text = f"Model: \t\t NVIDIA H200\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\nGPU Excluded:\t No"
        self.write(f"proc/driver/nvidia/gpus/{address}/information", text)

    def no_gpu(self) -> None:
        shutil.rmtree(self.sys / "bus/pci/devices/0000:00:06.0")
        shutil.rmtree(self.proc / "driver/nvidia/gpus")

    def image_of(self, kernel: str = KERNEL, driver: str = DRIVER) -> None:
        modules = "nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem"
        lines = [
            f"KERNEL={kernel}",
            f"DRIVER={driver}",
            "ARCH=amd64",
            'KINDS="open proprietary"',
            "RECOMMENDED=open",
            f'MODULES="{modules}"',
        ]
        self.write("image/opt/nvidia-driver/image.env", "\n".join(lines))
        needs = {
            "nvidia": "i2c-core",
            "nvidia-uvm": "nvidia",
            "nvidia-modeset": "nvidia",
            "nvidia-drm": "nvidia,nvidia-modeset",
            "nvidia-peermem": "nvidia",
        }
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


def machine_of(root: Path, shell: str) -> Machine:
    """A machine whose programs run under this shell; skips where it is not installed."""
    words = SHELLS[shell]
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    return Machine(root, words)


ALL: Final = ["insmod nvidia", "insmod nvidia-uvm", "insmod nvidia-modeset", "insmod nvidia-drm"]
GONE: Final = ["rmmod nvidia-drm", "rmmod nvidia-modeset", "rmmod nvidia-uvm", "rmmod nvidia"]
