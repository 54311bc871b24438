"""A real kernel under the names of several vendors: Debian's ``linux-source-6.1``, a small config, one tree, one compile.

A name more costs a relink: only ``utsrelease.h`` differs. What each name leaves behind is what its vendor publishes:
a tree to compile modules against, ``vmlinuz``, ``System.map`` and the config.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VERSION: Final = "6.1.176"
SOURCE_SHA256: Final = "9305d1a151b8e83dcb88aa11361e7b9513f0c252bdf7f5647e4542762d99c094"
SOURCE_SIZE: Final = 139131140
SOURCE_PATH: Final = "pool/main/l/linux/linux-source-6.1_6.1.176-1_all.deb"
EPOCH: Final = "1767225600"
TOOLS: Final = ("gcc-12", "binutils", "make", "flex", "bison", "bc", "libelf-dev", "libssl-dev", "xz-utils")
"""Debian packages whose versions decide what is built."""
# What nvidia.ko needs of a kernel, and what the proof's first program does: modules, PCI with MSI, ACPI, an initramfs
# with a shell script, a serial console. No network, no disks, no graphics: that is two thirds of the compile. The IOMMU is
# there for nvidia-uvm alone: it needs MMU_NOTIFIER, which has to be selected.
ENABLED: Final = """
64BIT SMP MODULES MODULE_UNLOAD PCI PCI_MSI ACPI PROC_FS SYSFS BLK_DEV_INITRD BINFMT_ELF BINFMT_SCRIPT TTY SERIAL_8250
SERIAL_8250_CONSOLE PRINTK FUTEX EPOLL HIGH_RES_TIMERS X86_PAT MTRR DEVTMPFS MULTIUSER SHMEM TMPFS KALLSYMS BUG
POSIX_TIMERS EVENTFD SIGNALFD TIMERFD AIO FILE_LOCKING EMBEDDED EXPERT ZONE_DMA ZONE_DMA32 DMA_SHARED_BUFFER PCI_QUIRKS
KERNEL_GZIP X86_X2APIC IOMMU_SUPPORT INTEL_IOMMU INTEL_IOMMU_SVM PROCESSOR_SELECT
"""
# From the second line on it is only for time: what an x86 has by default, and neither the driver nor the proof looks at.
# (PROCESSOR_SELECT lets one say which makers' processors: QEMU's does with what all of them have.)
DISABLED: Final = """
KERNEL_XZ SPECULATION_MITIGATIONS LOCALVERSION_AUTO RD_BZIP2 RD_LZMA RD_XZ RD_LZO RD_LZ4 RD_ZSTD RD_GZIP
INPUT SERIO HID VT CPU_SUP_INTEL CPU_SUP_AMD CPU_SUP_HYGON CPU_SUP_CENTAUR CPU_SUP_ZHAOXIN
SERIAL_8250_EXAR SERIAL_8250_LPSS SERIAL_8250_MID SERIAL_8250_PERICOM
ACPI_AC ACPI_BATTERY ACPI_FAN ACPI_THERMAL ACPI_PROCESSOR ACPI_CONTAINER ACPI_TABLE_UPGRADE CPU_FREQ CPU_IDLE THERMAL
"""


@dataclass(frozen=True)
class KernelBuild:
    """One name's results. ``devel`` is what one compiles modules against, as a vendor packs it."""

    release: str
    devel: Path
    vmlinuz: Path
    system_map: Path
    config: Path


def unpack_source(deb: Path, work: Path) -> Path:
    """The kernel's source tree out of Debian's package."""
    subprocess.run(["dpkg-deb", "-x", deb, work / "deb"], check=True)
    subprocess.run(["tar", "-C", work, "-xf", *(work / "deb/usr/src").glob("linux-source-*.tar.xz")], check=True)
    shutil.rmtree(work / "deb")
    return next(work.glob("linux-source-*"))


_SOURCES: Final = ("include", "scripts", "kernel", "arch/x86", "tools/objtool", "tools/lib", "tools/include", "tools/build")
"""What ``make olddefconfig modules_prepare`` compiles, runs or includes."""
_EVERYWHERE: Final = ("Makefile*", "Kconfig*", "Kbuild*", "*.include", "*.bc")


def tarball(tree: Path, dest: Path) -> Path:
    """``linux-6.1.176.tar.xz`` in kernel.org's layout, out of the untouched ``tree``.

    Not in it, for time and disk: C files of drivers, file systems and other machines, which preparing for modules does not
    read. Every Kconfig and Makefile is.
    """
    words = [word for name in _EVERYWHERE for word in ("-o", "-name", name)][1:]
    folders = [f"./{name}" for name in (*_SOURCES, "tools/scripts", "tools/arch/x86")]
    # A file that is named twice would be packed a second time, as a link to itself.
    pruned = [word for folder in folders for word in ("-path", folder, "-prune", "-o")]
    listed = subprocess.run(
        ["find", ".", *pruned, "-type", "f", "(", *words, ")", "-print0"], cwd=tree, check=True, capture_output=True
    ).stdout
    pack = ["tar", "-c", "--null", "--files-from=-", "--sort=name", "--owner=0", "--group=0", f"--mtime=@{EPOCH}"]
    pack += [f"--transform=s,^\\./,linux-{VERSION}/,", f"--use-compress-program=xz -1 -T{os.cpu_count() or 2}", "-f", str(dest)]
    subprocess.run(pack, cwd=tree, input=listed + "\0".join(folders).encode(), check=True)
    return dest


def _make(tree: Path, *words: str) -> None:
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "KBUILD_BUILD_TIMESTAMP": f"@{EPOCH}",
        "KBUILD_BUILD_USER": "standin",
        "KBUILD_BUILD_HOST": "standin",
    }
    environment.pop("MAKEFLAGS", None)
    command = ["make", "-s", f"-j{os.cpu_count() or 2}", *words]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {(done.stdout + done.stderr)[-2000:]}"


def configure(tree: Path) -> None:
    """``.config``: as little as proves a module."""
    _make(tree, "tinyconfig")
    words = [word for name in ENABLED.split() for word in ("-e", name)] + [
        word for name in DISABLED.split() for word in ("-d", name)
    ]
    subprocess.run(["scripts/config", *words], cwd=tree, check=True)
    _make(tree, "olddefconfig")


def build(tree: Path, localversions: Sequence[str], out: Path) -> list[KernelBuild]:
    """A kernel ``6.1.176<localversion>`` for each of ``localversions``, its parts below ``out``."""
    configure(tree)
    builds = []
    for localversion in localversions:
        release = VERSION + localversion
        subprocess.run(["scripts/config", "--set-str", "LOCALVERSION", localversion], cwd=tree, check=True)
        _make(tree, "bzImage", "modules")
        place = out / release
        place.mkdir(parents=True)
        for source, name in (("arch/x86/boot/bzImage", "vmlinuz"), ("System.map", "System.map"), (".config", "config")):
            shutil.copyfile(tree / source, place / name)
        _devel(tree, place / "devel")
        builds.append(KernelBuild(release, place / "devel", place / "vmlinuz", place / "System.map", place / "config"))
    return builds


def _devel(tree: Path, place: Path) -> None:
    """What Fedora's kernel.spec puts into kernel-devel: makefiles, headers, Kbuild's programs, Module.symvers."""
    wanted = ["Makefile", "Kconfig", ".config", "Module.symvers", "System.map", "include", "scripts", "arch/x86/include"]
    wanted += ["arch/x86/Makefile", "arch/x86/Kconfig", "arch/x86/Makefile_32.cpu", "arch/x86/Makefile.um"]
    wanted += ["tools/objtool/objtool", "arch/x86/kernel/asm-offsets.s", "kernel/Makefile", "arch/x86/entry/vdso/Makefile"]
    names = [name for name in wanted if (tree / name).exists()]
    place.mkdir()
    words: list[str | Path] = ["tar", "-C", tree, "-c", "--exclude=*.o", "--exclude=*.cmd", "--exclude=*.a", *names]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as packed:
        subprocess.run(["tar", "-C", place, "-x"], stdin=packed.stdout, check=True)
    assert packed.returncode == 0


def found(out: Path, release: str) -> KernelBuild:
    """What ``build`` left in ``out`` for one name."""
    place = out / release
    return KernelBuild(release, place / "devel", place / "vmlinuz", place / "System.map", place / "config")
