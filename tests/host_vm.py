"""A whole Debian host in QEMU for tests: systemd, podman and docker, two real kernels, our units; no hardware support needed.

One root is made a run (mmdebstrap, about 80 s), one disk of it, and an overlay for each case. A case is a shell script that the
machine runs once it is up; what it prints on the serial line between two marks is the answer, then the machine is switched off.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from pipeline import hostfiles
from pipeline.assemble import MANIFEST_TYPE, Store, tree
from pipeline.hostfiles import HostSettings
from pipeline.registry import Registry
from tests.host_machine import KERNEL, NEXT, A

ROOT = Path(__file__).parents[1]
GATEWAY = "10.0.2.2"
"""This machine as QEMU's guests see it; its loopback ports too."""
PROGRAMS = ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mke2fs")
PACKAGES = (
    "systemd-sysv", "udev", "dbus", "iproute2", "kmod", "podman", "crun", "fuse-overlayfs", "netavark", "aardvark-dns",
    "docker.io", "iptables", "openssl", "curl", "ca-certificates", "busybox-static", "initramfs-tools", "zstd",
    f"linux-image-{KERNEL}", f"linux-image-{NEXT}",
)  # fmt: skip
LONGEST = 600
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
CASE = """[Unit]
After=multi-user.target nvidia-driver.service
[Service]
Type=idle
ExecStart=/bin/sh -c 'echo CASE BEGINS; sh /case/run.sh 2>&1; echo CASE ENDS'
ExecStopPost=/bin/sh -c 'sync; poweroff -f'
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
"""
WAITS = """
# A unit that waits between two tries is not done yet.
end=$(($(cut -d. -f1 /proc/uptime) + 240))
until systemctl is-active -q nvidia-driver.service || [ "$(systemctl show -P SubState nvidia-driver.service)" = auto-restart ] ||
    systemctl is-failed -q nvidia-driver.service || [ "$(cut -d. -f1 /proc/uptime)" -gt $end ]; do sleep 1; done
"""


def missing() -> list[str]:
    """Programs that are not installed here."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@dataclass(frozen=True)
class Disk:
    """A disk image with kernels and initramfs beside it, in ``folder``."""

    folder: Path


def make_root(folder: Path) -> Path:
    """The root as a tar, made once for these packages."""
    key = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:16]
    place = folder / f"root-{key}.tar"
    if place.exists():
        return place
    folder.mkdir(parents=True, exist_ok=True)
    small = (
        'cd "$1/etc"; mkdir -p dpkg/dpkg.cfg.d; printf "path-exclude=/usr/share/%s/*\\n" doc man locale > dpkg/dpkg.cfg.d/small'
    )
    words = [
        "mmdebstrap", "--variant=minbase", "--format=tar", "--components=main", '--aptopt=APT::Install-Recommends "false"',
        f"--include={','.join(PACKAGES)}", f"--setup-hook={small}",
        '--customize-hook=rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*', "bookworm", str(place) + ".new",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    Path(str(place) + ".new").rename(place)
    return place


def make_disk(root_tar: Path, folder: Path) -> Disk:
    """A disk with our files as ``doit host`` makes them for Debian, and the units that run a case."""
    root = folder / "root"
    root.mkdir(parents=True)
    subprocess.run(["tar", "-C", root, "-xf", root_tar], check=True, timeout=600)
    made = hostfiles.bundle(ROOT / "host", "debian", "podman", HostSettings(registry="unset.example", driver=A))
    units = root / "etc/systemd/system"

    def put(path: str, text: str, mode: int = 0o644) -> None:
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)

    for file in made.on_disk:
        put(file.path, file.text, file.mode)
    put("etc/systemd/system/case-files.service", CASE_FILES)
    put("etc/systemd/system/case.service", CASE)
    put("etc/systemd/network/wired.network", "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n")
    put("etc/fstab", "/dev/vda / ext4 rw 0 1\n")
    put("etc/hostname", "host\n")
    wants = {"nvidia-driver.service": "multi-user", "case.service": "multi-user", "case-files.service": "sysinit"}
    for name, target in wants.items():
        place = units / f"{target}.target.wants"
        place.mkdir(exist_ok=True)
        (place / name).symlink_to(f"/etc/systemd/system/{name}")
    (units / "multi-user.target.wants/systemd-networkd.service").symlink_to("/lib/systemd/system/systemd-networkd.service")
    # What podman and docker start at boot by themselves is not what is measured; docker.socket starts its daemon when asked.
    for unwanted in (
        "docker.service",
        "containerd.service",
        "podman.service",
        "podman-auto-update.timer",
        "podman-restart.service",
    ):
        for place in units.glob(f"*.wants/{unwanted}"):
            place.unlink()
    for kernel in (KERNEL, NEXT):
        for name in (f"vmlinuz-{kernel}", f"initrd.img-{kernel}"):
            shutil.copy(root / "boot" / name, folder / name)
    with (folder / "base.img").open("wb") as disk:
        disk.truncate(4 << 30)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, folder / "base.img"], check=True, capture_output=True, timeout=600)
    shutil.rmtree(root)
    return Disk(folder)


class Vm:
    """One machine: an overlay of the disk that keeps what a boot wrote for the next one."""

    def __init__(self, disk: Disk, folder: Path, **settings: str) -> None:
        folder.mkdir(parents=True)
        self.disk, self.folder, self.settings = disk, folder, settings
        words = [
            "qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "-F",
            "raw",
            "-b",
            str(disk.folder / "base.img"),
            str(folder / "disk.qcow2"),
        ]
        subprocess.run(words, check=True, capture_output=True)

    def boot(self, script: str, *, kernel: str = KERNEL, network: bool = True) -> str:
        """Switches on, runs ``script`` when the driver's unit is done, switches off; what the script printed."""
        files = {
            "case/run.sh": (0o755, (WAITS + script).encode()),
            "etc/nvidia-driver/driver.env": (0o644, "".join(f'{k}="{v}"\n' for k, v in self.settings.items()).encode()),
            "etc/docker/daemon.json": (0o644, json.dumps({"insecure-registries": [f"{GATEWAY}:{self.port}"]}).encode()),
        }
        case, console = self.folder / "case.tar", self.folder / "console.log"
        with tarfile.open(case, "w") as tar:
            for info, stream in tree(files):
                tar.addfile(info, stream)
        network_words = ["-nic", "user,model=virtio-net-pci" if network else "none"]
        command = [
            "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "2048", "-nographic",
            "-no-reboot",
            "-kernel", f"{self.disk.folder}/vmlinuz-{kernel}", "-initrd", f"{self.disk.folder}/initrd.img-{kernel}",
            "-append", "root=/dev/vda rw console=ttyS0 panic=-1 quiet loglevel=3 systemd.show_status=0",
            "-drive", f"if=virtio,file={self.folder / 'disk.qcow2'},format=qcow2",
            "-drive", f"if=virtio,file={case},format=raw,readonly=on", *network_words,
        ]  # fmt: skip
        with console.open("wb") as output:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=LONGEST, check=True)
        self.console = console.read_text(errors="replace").replace("\r", "")
        match = re.search(r"CASE BEGINS\n(.*)CASE ENDS", self.console, re.DOTALL)
        assert match, self.console[-3000:]
        return match[1]

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
