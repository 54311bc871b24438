"""A whole Debian host in QEMU for tests: systemd, podman and docker, two real kernels, our units; no hardware support needed.

A root (mmdebstrap, about 80 s), a disk of it, and a copy of that on which our installer was run are kept in the user's cache;
each case has an overlay of the latter. A case is a shell script that the machine runs; what it prints on the serial line
between two marks is the answer, then the machine is switched off. ``kernel="grub"`` lets its own GRUB choose the kernel.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.build.assemble import MANIFEST_TYPE, Store, tree
from pipeline.hosts import host_bundle
from pipeline.hosts.host_bundle import HostSettings
from pipeline.registry.client import Registry
from tests import registry_process
from tests.host_machine import KERNEL, NEXT, A
from tests.support.cache import Cache, product
from tests.support.debian_roots import Archives, read_index
from tests.support.digests import Part

ROOT = Path(__file__).parents[1]
GATEWAY = "10.0.2.2"
"""This machine as QEMU's guests see it; its loopback ports too."""
PROGRAMS = ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mke2fs")
PACKAGES = (
    "systemd-sysv", "udev", "dbus", "iproute2", "kmod", "podman", "crun", "fuse-overlayfs", "netavark", "aardvark-dns",
    "docker.io", "iptables", "openssl", "curl", "ca-certificates", "busybox-static", "initramfs-tools", "zstd", "jq",
    "grub2-common", "grub-pc-bin",
    f"linux-image-{KERNEL}", f"linux-image-{NEXT}",
)  # fmt: skip
BESIDE = (*(f"{part}-{kernel}" for kernel in (KERNEL, NEXT) for part in ("vmlinuz", "initrd.img")), "grub.img")
"""Files beside a disk that a machine is started from."""
COMMAND_LINE = "console=ttyS0 panic=-1 quiet loglevel=3 systemd.show_status=0"
LONGEST = 2400
"""Seconds after which a machine is taken for stuck; up and done it is in half a minute where nothing else runs."""

CASE_FILES = """[Unit]
DefaultDependencies=no
After=local-fs.target systemd-remount-fs.service
Before=sysinit.target nvidia-driver.service
[Service]
Type=oneshot
ExecStart=/bin/tar -xf /dev/vdb -C /
[Install]
WantedBy=sysinit.target
"""
# Not after nvidia-driver.service: that a boot goes on while the driver's unit waits is one of the things to be seen.
CASE = """[Unit]
After=dbus.socket
[Service]
ExecStart=/bin/sh -c 'echo CASE BEGINS; sh /case/run.sh 2>&1; echo; echo CASE ENDS'
ExecStopPost=/bin/sh -c 'sync; poweroff -f'
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
"""
PRELUDE = """
# Prefetches come when a case asks for one, not by the clock of a slow machine.
systemctl stop nvidia-driver-prefetch.timer nvidia-driver-prefetch.path 2> /dev/null
uptime() { cut -d. -f1 /proc/uptime; }
state() { systemctl show -P ActiveState -P SubState nvidia-driver.service | tr '\n' ' '; }
# rest: waits until the driver's unit is done, or waits between two tries.
rest() {
    end=$(($(uptime) + 1500))
    until systemctl is-active -q nvidia-driver.service || systemctl is-failed -q nvidia-driver.service ||
        [ "$(systemctl show -P SubState nvidia-driver.service)" = auto-restart ] || [ "$(uptime)" -gt $end ]; do sleep 3; done
}
# said: state of the unit, status of its last program, and what this run of it said.
said() {
    echo "unit: $(state)status $(systemctl show -P ExecMainStatus nvidia-driver.service)"
    journalctl --no-pager -o cat _SYSTEMD_INVOCATION_ID="$(systemctl show -P InvocationID nvidia-driver.service)"
}
again() { systemctl restart nvidia-driver.service; rest; said; }
step() { echo "=== $*"; }
setting() { sed -i "/^$1=/d" /etc/nvidia-driver/driver.env; echo "$1=\"$2\"" >> /etc/nvidia-driver/driver.env; }
tell() { curl -fsS --max-time 120 "http://10.0.2.2:$CONTROL/$1"; }
"""
WAITS = "rest\n"
LISTED = "(cd / && find etc usr/local opt -xdev ! -type d ! -name machine-id | LC_ALL=C sort)"
"""Every file that an installation could leave."""


def missing() -> list[str]:
    """Programs that are not installed here."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


MARKS = [
    pytest.mark.area("host"),
    pytest.mark.e2e,
    pytest.mark.skipif(not registry_process.installed(), reason=registry_process.MISSING),
    pytest.mark.skipif(bool(missing()), reason=f"not installed: {' '.join(missing())} (./doit.sh test installs them)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="making a disk with owners needs root"),
]
"""What each module of tests in a virtual machine is marked with."""


@dataclass(frozen=True)
class Disk:
    """A disk image with kernels, initramfs and GRUB beside it, in ``folder``."""

    folder: Path
    image: str = "base.img"


def make_root(place: Path) -> None:
    """Write the root as a tar to ``place``."""
    small = (
        'cd "$1/etc"; mkdir -p dpkg/dpkg.cfg.d; printf "path-exclude=/usr/share/%s/*\\n" doc man locale > dpkg/dpkg.cfg.d/small'
    )
    words = [
        "mmdebstrap", "--variant=minbase", "--format=tar", "--components=main", '--aptopt=APT::Install-Recommends "false"',
        f"--include={','.join(PACKAGES)}", f"--setup-hook={small}",
        '--customize-hook=rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*', "bookworm", str(place),
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]


def bare_disk(cache: Cache) -> Path:
    """A folder with a disk that has nothing of ours but the units that run a case, its kernels and GRUB; out of the cache."""

    def make(folder: Path) -> None:
        make_root(folder / "root.tar")
        make_bare_disk(folder / "root.tar", folder)
        (folder / "root.tar").unlink()

    archives = Archives.of_this_machine()
    decided: dict[str, Part] = {
        "code": Path(__file__),
        "archive": read_index(archives.debian, "bookworm"),
    }
    return cache.entry("host-disk", decided, make)


def installed_disk(cache: Cache, bare: Disk) -> Disk:
    """The same after ``install.sh`` was run on it; for tests of what comes after an installation."""

    def make(folder: Path) -> None:
        disk, _ = install(bare, folder / "vm")
        for name in BESIDE:
            (disk.folder / name).rename(folder / name)
        words = ["qemu-img", "convert", "-q", "-O", "qcow2", str(disk.folder / disk.image), str(folder / "installed.qcow2")]
        subprocess.run(words, check=True, capture_output=True, timeout=600)
        shutil.rmtree(folder / "vm")

    parts: dict[str, Part] = {"bare": bare.folder.parent.name, "host": ROOT / "host", "product": product()}
    return Disk(cache.entry("host-installed", parts, make), "installed.qcow2")


def make_bare_disk(root_tar: Path, folder: Path) -> None:
    """Make ``base.img`` in ``folder``, with its kernels and GRUB beside it."""
    root = folder / "root"
    root.mkdir()
    subprocess.run(["tar", "-C", root, "-xf", root_tar], check=True, timeout=600)
    units = root / "etc/systemd/system"

    def put(path: str, text: str, mode: int = 0o644) -> None:
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)

    put("etc/systemd/system/case-files.service", CASE_FILES)
    put("etc/systemd/system/case.service", CASE)
    put("etc/systemd/network/wired.network", "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n")
    put("etc/fstab", "/dev/vda / ext4 rw 0 1\n")
    put("etc/hostname", "host\n")
    # As Debian's grub-pc leaves it, but for the line that the kernel is started with.
    put("etc/default/grub", f'GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_DISTRIBUTOR=Debian\nGRUB_CMDLINE_LINUX="{COMMAND_LINE}"\n')
    wants = {"case.service": "multi-user", "case-files.service": "sysinit"}
    for name, target in wants.items():
        place = units / f"{target}.target.wants"
        place.mkdir(exist_ok=True)
        (place / name).symlink_to(f"/etc/systemd/system/{name}")
    (units / "multi-user.target.wants/systemd-networkd.service").symlink_to("/lib/systemd/system/systemd-networkd.service")
    (units / "serial-getty@ttyS0.service").symlink_to("/dev/null")
    # What podman and docker start at boot by themselves is not what is measured; docker.socket starts its daemon when asked.
    for unwanted in (
        "docker.service",
        "containerd.service",
        "podman.service",
        "podman-auto-update.service",
        "podman-auto-update.timer",
        "podman-restart.service",
    ):
        for place in units.glob(f"*.wants/{unwanted}"):
            place.unlink()
    for kernel in (KERNEL, NEXT):
        for name in (f"vmlinuz-{kernel}", f"initrd.img-{kernel}"):
            shutil.copy(root / "boot" / name, folder / name)
    _grub(root, folder)
    with (folder / "base.img").open("wb") as disk:
        disk.truncate(5 << 30)
    words = ["mke2fs", "-q", "-t", "ext4", "-L", "host-root", "-d", str(root), str(folder / "base.img")]
    subprocess.run(words, check=True, capture_output=True, timeout=600)
    shutil.rmtree(root)


def _grub(root: Path, folder: Path) -> None:
    """The root's own GRUB: its modules in /boot, and ``folder``/grub.img, a disk that starts it as a BIOS does."""
    shutil.copytree(root / "usr/lib/grub/i386-pc", root / "boot/grub/i386-pc")
    (root / "boot/early.cfg").write_text("search --no-floppy --label host-root --set=root\nset prefix=($root)/boot/grub\n")
    words = [
        "chroot", str(root), "grub-mkimage", "-O", "i386-pc", "-c", "/boot/early.cfg", "-p", "/boot/grub", "-o", "/boot/core.img",
        "biosdisk", "ext2", "normal", "configfile", "search", "search_label", "search_fs_uuid", "loadenv", "linux", "test",
    ]  # fmt: skip
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    parts = (root / "usr/lib/grub/i386-pc/boot.img").read_bytes(), (root / "boot/core.img").read_bytes()
    (folder / "grub.img").write_bytes(b"".join(parts).ljust(1 << 20, b"\0"))
    (root / "boot/early.cfg").unlink()
    (root / "boot/core.img").unlink()


def install(bare: Disk, folder: Path) -> tuple[Disk, str]:
    """Run ``install.sh --no-start`` twice on an overlay of ``bare`` in ``folder``: its disk, and what was said.

    Between the runs stand lists of the machine's files.
    """
    made = host_bundle.bundle(ROOT / "host", "debian", "podman", HostSettings(registry="unset.example", driver=A))
    script = host_bundle.installer(made, (ROOT / "host/templates/install.sh").read_text()).encode()
    vm = Vm(bare, folder)
    once = "sh /case/install.sh --no-start; echo ended $?"
    words = f"step before; {LISTED}; step first; {once}; step second; {once}"
    said = vm.boot(words, files={"case/install.sh": (0o755, script)}, waits=False)
    assert said.count("ended 0") == 2, said
    for name in BESIDE:
        shutil.copyfile(bare.folder / name, folder / name)
    return Disk(folder, "disk.qcow2"), said


class Vm:
    """One machine: an overlay of the disk that keeps what a boot wrote for the next one."""

    def __init__(self, disk: Disk, folder: Path, **settings: str) -> None:
        folder.mkdir(parents=True)
        self.disk, self.folder, self.settings = disk, folder, settings
        self.console = ""
        image = disk.folder / disk.image
        form = "qcow2" if image.suffix == ".qcow2" else "raw"
        words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", form, "-b", str(image), str(folder / "disk.qcow2")]
        subprocess.run(words, check=True, capture_output=True)

    def boot(self, script: str, **more: Any) -> str:
        """Switches on, runs ``script`` when the driver's unit is done, switches off; what the script printed."""
        process = self.switch_on(script, **more)
        try:
            status = process.wait(LONGEST)
        finally:
            process.kill()
            process.wait()
        self._read()
        match = re.search(r"CASE BEGINS\n(.*)CASE ENDS", self.console, re.DOTALL)
        assert match, self.console[-3000:]
        assert status == 0, status
        return match[1]

    def cut(self, script: str, *, until: Callable[[str], bool], **more: Any) -> str:
        """Switches on, and takes the power away (SIGKILL) as soon as ``until`` is true of the console; the console's text."""
        process = self.switch_on(script, **more)
        end = time.monotonic() + LONGEST
        try:
            while not until(self._read()):
                assert process.poll() is None, self.console[-3000:]
                assert time.monotonic() < end, self.console[-3000:]
                time.sleep(0.1)
        finally:
            process.kill()
            process.wait()
        return self._read()

    def switch_on(
        self,
        script: str,
        *,
        kernel: str = KERNEL,
        network: bool = True,
        files: Mapping[str, tuple[int, bytes]] | None = None,
        waits: bool = True,
        control: str = "",
        disks: Sequence[Path] = (),
    ) -> subprocess.Popen[bytes]:
        """QEMU, started.

        ``kernel``: which one, or ``grub`` for the one that the machine's own GRUB starts. ``control``: the port of ``tell``.
        ``disks``: images of more disks, /dev/vdc and on.
        """
        text = f"CONTROL={control}\n{PRELUDE}{WAITS if waits else ''}{script}\n"
        given: dict[str, tuple[int, bytes]] = {"case/run.sh": (0o755, text.encode()), **(files or {})}
        if self.settings:
            lines = "".join(f'{k}="{v}"\n' for k, v in self.settings.items())
            given["etc/nvidia-driver/driver.env"] = (0o644, lines.encode())
            daemon = {"insecure-registries": [f"{GATEWAY}:{self.port}"]}
            given["etc/docker/daemon.json"] = (0o644, json.dumps(daemon).encode())
        case = self.folder / "case.tar"
        with tarfile.open(case, "w") as tar:
            for info, stream in tree(given):
                tar.addfile(info, stream)
        if kernel == "grub":
            start = ["-drive", f"if=none,id=grub,file={self.disk.folder / 'grub.img'},format=raw,snapshot=on"]
            start += ["-device", "ide-hd,drive=grub,bootindex=0"]
        else:
            start = ["-kernel", f"{self.disk.folder}/vmlinuz-{kernel}", "-initrd", f"{self.disk.folder}/initrd.img-{kernel}"]
            start += ["-append", f"root=/dev/vda rw {COMMAND_LINE}"]
        command = [
            "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "2048", "-nographic",
            "-no-reboot", *start,
            # What the machine has flushed is with this machine's kernel, and outlives QEMU's own end: that is what cases look at.
            "-drive", f"if=virtio,file={self.folder / 'disk.qcow2'},format=qcow2,cache=unsafe",
            "-drive", f"if=virtio,file={case},format=raw,readonly=on",
            *(word for more in disks for word in ("-drive", f"if=virtio,file={more},format=raw")),
            # Without its boot ROM, which takes seconds to find that nothing boots from the network.
            *(("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=") if network else ("-nic", "none")),
        ]  # fmt: skip
        with (self.folder / "console.log").open("wb") as output:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def _read(self) -> str:
        self.console = (self.folder / "console.log").read_text(errors="replace").replace("\r", "")
        return self.console

    @property
    def port(self) -> str:
        """The registry's port, out of the settings."""
        return self.settings["DRIVER_REGISTRY"].rpartition(":")[2].partition("/")[0]


def trim(source: Registry, tag: str, target: Registry, tags: list[str]) -> str:
    """Copies an image without its userspace layer, hundreds of megabytes of libraries, so that a pull in QEMU stays short.

    Base, kernel modules and program are the real image's blobs. Its digest.
    """
    manifest = source.manifest(tag)
    assert manifest is not None, tag
    document = json.loads(manifest.data)
    config = json.loads(source.blob(document["config"]["digest"]))
    for layers in (document["layers"], config["rootfs"]["diff_ids"], config["history"]):
        del layers[1]
    for layer in document["layers"]:
        data = source.blob(layer["digest"], max_bytes=200 << 20)
        target.push_blob(data, layer["digest"], layer["size"])
    data = json.dumps(config).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    target.push_blob(data, digest, len(data))
    document["config"] |= {"digest": digest, "size": len(data)}
    return target.push_manifest(json.dumps(document).encode(), MANIFEST_TYPE, tags)


def push_files(registry: Registry, store: Store, files: dict[str, bytes], tag: str) -> None:
    """A one-layer image of these files."""
    layer = store.add(tree({name: (0o644, data) for name, data in files.items()}), 0)
    registry.push_blob(store.blob(layer.digest), layer.digest, layer.size)
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]}}
    ).encode()
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    registry.push_blob(config, digest, len(config))
    manifest = {
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "layers": [layer.descriptor],
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(config)},
    }  # fmt: skip
    registry.push_manifest(json.dumps(manifest).encode(), MANIFEST_TYPE, [tag])


def read_tar(data: bytes) -> dict[str, bytes]:
    """Files of a tar by name."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: stream.read() for member in tar if (stream := tar.extractfile(member))}


def steps(said: str) -> dict[str, str]:
    """What a script printed, by the names that it gave to ``step``."""
    parts = re.split(r"^=== (.*)$", said, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
