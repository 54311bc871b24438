"""A GPU host for real containers on a machine without one: real device nodes, synthetic /sys and /proc, a mount namespace.

In the namespace /dev holds the nodes beside the machine's own, /run and /var/lib are empty but for what the driver has put
there, so that paths are those of a real host while the machine's own are left alone. What answers for the GPU's driver is
``nvidia-driver`` of a real image; nothing of NVIDIA's is loaded, so its tools end with "couldn't communicate".
"""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Final

from tests.synthetic_machine import READ_MODULE, READ_TEXT, STAND_INS

UUIDS: Final = ("GPU-01234567-89ab-cdef-0123-456789abcdef", "GPU-11234567-89ab-cdef-0123-456789abcdef")
ADDRESSES: Final = ("0000:00:06.0", "0000:00:07.0")
MAJORS: Final = {"nvidia": 195, "nvidia-uvm": 238, "nvidia-caps": 241}
NODES: Final = {
    "nvidia0": (195, 0),
    "nvidia1": (195, 1),
    "nvidiactl": (195, 255),
    "nvidia-uvm": (238, 0),
    "nvidia-uvm-tools": (238, 1),
}
LONGEST: Final = 900
"""Seconds after which a script is taken for hung: many times what one needs, since a machine may be busy with other things."""
_NAMESPACE: Final = r"""
set -eu
cd "$BOX"
mkdir -p new-dev
mount -t tmpfs tmpfs new-dev
mkdir new-dev/pts new-dev/shm
for node in null zero full random urandom tty; do cp -a "/dev/$node" "new-dev/$node"; done
for node in dev/*; do test ! -e "$node" || cp -a "$node" new-dev/; done
mount --rbind /dev/pts new-dev/pts
mount --rbind /dev/shm new-dev/shm
ln -s pts/ptmx new-dev/ptmx
ln -s /proc/self/fd new-dev/fd
mount --rbind new-dev /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mkdir -p /run/cdi /run/nvidia /var/lib/nvidia-docker /var/lib/nvidia-driver
mount --bind run/cdi /run/cdi
mount --bind run/nvidia /run/nvidia
mount --make-shared /run/nvidia
mount --bind lib/nvidia-docker /var/lib/nvidia-docker
mount --bind lib/nvidia-driver /var/lib/nvidia-driver
exec "$@"
"""


class GpuBox:
    """Two GPUs of one driver for one kernel; ``loaded`` says whether its modules are."""

    def __init__(self, folder: Path, kernel: str, driver: str) -> None:
        self.folder, self.kernel, self.driver = folder, kernel, driver
        for name in ("dev", "run/cdi", "run/nvidia", "lib/nvidia-docker", "lib/nvidia-driver", "sys/module", "bin"):
            (folder / name).mkdir(parents=True)
        self.write("proc/sys/kernel/osrelease", kernel)
        (folder / "proc/self").symlink_to("/proc/self")  # mounts are real
        lines = "\n".join(f"{major} {name}" for name, major in MAJORS.items())
        self.write("proc/devices", f"Character devices:\n{lines}\n\nBlock devices:\n254 virtblk")
        self.write("proc/driver/nvidia/params", "ModifyDeviceFiles: 1\nDeviceFileUID: 0\nDeviceFileGID: 0\nDeviceFileMode: 438")
        self.write("sys/module/firmware_class/parameters/path", "")
        for minor, (address, uuid) in enumerate(zip(ADDRESSES, UUIDS, strict=True)):
            for name, value in {"vendor": "0x10de", "device": "0x2330", "class": "0x030200"}.items():
                self.write(f"sys/bus/pci/devices/{address}/{name}", value)
            words = f"Model: \t\t NVIDIA H100\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\nGPU Excluded:\t No"
            self.write(f"proc/driver/nvidia/gpus/{address}/information", words)
        for name in ("insmod", "rmmod", "modprobe", "dmesg"):
            text = STAND_INS[name].strip().replace(READ_TEXT, READ_MODULE)
            self.write(f"bin/{name}", f"#!/bin/sh\n{text}").chmod(0o755)

    def write(self, path: str, text: str) -> Path:
        """A file of one text."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n" if text else "")
        return file

    def load(self) -> None:
        """As if the driver had been loaded and had made its nodes."""
        for module in ("nvidia", "nvidia_uvm"):
            self.write(f"sys/module/{module}/version", self.driver)
            self.write(f"sys/module/{module}/refcnt", "0")
        for name, (major, minor) in NODES.items():
            os.mknod(self.folder / "dev" / name, stat.S_IFCHR, os.makedev(major, minor))
            (self.folder / "dev" / name).chmod(0o666)

    def asks(self) -> tuple[str, ...]:
        """Words of podman or docker that show an image this machine instead of the one it runs on."""
        box = f"{self.folder}:/box"
        places = {"SYSFS": "/box/sys", "PROC": "/box/proc", "HOST_ROOT": "/host", "LOG": "/box/log", "REFUSE": "/box/refuse"}
        words = [f"--env={name}={value}" for name, value in (places | {"HOST_MODULES": "/box/host-modules"}).items()]
        volumes = (box, f"{self.folder}/lib:/host/var/lib", f"{self.folder}/run:/run")
        return (*words, *(f"--volume={volume}" for volume in volumes))

    def inside(self, script: str) -> str:
        """What a shell script says in the namespace; podman's words there are those of any host."""
        return self.started(script).communicate()[0]

    def run(self, script: str) -> str:
        """As ``inside``; a script that fails is an assertion with its last words."""
        with self.started(script) as process:
            try:
                out, err = process.communicate(timeout=LONGEST)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert process.returncode == 0, f"{script}: {out[-1000:]}{err[-2000:]}"
        return out

    def started(self, script: str) -> subprocess.Popen[str]:
        """The script, running."""
        words = ("unshare", "--mount", "--propagation", "private", "sh", "-c", _NAMESPACE, "sh", "sh", "-euc", script)
        return subprocess.Popen(
            words,
            env={**os.environ, "BOX": str(self.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
