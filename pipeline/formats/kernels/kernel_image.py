"""What a kernel image exports, read out of the image itself: for kernels that come without a ``Module.symvers``.

A bzImage (Linux Documentation/arch/x86/boot.rst, "payload_offset") holds a packed ELF file whose symbol table is stripped
and whose ``__ksymtab`` sections are not: names and GPL-only marks stand there (include/linux/export.h). arm64's images are not
ELF: flat_image.py finds the same tables in them. No CRCs: those this can only say are not known.
"""

from __future__ import annotations

import io
import lzma
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final, cast

from ...core.errors import IntegrityError, PairFailed
from ..unpacking import packing, unpacked
from . import arm64_image
from .kernel_module import Export, damage, opened

_MAX: Final = 1 << 30
_GPL_ONLY: Final = 1
_ABSOLUTE: Final = struct.Struct("<QQ")
_FORMS: Final = (struct.Struct("<iii"), struct.Struct("<ii"), _ABSOLUTE)
"""struct kernel_symbol: offsets of value, name and namespace (from 5.4 on), without a namespace (from 4.19 on,
HAVE_ARCH_PREL32_RELOCATIONS), addresses of value and name (before)."""
_HINT: Final = "pin a kernel image that holds its symbols (bzImage, arm64's Image, vmlinux), or headers with a Module.symvers"


def exports(image: Path) -> dict[str, Export]:
    """Every symbol that the kernel in ``image`` itself exports; those of its modules are not in it.

    Raises PairFailed where they cannot be read.
    """
    try:
        data = unwrapped(image)
        if arm64_image.is_image(data):
            return {s.name: Export(None, "vmlinux", s.gpl_only, s.namespace) for s in arm64_image.symbols(data)}
        elf = opened(data)
        found: dict[str, Export] = {}
        for section in elf.iter_sections():
            if section.name in ("__ksymtab", "__ksymtab_gpl"):
                names, gpl = _names(elf, section), section.name.endswith("_gpl")
                flags = elf.get_section_by_name("__kflagstab")  # newer kernels mark what is GPL-only there, a byte a symbol
                marks = flags.data() if flags is not None and not gpl else bytes(len(names))
                for (name, namespace), mark in zip(names, marks, strict=True):
                    found[name] = Export(None, "vmlinux", gpl or bool(mark & _GPL_ONLY), namespace)
    except damage(IntegrityError) as error:
        raise PairFailed(f"cannot be proved: the symbols of {image.name} cannot be read ({error}): {_HINT}") from error
    if not found:
        raise PairFailed(f"cannot be proved: {image.name} holds no table of exported symbols: {_HINT}")
    return found


def symvers(table: Mapping[str, Export]) -> str:
    """``table`` as the ``Module.symvers`` that Kbuild and NVIDIA's probes read (scripts/mod/modpost.c), sorted by name.

    Every CRC is the zero that stands there without MODVERSIONS. The namespace is last, as from 5.7 on and in later 5.4.
    """
    kinds = {False: "EXPORT_SYMBOL", True: "EXPORT_SYMBOL_GPL"}
    return "".join(
        f"0x00000000\t{name}\t{export.module}\t{kinds[export.gpl_only]}\t{export.namespace}\n"
        for name, export in sorted(table.items())
    )


def of_system_map(text: str) -> dict[str, Export]:
    """The same from a ``System.map``: each export has a ``__ksymtab_<name>`` there; which are GPL-only it does not say."""
    names = (line.split(" ")[-1] for line in text.splitlines() if " __ksymtab_" in line)
    return {name.removeprefix("__ksymtab_"): Export(None, "vmlinux", gpl_only=False) for name in names}


def release(image: Path) -> str | None:
    """What ``uname -r`` prints on the kernel in ``image``; None where it does not say (Documentation/arch/x86/boot.rst).

    A bzImage names it behind its header, any other kernel in the line that it greets with.
    """
    data = image.read_bytes()
    if _is_bzimage(data):
        (at,) = struct.unpack_from("<H", data, 0x20E)
        text = data[at + 0x200 : at + 0x200 + 200].split(b"\0", 1)[0]
    else:
        try:
            data = _unpacked(data, image.name)
        except ValueError:
            return None
        match = re.search(rb"Linux version ([!-~]{3,100}) ", data)
        text = match[1] if match else b""
    return text.decode("ascii", "replace").partition(" ")[0] or None


def unwrapped(image: Path) -> bytes:
    """The kernel itself out of ``image``: an ELF file, or arm64's flat ``Image``.

    Raises ValueError where it is neither or cut off, IntegrityError where what packs it is damaged.
    """
    data = image.read_bytes()
    if _is_bzimage(data):
        (version,) = struct.unpack_from("<H", data, 0x206)
        if version < 0x208:
            raise ValueError("it is a bzImage of before 2.6.24, which does not say where its kernel is")
        setup = (data[0x1F1] or 4) + 1
        offset, length = struct.unpack_from("<II", data, 0x248)
        data = _plain(data[setup * 512 + offset : setup * 512 + offset + length], image.name)
    else:
        data = _unpacked(data, image.name)
    if data.startswith(b"\x7fELF") or arm64_image.is_image(data):
        return data
    raise ValueError("it is neither a bzImage nor an Image of arm64 nor an ELF file")


def _is_bzimage(data: bytes) -> bool:
    return len(data) >= 0x250 and data[0x202:0x206] == b"HdrS"


def _unpacked(data: bytes, name: str) -> bytes:
    """``data`` without what may be around a kernel of arm64: a program of EFI, and a packing. Raises as ``unwrapped``."""
    if (packed := arm64_image.zboot(data)) is not None:
        return _plain(packed, name)
    return _plain(data, name) if packing(data[:8]) else data


def _plain(payload: bytes, name: str) -> bytes:
    if packing(payload[:8]):
        return _all(unpacked(cast("IO[bytes]", _Payload(payload)), name, _MAX))
    if payload.startswith(b"\x5d\0\0"):
        try:
            data = lzma.LZMADecompressor(format=lzma.FORMAT_ALONE).decompress(payload, _MAX + 1)
        except lzma.LZMAError as error:
            raise ValueError(str(error)) from error
        if len(data) > _MAX:
            raise ValueError(f"it unpacks to more than {_MAX} bytes")
        return data
    raise ValueError(f"its payload is packed in a way that is not read here ({payload[:4].hex()})")


class _Payload(io.BytesIO):
    """The packed ELF file; four bytes with its size follow it, which no decoder knows."""


def _all(stream: IO[bytes]) -> bytes:
    parts: list[bytes] = []
    while True:
        try:
            part = stream.read1(1 << 20)  # type: ignore[attr-defined]
        except IntegrityError:
            if parts and parts[0].startswith(b"\x7fELF"):  # the trailing size, taken for another member
                break
            raise
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def _names(elf: Any, section: object) -> list[tuple[str, str]]:
    """Each exported symbol and its namespace, "" for none (then no offset, or one to an empty text)."""
    data, address = section.data(), section["sh_addr"]  # type: ignore[attr-defined,index]
    strings = elf.get_section_by_name("__ksymtab_strings")
    if strings is None:
        raise ValueError("it has no __ksymtab_strings")
    texts, base = strings.data(), strings["sh_addr"]
    for form in _FORMS:
        found = []
        for at in range(0, len(data) - form.size + 1, form.size):
            _, *places = form.unpack_from(data, at)
            relative = [place and address + at + 4 * (n + 1) + place for n, place in enumerate(places)]
            starts = [place - base for place in (places if form is _ABSOLUTE else relative) if place]
            if not starts or not all(0 <= start < len(texts) for start in starts):
                break
            own, *rest = (texts[start : texts.index(b"\0", start)].decode("ascii", "replace") for start in starts)
            if not own:
                break
            found.append((own, "".join(rest)))
        else:
            if len(data) % form.size == 0:
                return found
    raise ValueError("its table of exported symbols is of another form")
