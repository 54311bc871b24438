"""Kernel images of arm64 as the linker and objcopy lay them, made up: header, tables of exports, their texts."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Mapping, Sequence

BANNER = b"Linux version 6.12.102-flatcar (build@host) (gcc 14) #1 SMP\n\0"


def flat_image(
    *tables: Sequence[str],
    namespaces: Mapping[str, str] | None = None,
    before_5_4: bool = False,
    behind: bytes = b"",
    before: bytes = b"",
    flags: int = 0b1010,
) -> bytes:
    """An ``Image`` with ``tables`` one behind the other, ``behind`` them (CRCs, marks), then the texts.

    Texts are merged as the linker does: one that another ends in has no place of its own (``-Wl,-O`` of .section "aMS").
    """
    spaces = dict(namespaces or {})
    names = [name for table in tables for name in table]
    texts: dict[str, int] = {}
    blob = b"\0"
    for text in sorted({*names, *spaces.values()}, key=lambda text: (-len(text), text)):
        at = blob.find(text.encode() + b"\0")
        if at < 0:
            at = len(blob)
            blob += text.encode() + b"\0"
        texts[text] = at
    texts[""] = 0
    head = struct.pack("<4s4xQQQ24x4sI", b"MZ\x40\xfa", 0, 1 << 24, flags, b"ARM\x64", 64)
    data = bytearray(head + BANNER + before)
    data += bytes(-len(data) % 4)
    size = 8 if before_5_4 else 12
    strings = len(data) + size * len(names) + len(behind)
    for name in names:
        at = len(data)
        data += struct.pack("<ii", 64 - at, strings + texts[name] - at - 4)
        if not before_5_4:
            data += struct.pack("<i", strings + texts[spaces.get(name, "")] - at - 8)
    return bytes(data + behind + blob) + b"\xff" * 64


def zboot(image: bytes, pack: Callable[[bytes], bytes] = gzip.compress, kind: bytes = b"gzip", size: int = 0) -> bytes:
    """EFI's program that unpacks ``image``; ``size``: what its header says of the packed bytes, where that is a lie."""
    packed = pack(image)
    head = struct.pack("<4s4sII8x32sII", b"MZ\0\0", b"zimg", 512, size or len(packed), kind, 0x818223CD, 64)
    return head.ljust(512, b"\0") + packed + struct.pack("<I", len(image)) + b"the rest of the program"
