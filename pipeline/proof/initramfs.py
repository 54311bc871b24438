"""The first file system of the virtual machine that proves modules: the image's runtime base, the modules, a script.

Format: cpio "newc" (Linux Documentation/driver-api/early-userspace/buffer-format.rst), uncompressed, as decompressing
costs more under emulation than reading. The same files give the same bytes.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

from ..core.errors import PairFailed
from ..formats.kernels import kernel_module

Content = tuple[int, bytes | Path]
"""Mode with its type bits; the bytes, a link's target, or the file that holds the bytes."""

MARK: Final = "proof:"
"""What every line of ours on the console begins with."""
_UNUSED: Final = ("usr/share", "usr/include", "var", "proc", "sys", "dev", "boot")
_INIT: Final = r"""#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
put() {
  # Each line in one write; loglevel=1 keeps the kernel's own lines, which would fall between, off the console.
  while read -r line; do echo "@MARK@ $1 $line"; done
}
try() {
  kind=$1; shift
  $b dmesg -c >/dev/null
  echo; echo "@MARK@ begin $kind"
  code=0; said=$(insmod "$@" 2>&1) || code=$?
  echo "$said" | put said
  $b dmesg | put log
  echo "@MARK@ end $kind $code"
}
echo; echo "@MARK@ up $($b uname -r)"
"""


def init(kinds: Mapping[str, list[str]]) -> str:
    """The script that inserts each kind's files in turn, the last one being ``nvidia.ko``."""
    lines = [_INIT.replace("@MARK@", MARK)]
    for kind, files in kinds.items():
        lines += [f"try {kind}:{number} {file}\n" for number, file in enumerate(files[:-1])]
        lines.append(f"try {kind} {files[-1]}\n")
    lines.append(f'echo "{MARK} done"\n$b poweroff -f\nwhile :; do $b sleep 60; done\n')
    return "".join(lines)


def tree(base: Path, modules: Mapping[str, Path], kernel_modules: Path | None) -> dict[str, Content]:
    """Every file of the initramfs: ``base`` without its documents, all that is inserted, and ``/init``.

    Raises PairFailed where a module needs one that the kernel does not have.
    """
    content: dict[str, Content] = {}
    for folder, folders, names in os.walk(base):
        above = Path(folder).relative_to(base)
        folders[:] = [name for name in folders if str(above / name) not in _UNUSED]
        for name in folders + names:
            path = base / above / name
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                content[str(above / name)] = (mode, os.fsencode(path.readlink()))
            elif stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                content[str(above / name)] = (mode, path if stat.S_ISREG(mode) else b"")
    for name in ("dev", "proc", "sys", "tmp", "modules"):
        content[name] = (stat.S_IFDIR | 0o755, b"")
    content["dev/console"] = (stat.S_IFCHR | 0o600, b"")
    inserted: dict[str, list[str]] = {}
    for kind, path in modules.items():
        content[f"modules/{kind}"] = (stat.S_IFDIR | 0o755, b"")
        for needed in [*dependencies(path, kernel_modules), path]:
            name = needed.name.split(".ko", 1)[0] + ".ko"
            content[f"modules/{kind}/{name}"] = (stat.S_IFREG | 0o644, kernel_module.plain(needed))
            inserted.setdefault(kind, []).append(f"/modules/{kind}/{name}")
    content["init"] = (stat.S_IFREG | 0o755, init(inserted).encode())
    return content


def dependencies(module: Path, kernel_modules: Path | None) -> list[Path]:
    """The kernel's own modules that ``module`` depends on, in the order in which they must be inserted.

    ``kernel_modules`` is the kernel's ``lib/modules/<kernel>``; what its ``modules.builtin`` lists needs no file.
    Raises PairFailed for one that is neither.
    """
    known: dict[str, Path] = {}
    builtin: set[str] = set()
    if kernel_modules is not None:
        known = {_own_name(path.name): path for path in sorted(kernel_modules.rglob("*.ko*"))}
        listed = kernel_modules / "modules.builtin"
        builtin = {_own_name(line) for line in listed.read_text().split()} if listed.is_file() else set()
    ordered: list[Path] = []
    stack: list[str] = []

    def visit(path: Path) -> None:
        for name in filter(None, kernel_module.read_module(path).first("depends").replace("-", "_").split(",")):
            needed = known.get(name)
            if needed in ordered or (needed is None and name in builtin):
                continue
            if needed is None:
                raise PairFailed(f"{path.name} depends on module {name}, which the kernel's package does not hold")
            if name in stack:
                raise PairFailed(f"{path.name} depends on module {name}, which depends on it")
            stack.append(name)
            visit(needed)
            stack.pop()
            ordered.append(needed)

    visit(module)
    return ordered


def _own_name(path: str) -> str:
    return path.rpartition("/")[2].split(".ko", 1)[0].replace("-", "_")


def write(out: IO[bytes], content: Mapping[str, Content]) -> None:
    """Write ``content`` as a cpio archive: sorted, owned by root, without times. Raises OSError as ``out`` does."""
    for inode, name in enumerate(sorted(content), start=1):
        mode, data = content[name]
        if isinstance(data, Path):
            size = data.stat().st_size
            out.write(_header(name, mode, size, inode))
            with data.open("rb") as source:
                shutil.copyfileobj(source, out, 1 << 20)
        else:
            size = len(data)
            out.write(_header(name, mode, size, inode) + data)
        out.write(b"\0" * (-size % 4))
    out.write(_header("TRAILER!!!", 0, 0, 0))


def _header(name: str, mode: int, size: int, inode: int) -> bytes:
    device = (5, 1) if stat.S_ISCHR(mode) else (0, 0)
    raw = os.fsencode(name) + b"\0"
    fields = (inode, mode, 0, 0, 2 if stat.S_ISDIR(mode) else 1, 0, size, 0, 0, *device, len(raw), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + raw
    return head + b"\0" * (-len(head) % 4)
