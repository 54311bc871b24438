"""Step 4 of the proof: the real kernel boots in QEMU without a GPU and loads ``nvidia.ko`` of each kind out of the image.

``No such device`` and ``NVRM: No NVIDIA GPU found`` prove that vermagic, CRCs and symbols hold: the module's own code
ran. The first program of the virtual machine is the image's own shell and insmod, out of its runtime base.
"""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import zstandard

from .elf import read_module
from .errors import EngineError, PairFailed

MACHINES: Final = {
    "amd64": ("qemu-system-x86_64", ["-machine", "q35", "-cpu", "max"], "ttyS0"),
    "arm64": ("qemu-system-aarch64", ["-machine", "virt", "-cpu", "max"], "ttyAMA0"),
}
PACKAGES: Final = {"amd64": "qemu-system-x86", "arm64": "qemu-system-arm"}
_BEGIN: Final = "proof-begin"
_END: Final = "proof-end"
_DONE: Final = "proof-done"
_REASONS: Final = (
    "disagrees about version of symbol",
    "Unknown symbol",
    "version magic",
    "Invalid module format",
    "GPL-incompatible",
    "Kernel panic",
    "BUG:",
    "Oops",
    "ERROR: could not insert",
)


@dataclass(frozen=True)
class BootResult:
    """``seconds`` from QEMU's start to its end; ``lines``: for each kind what insmod answered."""

    seconds: float
    console: str
    lines: Mapping[str, str]


def boot(
    vmlinuz: Path,
    modules: Mapping[str, Path],
    *,
    base: Path,
    kernel_modules: Path | None,
    arch: str = "amd64",
    timeout: float = 180,
) -> BootResult:
    """Boot ``vmlinuz`` and insert each of ``modules`` (kind to nvidia.ko) in turn.

    ``base`` is the image's unpacked runtime base; ``kernel_modules`` the kernel's own ``lib/modules/<kernel>``, for
    what a module depends on. Raises PairFailed with the decisive line of the console, EngineError where QEMU is absent
    or dies by itself.
    """
    program, machine, console = MACHINES[arch]
    if shutil.which(program) is None:
        raise EngineError(f"{program} is not installed", hint=f"install {PACKAGES[arch]}; ./doit.sh does")
    with tempfile.TemporaryDirectory(prefix="driver-boot-") as directory:
        initrd = Path(directory) / "initrd"
        with initrd.open("wb") as out:
            write_initramfs(out, base, modules, kernel_modules)
        command = [program, *machine, "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1536", "-nographic", "-no-reboot"]
        command += ["-nodefaults", "-serial", "stdio", "-kernel", str(vmlinuz), "-initrd", str(initrd)]
        command += ["-append", f"console={console} panic=-1 quiet loglevel=4 rdinit=/proof"]
        start = time.monotonic()
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            tail = last_line((error.stdout or b"").decode("utf-8", "replace"))
            raise PairFailed(f"the kernel did not come up within {timeout:.0f} s in QEMU: {tail}") from error
        seconds = time.monotonic() - start
    text = done.stdout.decode("utf-8", "replace").replace("\r", "")
    if done.returncode != 0 and _DONE not in text:
        raise EngineError(f"{program} ended with status {done.returncode}", hint=last_line(done.stderr.decode("utf-8", "replace")))
    return BootResult(seconds, text, judge(text, list(modules)))


def judge(console: str, kinds: Sequence[str]) -> dict[str, str]:
    """What insmod said for each kind, out of the console's text.

    Raises PairFailed unless every module ran its own code and found no GPU.
    """
    lines: dict[str, str] = {}
    for kind in kinds:
        part = re.search(rf"^{_BEGIN} {kind}$(.*?)^{_END} {kind} ([0-9]+)$", console, re.DOTALL | re.MULTILINE)
        if part is None:
            raise PairFailed(f"boot proof: {kind}: {_decisive(console) or last_line(console) or 'the console stayed silent'}")
        said = part[1]
        if "No such device" not in said or "NVRM: No NVIDIA GPU found" not in said:
            raise PairFailed(f"boot proof: {kind} nvidia.ko: {_decisive(said) or last_line(said) or f'insmod ended {part[2]}'}")
        lines[kind] = next(line.strip() for line in said.splitlines() if "No such device" in line)
    return lines


def _decisive(text: str) -> str:
    for reason in _REASONS:
        for line in text.splitlines():
            if reason in line:
                return re.sub(r"^\[[ 0-9.]+\] ", "", line.strip())
    return ""


def last_line(text: str) -> str:
    """The last line of ``text`` that says anything."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def write_initramfs(out: IO[bytes], base: Path, modules: Mapping[str, Path], kernel_modules: Path | None) -> None:
    """An uncompressed cpio (newc; Documentation/driver-api/early-userspace/buffer-format.rst): decompressing costs more
    under emulation than reading. The same files give the same bytes."""
    files: dict[str, tuple[int, bytes]] = {"dev/console": (stat.S_IFCHR | 0o600, b"")}
    for path in sorted(base.rglob("*")):
        name = str(path.relative_to(base))
        mode = path.lstat().st_mode
        if path.is_symlink():
            files[name] = (mode, str(path.readlink()).encode())
        elif path.is_dir():
            files[name] = (mode, b"")
        elif path.is_file():
            files[name] = (mode, path.read_bytes())
    script = ["#!/bin/sh", "mount -t proc proc /proc", "mount -t sysfs sys /sys", "dmesg -n 7"]
    for kind, path in modules.items():
        for number, needed in enumerate(dependencies(path, kernel_modules)):
            files[f"proof-{kind}-{number:02d}.ko"] = (stat.S_IFREG | 0o644, needed)
            script.append(f"insmod /proof-{kind}-{number:02d}.ko 2>/dev/null")
        files[f"proof-{kind}-nvidia.ko"] = (stat.S_IFREG | 0o644, path.read_bytes())
        script += [f"echo; echo {_BEGIN} {kind}", f"insmod /proof-{kind}-nvidia.ko 2>&1; code=$?", "dmesg | tail -n 12"]
        script += [f"echo {_END} {kind} $code"]
    script += [f"echo {_DONE}", "poweroff -f", ""]
    files["proof"] = (stat.S_IFREG | 0o755, "\n".join(script).encode())
    for inode, name in enumerate(sorted(files), start=1):
        mode, data = files[name]
        out.write(_entry(name, mode, data, inode))
    out.write(_entry("TRAILER!!!", 0, b"", 0))


def _entry(name: str, mode: int, data: bytes, inode: int) -> bytes:
    device = (5, 1) if stat.S_ISCHR(mode) else (0, 0)
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def dependencies(module: Path, kernel_modules: Path | None) -> list[bytes]:
    """The kernel's own modules that ``module`` depends on, in the order in which they must be inserted."""
    if kernel_modules is None:
        return []
    known: dict[str, Path] = {}
    for path in kernel_modules.rglob("*.ko*"):
        known.setdefault(path.name.split(".ko", 1)[0].replace("-", "_"), path)
    ordered: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="driver-depends-") as directory:
        scratch = Path(directory) / "module.ko"

        def visit(depends: str) -> Iterator[str]:
            for name in filter(None, depends.replace("-", "_").split(",")):
                if name in ordered or name not in known:
                    continue  # built in, or absent: then insmod says which symbol is missing
                data = _plain(known[name])
                scratch.write_bytes(data)
                list(visit(read_module(scratch).first("depends")))
                ordered[name] = data
                yield name

        list(visit(read_module(module).first("depends")))
    return list(ordered.values())


def _plain(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name.endswith(".xz"):
        return lzma.decompress(data)
    if path.name.endswith(".zst"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data
