"""What a kernel module says of itself: its ``.modinfo``, the symbols it wants with their CRCs, and those it offers.

Layouts: Linux ``include/linux/module.h`` (.modinfo, __versions), ``include/linux/export.h`` and ``export-internal.h``
(__ksymtab*, __kflagstab, __crc_*), ``include/linux/module_signature.h`` (a signature may follow the ELF file).
"""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import zstandard

from ...core.errors import PairFailed

_VERSION: Final = struct.Struct("<Q56s")
"""One entry of ``__versions`` on 64-bit kernels (struct modversion_info): CRC as an unsigned long, name."""
_SIGNATURE: Final = struct.Struct(">BBBBB3xI")
_SIGNED: Final = b"~Module signature appended~\n"
_PKCS7: Final = 2
_MACHINES: Final = {"EM_X86_64": "amd64", "EM_AARCH64": "arm64"}
_RESOLVED_LATER: Final = frozenset(("_GLOBAL_OFFSET_TABLE_", "__this_module"))
"""Undefined symbols that the loader ignores (ignore_undef_symbol())."""
_GPL_ONLY: Final = 1
"""KSYM_FLAG_GPL_ONLY of ``__kflagstab``, which replaces ``__ksymtab_gpl`` in newer kernels."""


@dataclass(frozen=True)
class Export:
    """A symbol that the kernel or a module offers. ``crc`` is None where it is not known."""

    crc: int | None
    module: str
    gpl_only: bool
    namespace: str = ""


@dataclass(frozen=True)
class Module:
    """One kernel module. ``name`` is its file's, ``info`` maps each .modinfo key to its values.

    ``undefined`` maps each symbol it cannot do without to the CRC it was compiled with, or None; weak ones are left
    out, as the kernel does without them.
    """

    name: str
    machine: str
    info: Mapping[str, tuple[str, ...]]
    undefined: Mapping[str, int | None]
    exports: Mapping[str, Export]
    debug: bool
    versions: Mapping[str, int]
    """The whole ``__versions`` table; ``module_layout`` stands there without being a symbol of the module."""
    signed: bool = False

    def first(self, key: str) -> str:
        """The first value of a .modinfo key, or an empty text."""
        return next(iter(self.info.get(key, ())), "")


def plain(path: Path) -> bytes:
    """The bytes of a module that may be compressed (``.ko``, ``.ko.gz``, ``.ko.xz``, ``.ko.zst``).

    Raises PairFailed where the file cannot be read or is damaged.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".xz":
            return lzma.decompress(data)
        if path.suffix == ".zst":
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except OSError as error:
        raise PairFailed(f"{path.name} cannot be read: {error.strerror or error}") from error
    except (lzma.LZMAError, zstandard.ZstdError, zlib.error, EOFError) as error:
        raise PairFailed(f"{path.name} cannot be decompressed: {error}") from error


def read_module(path: Path) -> Module:
    """The module in ``path``, compressed or not.

    Raises PairFailed for a file that is not a whole 64-bit kernel module.
    """
    return parse_module(plain(path), path.name)


def parse_module(data: bytes, name: str) -> Module:
    """The module with these bytes; ``name`` is for messages. Raises PairFailed as ``read_module`` does."""
    if not data.startswith(b"\x7fELF"):
        raise PairFailed(f"{name} is not a kernel module: it is not an ELF file")
    body = _unsigned(data, name)
    try:
        return _read(opened(body), len(body), name, len(body) < len(data))
    except damage() as error:
        raise PairFailed(f"{name} is not a kernel module: {str(error) or type(error).__name__}") from error


def fwversion(data: bytes) -> str:
    """The driver version in section ``.fwversion`` of GSP firmware; empty where it says none or is no ELF file."""
    try:
        section = opened(data).get_section_by_name(".fwversion")
    except damage():
        return ""
    return section.data().rstrip(b"\0").decode("ascii", "replace") if section else ""


def opened(data: bytes) -> Any:
    """pyelftools' view of ``data``. It loads at the first proof, minutes into a build that is to begin at once."""
    from elftools.elf.elffile import ELFFile

    return ELFFile(io.BytesIO(data))


def damage(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What pyelftools answers damage with, its own errors and whatever it stumbles over; and ``more``."""
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError

    return ELFError, ConstructError, struct.error, LookupError, TypeError, ValueError, AttributeError, *more


def _unsigned(data: bytes, name: str) -> bytes:
    """``data`` without an appended signature, whose trailer must be what mod_check_sig() accepts."""
    if not data.endswith(_SIGNED):
        return data
    end = len(data) - len(_SIGNED) - _SIGNATURE.size
    algo, digest, kind, signer, key, size = _SIGNATURE.unpack_from(data, end) if end > 0 else (1, 0, 0, 0, 0, 0)
    if (algo, digest, kind, signer, key) != (0, 0, _PKCS7, 0, 0) or not 0 < size < end:
        raise PairFailed(f"{name}: the signature at its end is damaged")
    return data[: end - size]


def _read(elf: Any, size: int, name: str, signed: bool) -> Module:
    listed = list(elf.iter_sections())
    for section in listed:
        if section["sh_type"] not in ("SHT_NOBITS", "SHT_NULL") and section["sh_offset"] + section["sh_size"] > size:
            raise ValueError("it is cut off")
    names = [section.name for section in listed]
    sections = dict(zip(names, listed, strict=True))
    for needed in (".modinfo", ".gnu.linkonce.this_module", ".symtab"):
        if needed not in sections:
            raise ValueError(f"it has no section {needed}")
    if elf["e_type"] != "ET_REL" or elf.elfclass != 64:
        raise ValueError("it is not a 64-bit relocatable file")
    versions = _versions(sections)
    undefined: dict[str, int | None] = {}
    offered: dict[str, bool] = {}
    flags: dict[str, bool] = {}
    crcs: dict[str, int] = {}
    for symbol in sections[".symtab"].iter_symbols():
        text, place = symbol.name, symbol["st_shndx"]
        if place == "SHN_UNDEF":
            if text and symbol["st_info"]["bind"] != "STB_WEAK" and text not in _RESOLVED_LATER:
                undefined[text] = versions.get(text)
        elif text.startswith("__ksymtab_") and isinstance(place, int):
            offered[text.removeprefix("__ksymtab_")] = names[place].startswith(("__ksymtab_gpl", "___ksymtab_gpl"))
        elif text.startswith("__flags_") and isinstance(place, int) and "__kflagstab" in names[place]:
            flags[text.removeprefix("__flags_")] = bool(listed[place].data()[symbol["st_value"]] & _GPL_ONLY)
        elif text.startswith("__crc_") and (crc := _own_crc(symbol, listed)):
            crcs[text.removeprefix("__crc_")] = crc
    return Module(
        name=name,
        machine=_MACHINES.get(elf["e_machine"], str(elf["e_machine"])),
        info=_modinfo(sections[".modinfo"].data()),
        undefined=undefined,
        exports={
            text: Export(crcs.get(text), name.split(".ko", 1)[0].replace("-", "_"), flags.get(text, gpl_only))
            for text, gpl_only in offered.items()
        },
        debug=_debug(names),
        versions=versions,
        signed=signed,
    )


def _debug(names: Iterable[str]) -> bool:
    return any(name.startswith((".debug_", ".zdebug_", ".rela.debug_")) for name in names)


def _modinfo(data: bytes) -> dict[str, tuple[str, ...]]:
    info: dict[str, tuple[str, ...]] = {}
    for entry in data.split(b"\0"):
        key, equals, value = entry.decode("utf-8", "replace").partition("=")
        if equals:
            info[key] = (*info.get(key, ()), value)
    return info


def _own_crc(symbol: Any, sections: list[Any]) -> int | None:
    """The CRC behind ``__crc_x``: an absolute symbol (before 5.18), else four bytes in a ``__kcrctab`` section."""
    place = symbol["st_shndx"]
    if place == "SHN_ABS":
        return int(symbol["st_value"]) & 0xFFFFFFFF
    if isinstance(place, int) and "__kcrctab" in sections[place].name:
        return int.from_bytes(sections[place].data()[symbol["st_value"] :][:4], "little")
    return None


def _versions(sections: Mapping[str, Any]) -> dict[str, int]:
    """``__versions``, and the table for long names beside it (CONFIG_EXTENDED_MODVERSIONS, 6.14)."""
    table: dict[str, int] = {}
    if "__versions" in sections:
        data = sections["__versions"].data()
        for crc, text in _VERSION.iter_unpack(data[: len(data) // _VERSION.size * _VERSION.size]):
            table[text.split(b"\0", 1)[0].decode("ascii", "replace")] = crc & 0xFFFFFFFF
    if "__version_ext_crcs" in sections and "__version_ext_names" in sections:
        crcs = sections["__version_ext_crcs"].data()
        texts = sections["__version_ext_names"].data().split(b"\0")
        for (crc,), text in zip(struct.iter_unpack("<I", crcs[: len(crcs) // 4 * 4]), texts, strict=False):
            table.setdefault(text.decode("ascii", "replace"), crc)
    return table
