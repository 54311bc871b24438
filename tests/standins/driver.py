"""NVIDIA's ``.run`` for a driver, out of Debian's packages of the same version: real sources, libraries and firmware.

The ``.manifest`` has NVIDIA's form (nvidia-installer, manifest.c). Not NVIDIA's: the compression, the order of the files, the
documents, the installer itself.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.records import File
from tests.standins import packing

_HEADER = "NVIDIA Accelerated Graphics Driver for Linux-x86_64 (a stand-in of the tests)\n{version}\n{modules}\n" + "\n" * 2
OLD = "470.256.02"
"""A branch that has proprietary modules only; Debian's packages of it, which no lock of ours pins."""
_POOL = "pool/non-free/n/nvidia-graphics-drivers-tesla-470"
_OLD_PACKAGES = (
    ("nvidia-tesla-470-kernel-source", 25622208, "2cf54c6acf14860d9be3f682bedcc2702fcb7478966133f862d6aaadf92ece1c"),
    ("libnvidia-tesla-470-cuda1", 2636216, "0ef309cde7850f977b54e9914346a8a258fb716b474f76bb61539c239b492858"),
    ("libnvidia-tesla-470-ml1", 607984, "14b876d2da6fc2b3271c2170a4e69f9ce06b67d608016b7bc1c9119883dc95c2"),
    ("libnvidia-tesla-470-ptxjitcompiler1", 4980704, "55f887a7311dab63f5c3b46a086882713dc14efcaacb6d0270fff077ec7c96f9"),
    ("nvidia-tesla-470-smi", 355628, "e7a203bc787c7026bbf3ce0673f74636d9aeedd0e5e46242759bd27ebc5b5a22"),
)
_TYPES = (
    ("libnvidia-opencl", "OPENCL_LIB"),
    ("libnvidia-ml", "NVML_LIB"),
    ("libvdpau_nvidia", "VDPAU_LIB"),
    ("libnvidia-encode", "ENCODEAPI_LIB"),
    ("libnvcuvid", "NVCUVID_LIB"),
    ("libcuda", "CUDA_LIB"),
)


def run_file(
    version: str, modules: dict[str, Path], userspace: Sequence[Path], out: Path, work: Path, *, gpus: Path | None = None
) -> Path:
    """``NVIDIA-Linux-x86_64-<version>.run``; ``modules`` maps ``kernel``, ``kernel-open`` to Debian's packages of sources.

    ``gpus``: a list of supported GPUs, which Debian's packages leave out.
    """
    root = work / f"NVIDIA-Linux-x86_64-{version}"
    root.mkdir(parents=True)
    lines: list[str] = []

    def put(source: Path, name: str, mode: int, words: str) -> None:
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
        place.chmod(mode)
        lines.append(f"{name} {mode:04o} {words}")

    for folder, deb in modules.items():
        _sources(deb, root / folder, work / folder)
        sources = sorted(path for path in (root / folder).rglob("*") if path.is_file())
        lines += [f"{path.relative_to(root)} 0644 KERNEL_MODULE_SRC INHERIT_PATH_DEPTH:1 MODULE:resman" for path in sources]
    unpacked = work / "userspace"
    for deb in userspace:
        packing.run("dpkg-deb", "-x", deb, unpacked)
    for path in sorted(unpacked.rglob("*")):
        name = path.name
        if "wine" in path.parts or "xorg" in path.parts:
            continue
        if path.is_file() and not path.is_symlink() and name.endswith(f".so.{version}"):
            kind = next((kind for prefix, kind in _TYPES if name.startswith(prefix)), "UTILITY_LIB")
            put(path, name, 0o755, f"{kind} NATIVE {'vdpau' if 'vdpau' in name else '/'} MODULE:gpgpu")
        elif path.is_symlink() and name.startswith("lib") and str(path.readlink()).rpartition("/")[2].endswith(f".so.{version}"):
            lines.append(f"{name} 0000 UTILITY_LIB_SYMLINK NATIVE / {path.readlink().name} MODULE:gpgpu")
        elif path.parent.parts[-3:-1] == ("firmware", "nvidia") and path.suffix == ".bin" and path.is_file():
            put(path, f"firmware/{name}", 0o644, "FIRMWARE MODULE:gsp")
        elif _is_program(path) and name not in {line.split(" ")[0] for line in lines}:
            put(path, name, 0o755, "UTILITY_BINARY MODULE:utils")
    if texts := sorted(unpacked.glob("usr/share/doc/libcuda1/copyright")):
        put(texts[0], "LICENSE", 0o644, "DOCUMENTATION MODULE:installer")
    if gpus:
        put(gpus, "supported-gpus/supported-gpus.json", 0o644, "DOCUMENTATION INHERIT_PATH_DEPTH:1 MODULE:installer")
    (root / "nvidia-installer").write_text("#!/bin/sh\necho 'nothing here may run this' >&2\nexit 1\n")
    lines.append("nvidia-installer 0755 INSTALLER_BINARY MODULE:installer")
    header = _HEADER.format(version=version, modules="nvidia nvidia-uvm nvidia-modeset nvidia-drm nvidia-peermem")
    (root / ".manifest").write_text(header + "\n" + "kernel\nkernel/precompiled\n" + "\n".join(lines) + "\n")
    made = out / f"NVIDIA-Linux-x86_64-{version}.run"
    out.mkdir(parents=True, exist_ok=True)
    packing.run_file(root, made, packing="--zstd")
    shutil.rmtree(root)
    return made


def redist_archive(version: str, modules: dict[str, Path], userspace: Sequence[Path], out: Path, work: Path) -> Path:
    """NVIDIA's redist archive: both kinds of sources, firmware, and as much userspace as the proof asks for.

    Not NVIDIA's: the layout, beyond what public recipes use of it (pipeline/trees/userspace.py).
    """
    top = f"nvidia_driver-linux-x86_64-{version}-archive"
    root = work / top
    root.mkdir(parents=True)
    for folder, deb in modules.items():
        _sources(deb, root / folder, work / folder)
    unpacked = work / "userspace"
    for deb in userspace:
        packing.run("dpkg-deb", "-x", deb, unpacked)
    wanted = {f"{name}.so.{version}": "lib" for name in ("libcuda", "libnvidia-ml", "libnvidia-ptxjitcompiler")}
    wanted |= {"nvidia-smi": "sbin", "gsp_ga10x.bin": "firmware", "gsp_tu10x.bin": "firmware"}
    for path in sorted(unpacked.rglob("*")):
        if path.name in wanted and path.is_file() and not path.is_symlink():
            (root / wanted[path.name]).mkdir(exist_ok=True)
            shutil.copy(path, root / wanted[path.name])
    made = out / f"{top}.tar.xz"
    packing.run("tar", "-C", work, "--owner=0", "--group=0", "--sort=name", "-I", "xz -0 -T0", "-cf", made, top)
    shutil.rmtree(work)
    return made


def old_packages() -> tuple[File, ...]:
    """Debian's packages of OLD: the modules' sources first, then as much userspace as the proof asks for."""
    version = f"{OLD}-1~deb12u1"
    return tuple(
        File(
            name=name,
            version=version,
            sha256=sha256,
            size=size,
            trust="signed-index",
            archive="debian",
            path=f"{_POOL}/{name}_{version}_amd64.deb",
        )
        for name, size, sha256 in _OLD_PACKAGES
    )


def fabric_manager(version: str, out: Path) -> Path:
    """NVIDIA's redist archive of the Fabric Manager; the daemon in it is a stand-in too, since Debian has none."""
    top = f"fabricmanager-linux-x86_64-{version}-archive"
    files = {
        "LICENSE": "a stand-in of the tests\n",
        "bin/nv-fabricmanager": "#!/bin/sh\necho 'a stand-in of the tests'\n",
        "etc/fabricmanager.cfg": "DAEMONIZE=1\nTOPOLOGY_FILE_PATH=/usr/share/nvidia/nvswitch\n",
        "lib/libnvfm.so.1": "",
        "share/nvidia/nvswitch/dgxh100_hgxh100_topology": "",
        "systemd/nvidia-fabricmanager.service": "[Service]\n",
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{top}.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size, info.mode = len(text), 0o755 if name.startswith("bin/") else 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def _is_program(path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or not path.name.startswith("nvidia-"):
        return False
    return path.parent.name in ("bin", "sbin", "current", "tesla-470") and bool(path.stat().st_mode & 0o111)


def _sources(deb: Path, place: Path, work: Path) -> None:
    packing.run("dpkg-deb", "-x", deb, work)
    place.mkdir()
    (archive,) = (work / "usr/src").glob("*.tar.xz")
    packing.run("tar", "-C", place, "--strip-components=2", "-xf", archive)
    shutil.rmtree(work)
