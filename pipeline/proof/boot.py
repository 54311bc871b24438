"""Step 4 of the proof: the real kernel boots in QEMU without a GPU and loads ``nvidia.ko`` of each kind.

``No such device`` and ``NVRM: No NVIDIA GPU found`` prove that vermagic, CRCs and symbols hold: the module's own code
ran. It leaves nothing behind, so all kinds share one boot. The first program of the virtual machine is the image's own
shell and insmod, out of its runtime base.
"""

from __future__ import annotations

import re
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from ..core.errors import DiskError, EngineError, IntegrityError, PairFailed
from ..formats.kernels import arm64_image, kernel_image
from . import initramfs
from .initramfs import MARK

# -nodefaults: no VGA, no network card, whose option ROMs cost a second. pauth-impdef: QEMU's cheap pointer signatures,
# which TCG emulates many times faster (QEMU docs/system/arm/cpu-features).
MACHINES: Final[Mapping[str, tuple[str, list[str], str]]] = {
    "amd64": ("qemu-system-x86_64", ["-machine", "q35", "-cpu", "max"], "ttyS0"),
    "arm64": ("qemu-system-aarch64", ["-machine", "virt", "-cpu", "max,pauth-impdef=on"], "ttyAMA0"),
}
PACKAGES: Final = {"amd64": "qemu-system-x86", "arm64": "qemu-system-arm"}
MEMORY: Final = 1536
"""MiB of the virtual machine: base and two kinds as archive, as files, and as one module being loaded."""
TRIES: Final = 3
"""How often a kernel may hang before it comes to our program: emulated machines do, once in some hundred times, and that
says nothing about a module."""
ROOM: Final = 2 * MEMORY << 20
"""Bytes of this machine's memory for each virtual machine: its own, and QEMU's translations with the rest of a proof."""
_ABSENT: Final = "No such device"
_NO_GPU: Final = "NVRM: No NVIDIA GPU found"
_REASONS: Final = (
    "disagrees about version of symbol",
    "no symbol version for",
    "Unknown symbol",
    "version magic",
    "exports duplicate symbol",
    "GPL-incompatible",
    "GPL-only",
    "from proprietary module",
    "does not import it",
    "Invalid module format",
    "module signature",
    "Key was rejected",
    *(_CRASHES := ("BUG:", "Oops", "general protection fault")),
)
"""What the kernel says when it refuses or does not survive a module, the more exact before the more general."""


@dataclass(frozen=True)
class BootResult:
    """``seconds`` from QEMU's start to the last answer; ``lines``: for each kind what insmod answered."""

    seconds: float
    console: str
    lines: Mapping[str, str]


def at_once(processors: int, memory: int) -> int:
    """How many virtual machines a machine with so many processors and bytes of memory runs at once; at least one.

    Emulation keeps one processor busy each: more of them would be no faster, and each nearer to its ``timeout``.
    """
    return max(1, min(processors, memory // ROOM))


def boot(
    vmlinuz: Path,
    modules: Mapping[str, Path],
    *,
    base: Path,
    kernel_modules: Path | None,
    arch: str = "amd64",
    timeout: float = 180,
    scratch: Path | None = None,
) -> BootResult:
    """Boot ``vmlinuz`` and insert each of ``modules`` (kind to nvidia.ko) in turn, for at most ``timeout`` seconds a try.

    ``base`` is the image's unpacked runtime base; ``kernel_modules`` the kernel's own ``lib/modules/<kernel>``, for
    what a module depends on; ``scratch`` a folder for what the machine boots from, a hundred MB and more (the system's
    temporary folder, often memory, where there is none). Raises PairFailed with the decisive line of the console,
    EngineError where QEMU is absent or dies by itself, DiskError where there is no room.
    """
    program, machine, console = MACHINES[arch]
    if shutil.which(program) is None:
        raise EngineError(f"{program} is not installed", hint=f"install {PACKAGES[arch]}; ./doit.sh does")
    with tempfile.TemporaryDirectory(prefix="driver-boot-", dir=scratch) as directory:
        initrd = Path(directory) / "initrd"
        try:
            kernel = _kernel(vmlinuz, Path(directory), arch)
            with initrd.open("wb") as out:
                initramfs.write(out, initramfs.tree(base, modules, kernel_modules))
        except OSError as error:
            raise DiskError(f"{error.filename or initrd}: {error.strerror}", hint="free some disk space") from error
        command = [program, "-nodefaults", "-no-user-config", *machine, "-accel", "tcg,thread=single", "-smp", "1"]
        command += ["-m", str(MEMORY), "-display", "none", "-serial", "stdio", "-no-reboot"]
        command += ["-kernel", str(kernel), "-initrd", str(initrd)]
        command += ["-append", f"console={console} panic=-1 quiet loglevel=1"]
        for _ in range(TRIES):
            start = time.monotonic()
            text, said, status = _run(command, timeout)
            seconds = time.monotonic() - start
            if status is not None or f"{MARK} begin" in text or _done(text):
                break
    if status is not None and (status != 0 or not text.strip()):
        raise EngineError(f"{program} ended with status {status} by itself", hint=last_line(said + text))
    if status is None and not _done(text):
        raise PairFailed(_late(text, timeout))
    return BootResult(seconds, text, judge(text, list(modules)))


def _kernel(vmlinuz: Path, scratch: Path, arch: str) -> Path:
    """What QEMU starts: of arm64's images the plain one, which all its versions know, not a packed one or a program of EFI."""
    with vmlinuz.open("rb") as file:
        head = file.read(64)
    if arch != "arm64" or arm64_image.is_image(head):
        return vmlinuz
    try:
        data = kernel_image.unwrapped(vmlinuz)
    except (ValueError, IntegrityError) as error:
        raise PairFailed(f"boot proof: {vmlinuz.name} cannot be booted ({error}): pin the kernel's own image") from error
    kernel = scratch / "kernel"
    kernel.write_bytes(data)
    return kernel


def _run(command: Sequence[str], timeout: float) -> tuple[str, str, int | None]:
    """The console's text, what QEMU itself said, and its status; None where it had to be ended."""
    data = bytearray()
    deadline = time.monotonic() + timeout
    with tempfile.TemporaryFile() as errors, selectors.DefaultSelector() as ready:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        try:
            assert process.stdout is not None
            ready.register(process.stdout, selectors.EVENT_READ)
            ended = _follow(process.stdout, ready, data, deadline)
            status = process.wait() if ended else None
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace")
    return data.decode("utf-8", "replace").replace("\r", ""), said, status


def _follow(out: IO[bytes], ready: selectors.BaseSelector, data: bytearray, deadline: float) -> bool:
    """Read until QEMU ends (True), or the last module has answered or the time is over (False)."""
    while (left := deadline - time.monotonic()) > 0:
        if not ready.select(left):
            break
        chunk = out.read1(1 << 16)  # type: ignore[attr-defined]
        if not chunk:
            return True
        data += chunk
        if _done(data[-len(chunk) - 64 :].decode("utf-8", "replace").replace("\r", "")):
            break
    return False


def _done(text: str) -> bool:
    return re.search(rf"^{MARK} done$", text, re.MULTILINE) is not None


def _late(text: str, timeout: float) -> str:
    """What a machine was at when its time was over."""
    begun = re.findall(rf"^{MARK} begin (\S+)$", text, re.MULTILINE)
    if begun:
        return f"boot proof: loading the {begun[-1]} module did not end within {timeout:g} s"
    return f"boot proof: the kernel did not come up within {timeout:g} s, {TRIES} times: {last_line(text)}"


def judge(console: str, kinds: Iterable[str]) -> dict[str, str]:
    """What insmod said for each kind, out of the console's text.

    Raises PairFailed unless every module ran its own code and found no GPU.
    """
    if panic := re.search(r"Kernel panic - not syncing: .*", console):
        reached = re.findall(rf"^{MARK} begin (\S+)$", console, re.MULTILINE)
        where = f"{reached[-1]} nvidia.ko" if reached else "before any module"
        raise PairFailed(f"boot proof: {where}: {_decisive(console.splitlines()) or panic[0].strip()}")
    return {kind: _answer(console, kind) for kind in kinds}


def _answer(console: str, kind: str) -> str:
    """What insmod said to one kind's ``nvidia.ko``; the modules it depends on, ``<kind>:<number>``, must load first."""
    name = rf"({re.escape(kind)}(?::[0-9]+)?)"
    answer = re.compile(rf"^{MARK} begin {name}$(.*?)^{MARK} end \1 ([0-9]+)$", re.DOTALL | re.MULTILINE)
    for who, part, code in answer.findall(console):
        said = [line[len(MARK) + 6 :].strip() for line in part.splitlines() if line.startswith(f"{MARK} said ")]
        log = [line[len(MARK) + 5 :].strip() for line in part.splitlines() if line.startswith(f"{MARK} log ")]
        told = next(filter(None, said), f"insmod ended with status {code}")
        if who != kind:
            if code != "0" and "File exists" not in told:
                raise PairFailed(f"boot proof: a module that {kind} nvidia.ko depends on: {_decisive(log) or told}")
            continue
        found = any(_NO_GPU in line for line in log)
        crashed = any(sign in line for sign in _CRASHES for line in log)
        if any(_ABSENT in line for line in said) and found and not crashed:
            return told
        if code == "0":
            raise PairFailed(f"boot proof: {kind} nvidia.ko loaded without a GPU, which it never does")
        own = next((line for line in reversed(log) if "nvidia" in line.lower() and "taint" not in line), "")
        silent = f"{told}, and no '{_NO_GPU}' in the kernel's log" if _ABSENT in told and not found else ""
        why = _decisive(log) or silent or _decisive(said) or _plain(own) or told
        raise PairFailed(f"boot proof: {kind} nvidia.ko: {why}")
    raise PairFailed(f"boot proof: {kind} nvidia.ko was never tried: {last_line(console)}")


def _decisive(lines: Sequence[str]) -> str:
    for reason in _REASONS:
        for line in lines:
            if reason in line:
                return _plain(line)
    return ""


def _plain(line: str) -> str:
    """``line`` without our mark and the kernel's time."""
    return re.sub(rf"^(?:{MARK} \w+ )?(?:<[0-9]+>)?\[[ 0-9.]+\] ", "", line.strip())


def last_line(text: str) -> str:
    """The last line of ``text`` that says anything."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "the console stayed silent")
