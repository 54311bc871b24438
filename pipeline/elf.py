"""What a kernel module says of itself: its ``.modinfo``, the symbols it wants with their CRCs, and those it offers.

Layouts: Linux ``include/linux/module.h`` (.modinfo, __versions), ``include/linux/export.h`` (__ksymtab*, __crc_*),
``kernel/module_signature.h`` (a signature may follow the ELF file; pyelftools does not mind it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from .errors import PairFailed

_VERSION_ENTRY: Final = 64
"""Bytes of one entry of ``__versions`` on 64-bit kernels: an unsigned long CRC, then the name."""
_MACHINES: Final = {"EM_X86_64": "amd64", "EM_AARCH64": "arm64"}


@dataclass(frozen=True)
class Export:
    """A symbol that the kernel or a module offers. ``crc`` is None where it is not known."""

    crc: int | None
    module: str
    gpl_only: bool
    namespace: str = ""


@dataclass(frozen=True)
class Module:
    """One kernel module. ``info`` maps each .modinfo key to its values, ``undefined`` each wanted symbol to its CRC."""

    name: str
    machine: str
    info: Mapping[str, tuple[str, ...]]
    undefined: Mapping[str, int | None]
    exports: Mapping[str, Export]
    debug: bool
    versions: Mapping[str, int]
    """The whole ``__versions`` table; ``module_layout`` stands there without being a symbol of the module."""

    def first(self, key: str) -> str:
        """The first value of a .modinfo key, or an empty text."""
        return next(iter(self.info.get(key, ())), "")


def read_module(path: Path) -> Module:
    """The module in ``path``.

    Raises PairFailed for a file that is not a 64-bit kernel module.
    """
    try:
        with path.open("rb") as file:
            return _read(ELFFile(file), path.name)  # type: ignore[no-untyped-call]
    except (ELFError, ValueError, KeyError, AttributeError, OverflowError, UnicodeDecodeError) as error:
        raise PairFailed(f"{path.name} is not a kernel module ({error})") from error
    except OSError as error:
        raise PairFailed(f"{path.name} cannot be read: {error.strerror}") from error


def _read(elf: Any, name: str) -> Module:
    sections = {section.name: section for section in elf.iter_sections()}
    if ".modinfo" not in sections:
        raise ELFError("it has no .modinfo section")
    info: dict[str, list[str]] = {}
    for entry in sections[".modinfo"].data().split(b"\0"):
        key, equals, value = entry.decode("utf-8", "replace").partition("=")
        if equals:
            info.setdefault(key, []).append(value)
    crcs = _versions(sections["__versions"].data()) if "__versions" in sections else {}
    undefined: dict[str, int | None] = {}
    exports: dict[str, Export] = {}
    offered: dict[str, bool] = {}
    own_crcs: dict[str, int] = {}
    shorts = {n: s.name for n, s in enumerate(elf.iter_sections())}
    for symbol in sections[".symtab"].iter_symbols():
        index, text = symbol["st_shndx"], symbol.name
        if index == "SHN_UNDEF":
            if text and symbol["st_info"]["bind"] != "STB_WEAK":
                undefined[text] = crcs.get(text)
        elif text.startswith("__ksymtab_") and isinstance(index, int):
            offered[text.removeprefix("__ksymtab_")] = "_gpl" in shorts.get(index, "")
        elif text.startswith("__crc_"):
            own_crcs[text.removeprefix("__crc_")] = _own_crc(elf, symbol, shorts)
    stem = name.removesuffix(".ko").replace("-", "_")
    for text, gpl in offered.items():
        crc = own_crcs.get(text)
        exports[text] = Export(crc if crc else None, stem, gpl)
    debug = any(section.startswith(".debug_") for section in sections)
    machine = _MACHINES.get(elf["e_machine"], str(elf["e_machine"]))
    return Module(name, machine, {k: tuple(v) for k, v in info.items()}, undefined, exports, debug, crcs)


def _own_crc(elf: Any, symbol: Any, names: Mapping[int, str]) -> int:
    """The CRC behind ``__crc_x``: an absolute symbol, or four bytes in a ``__kcrctab`` section."""
    index = symbol["st_shndx"]
    if index == "SHN_ABS":
        return int(symbol["st_value"]) & 0xFFFFFFFF
    if isinstance(index, int) and "__kcrctab" in names.get(index, ""):
        data = elf.get_section(index).data()
        return int.from_bytes(data[symbol["st_value"] :][:4], "little")
    return 0


def _versions(data: bytes) -> dict[str, int]:
    table: dict[str, int] = {}
    for start in range(0, len(data) - _VERSION_ENTRY + 1, _VERSION_ENTRY):
        entry = data[start : start + _VERSION_ENTRY]
        table[entry[8:].split(b"\0", 1)[0].decode("ascii", "replace")] = int.from_bytes(entry[:8], "little") & 0xFFFFFFFF
    return table
