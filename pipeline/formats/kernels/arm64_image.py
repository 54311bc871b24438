"""arm64's kernel images: memory as it is to be, without sections (``Image``), and the program of EFI that unpacks one (zboot).

Such an image does not say where its tables lie. That of exported symbols is known by its form: thousands of entries with
offsets from their own place to a name (include/linux/export.h, PREL32, on arm64 since 4.19), the names in the order in which
the linker sorts them (include/asm-generic/vmlinux.lds.h: SORT). In the file things are as far from each other as in memory.

Headers: Linux Documentation/arch/arm64/booting.rst, drivers/firmware/efi/libstub/zboot-header.S.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

FEWEST: Final = 200
"""Entries of both tables together; where there are fewer it is no kernel's: the smallest export over a thousand symbols."""
_MAGIC: Final = b"ARM\x64"
_BIG_ENDIAN: Final = 1
_FORMS: Final = (struct.Struct("<iii"), struct.Struct("<ii"))
"""Offsets to value, name and namespace (from 5.4 on); without a namespace (from 4.19 on)."""
_NAME: Final = re.compile(rb"([A-Za-z_.$][\w.$]{0,511})\0")
_NAMESPACE: Final = re.compile(rb"([!-~]{0,511})\0")
_PARTS: Final = 5
"""Most tables one behind the other that any kernel had: before 5.12 three for symbols that are unused or will be GPL-only."""

_Entry = tuple[bytes, bytes]
"""Name and namespace."""


@dataclass(frozen=True)
class Symbol:
    """An exported symbol; ``namespace`` is "" where it has none."""

    name: str
    namespace: str
    gpl_only: bool


def is_image(data: bytes) -> bool:
    """Whether ``data`` is an unpacked kernel image of arm64."""
    return data[56:60] == _MAGIC


def zboot(data: bytes) -> bytes | None:
    """The packed image in an EFI zboot program; None where ``data`` is none. Raises ValueError where it is cut off."""
    if data[:2] != b"MZ" or data[4:8] != b"zimg" or len(data) < 64:
        return None
    start, size = struct.unpack_from("<II", data, 8)
    if not size or start + size > len(data):
        raise ValueError("the image in its EFI program is cut off")
    return data[start : start + size]


def symbols(data: bytes) -> list[Symbol]:
    """What the kernel in the unpacked image ``data`` exports. Raises ValueError where that cannot be told for sure."""
    (flags,) = struct.unpack_from("<Q", data, 24)
    if flags & _BIG_ENDIAN:
        raise ValueError("it is for big-endian machines, for which there is no driver")
    found = [table for form in _FORMS for table in _tables(data, form)]
    if not found:
        raise ValueError("no table of exported symbols was found in it")
    if len(found) > 1:
        raise ValueError(f"{len(found)} places in it look like the table of exported symbols")
    (table,) = found
    return _marked(data, table)


@dataclass(frozen=True)
class _Table:
    """Tables that follow each other without a gap, in parts whose names ascend; ``end``: the byte behind the last."""

    parts: Sequence[Sequence[_Entry]]
    end: int


def _marked(data: bytes, table: _Table) -> list[Symbol]:
    """GPL-only is the second of two parts; or each with a mark in ``__kflagstab``, behind the one part and its CRCs."""
    if len(table.parts) == 2:
        return [_symbol(*entry, gpl) for part, gpl in zip(table.parts, (False, True), strict=True) for entry in part]
    if len(table.parts) > 2:
        raise ValueError(f"its exported symbols are in {len(table.parts)} tables, of which two are known")
    (part,) = table.parts
    for crcs in (0, 4):
        marks = data[table.end + crcs * len(part) :][: len(part)]
        if len(marks) == len(part) and set(marks) == {0, 1}:
            return [_symbol(*entry, bool(mark)) for entry, mark in zip(part, marks, strict=True)]
    raise ValueError("which of its exported symbols are for GPL modules only cannot be told")


def _symbol(name: bytes, namespace: bytes, gpl_only: bool) -> Symbol:
    return Symbol(name.decode("ascii"), namespace.decode("ascii"), gpl_only)


def _tables(data: bytes, form: struct.Struct) -> Iterator[_Table]:
    """Every place that has that form and whose names ascend.

    Names follow within 16 MiB, so the highest byte of their offsets is 0 in entry after entry: that is looked for first.
    There one entry in FEWEST is read, which misses no table, and where it leads to a name, those around it.
    """
    zeros = re.compile(rb"\0{%d,}" % FEWEST)
    for first in range(0, form.size, 4):
        for run in zeros.finditer(data[first + 7 :: form.size]):
            start, end = (first + number * form.size for number in run.span())
            behind = start
            for probe in range(start, end, FEWEST * form.size):
                if probe < behind or not _entry(data, form, probe):
                    continue
                before = _while_read(data, form, range(probe - form.size, behind - 1, -form.size))
                entries = [*before[::-1], *_while_read(data, form, range(probe, end, form.size))]
                behind = probe + (len(entries) - len(before)) * form.size
                parts = list(_ascending(entries))
                if len({name for name, _ in entries}) >= FEWEST and len(parts) <= _PARTS:
                    yield _Table(parts, behind)


def _while_read(data: bytes, form: struct.Struct, places: Iterable[int]) -> list[_Entry]:
    """The entries at ``places`` up to the first that leads to no name."""
    read = (_entry(data, form, at) for at in places)
    return [entry for entry in takewhile(bool, read) if entry]


def _entry(data: bytes, form: struct.Struct, at: int) -> _Entry | None:
    """Name and namespace of the entry at ``at``; None where it is none."""
    if at + form.size > len(data):
        return None
    _, to_name, *to_namespace = form.unpack_from(data, at)
    name = _NAME.match(data, at + 4 + to_name) if to_name > 0 else None
    if not name:
        return None
    if not any(to_namespace):
        return name[1], b""
    (offset,) = to_namespace
    namespace = _NAMESPACE.match(data, at + 8 + offset) if offset > 0 else None
    return (name[1], namespace[1]) if namespace else None


def _ascending(entries: Sequence[_Entry]) -> Iterator[list[_Entry]]:
    """``entries`` in parts whose names ascend; a name may stand twice (5.10 has its assembler's so)."""
    part = [entries[0]]
    for entry in entries[1:]:
        if entry[0] < part[-1][0]:
            yield part
            part = []
        part.append(entry)
    yield part
