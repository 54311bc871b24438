"""Small synthetic kernel modules: C with the sections of a real one, compiled by gcc into a relocatable ELF file."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

KERNEL = "6.1.0-47-cloud-amd64"
DRIVER = "535.261.03"
MAGIC = f"{KERNEL} SMP preempt mod_unload modversions "
LAYOUT = 0xCA916CB2
TRAILER = b"~Module signature appended~\n"

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def compile_module(
    path: Path,
    *,
    info: Mapping[str, str | Sequence[str]] | None = None,
    wants: Mapping[str, int | None] | None = None,
    weak: Sequence[str] = (),
    offers: Mapping[str, tuple[int, bool]] | None = None,
    layout: int | None = LAYOUT,
    flags: Sequence[str] = (),
    extra: str = "",
) -> Path:
    """A module in ``path``: ``wants`` maps symbols to CRCs, ``offers`` maps symbols to (CRC, GPL-only)."""
    fields = {"license": "Dual MIT/GPL", "version": DRIVER, "vermagic": MAGIC, "srcversion": "ABC123", **(info or {})}
    lines = ['unsigned char __this_module[8] __attribute__((section(".gnu.linkonce.this_module")));']
    number = 0
    for key, values in fields.items():
        for value in [values] if isinstance(values, str) else values:
            number += 1
            lines.append(f'static const char i{number}[] __attribute__((section(".modinfo"),used)) = "{key}={value}";')
    wants = wants or {}
    crcs = {"module_layout": layout, **wants}
    table = ", ".join(f'{{{crc:#x}UL, "{name}"}}' for name, crc in crcs.items() if crc is not None)
    if table:
        lines.append("struct v { unsigned long crc; char name[56]; };")
        lines.append(f'static const struct v versions[] __attribute__((section("__versions"),used)) = {{{table}}};')
    lines += [f"extern void {name}(void);" for name in wants]
    lines += [f"extern void {name}(void) __attribute__((weak));" for name in weak]
    calls = " ".join([f"{name}();" for name in wants] + [f"if ({name}) {name}();" for name in weak])
    lines.append(f"int init_module(void) {{ {calls} return 0; }}")
    for name, (crc, gpl_only) in (offers or {}).items():
        suffix = "_gpl" if gpl_only else ""
        lines.append(f"void {name}(void) {{}}")
        lines.append(
            f'asm(".section __ksymtab{suffix},\\"a\\"\\n__ksymtab_{name}: .long 0\\n.previous\\n'
            f'.section __kcrctab{suffix},\\"a\\"\\n__crc_{name}: .long {crc:#x}\\n.previous");'
        )
    source = path.with_suffix(".c")
    source.write_text("\n".join([*lines, extra]) + "\n")
    command = ["gcc", "-c", "-O1", "-fno-pic", "-mcmodel=kernel", "-fno-toplevel-reorder", *flags]
    command = [word for word in command if word != "-mcmodel=kernel" or _is_x86()]
    subprocess.run([*command, str(source), "-o", str(path)], check=True, capture_output=True)
    source.unlink()
    return path


def _is_x86() -> bool:
    import platform

    return platform.machine() == "x86_64"


def arch() -> str:
    """The architecture that gcc compiles for, in Debian's words."""
    return "amd64" if _is_x86() else "arm64"


def sign(path: Path, *, changes: Mapping[str, int] | None = None) -> Path:
    """Append a signature with its trailer, as sign-file does; ``changes`` spoil the trailer."""
    signature = b"\x30\x82 synthetic PKCS#7"
    fields = {"algo": 0, "hash": 0, "id_type": 2, "signer_len": 0, "key_id_len": 0, "sig_len": len(signature)}
    fields |= changes or {}
    path.write_bytes(path.read_bytes() + signature + struct.pack(">BBBBB3xI", *fields.values()) + TRAILER)
    return path
