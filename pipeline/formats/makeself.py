"""NVIDIA's ``.run`` files, never executed: a makeself shell script, and behind it a packed tar.

Where the tar begins the script says itself, in the two forms that makeself has written: ``skip="N"`` lines (2.4, and
NVIDIA's own fork) or ``offset=`head -n N "$0" | wc -c```. What a member is for stands in the archive's ``.manifest``
(nvidia-installer, manifest.c): eight lines about the package, then one line a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from ..core.errors import IntegrityError
from ..core.files import MAX_UNPACKED
from .unpacking import HINT, Entry, Window, damaged, from_tar, packing, unpacked, within

_SCRIPT: Final = 1 << 20
"""Bytes in which the script must end; makeself's is 20 kB, NVIDIA's 15 kB."""
_LINES: Final = (
    re.compile(rb'^skip="?([0-9]{1,6})"?$', re.MULTILINE),
    re.compile(rb"^(?:SKIP|skip)=([0-9]{1,6})$", re.MULTILINE),
    re.compile(rb'offset=`head -n "?([0-9]{1,6})"? "\$0"', re.MULTILINE),
)
_ENTRY: Final = re.compile(r"(\S+) ([0-7]{4}) ([A-Z][A-Z0-9_]*)((?: \S+)*)")
_HEADER_LINES: Final = 8
KERNEL_SOURCE: Final = "KERNEL_MODULE_SRC"


@dataclass(frozen=True)
class Listed:
    """One line of the manifest. ``words`` is what follows the type: class, path, link target, ``MODULE:<part>``."""

    name: str
    mode: int
    type: str
    words: tuple[str, ...]

    @property
    def is_link(self) -> bool:
        """True for a link that the installer would make; no file of the archive."""
        return self.type.endswith(("_SYMLINK", "_NEWSYM"))

    @property
    def compat32(self) -> bool:
        """True for 32-bit libraries."""
        return "COMPAT32" in self.words

    @property
    def free_words(self) -> tuple[str, ...]:
        """Words that are neither an architecture nor a part: the path below the library directory, a link's target."""
        known = ("NATIVE", "COMPAT32", "CLASSIC", "NEW", "NON_GLVND", "GLVND", "INHERIT_PATH_DEPTH")
        return tuple(w for w in self.words if not w.startswith(("MODULE:", *known)))


@dataclass(frozen=True)
class Manifest:
    """What the archive says of itself. ``title`` names the architecture: ``… Graphics Driver for Linux-x86_64``."""

    version: str
    listed: tuple[Listed, ...]
    title: str = ""


def parse_manifest(text: str, what: str) -> Manifest:
    """``.manifest``.

    Raises IntegrityError for another text, a name that leaves the tree, or two lines for one file.
    """
    lines = text.splitlines()
    if len(lines) <= _HEADER_LINES:
        raise IntegrityError(f"{what}: its .manifest is cut off", hint=HINT)
    listed: list[Listed] = []
    seen: dict[str, Listed] = {}
    for number, line in enumerate(lines[_HEADER_LINES:], start=_HEADER_LINES + 1):
        if not line.strip():
            break
        match = _ENTRY.fullmatch(line.rstrip())
        if not match:
            raise IntegrityError(f"{what}: line {number} of its .manifest is '{line[:80]}'", hint=HINT)
        entry = Listed(match[1].removeprefix("./"), int(match[2], 8), match[3], tuple(match[4].split()))
        if entry.name.startswith("/") or ".." in entry.name.split("/"):
            raise IntegrityError(f"{what}: its .manifest names '{entry.name}', which leaves the tree", hint=HINT)
        if not entry.is_link and (out := [word for word in entry.free_words if ".." in word.split("/")]):
            raise IntegrityError(f"{what}: its .manifest puts '{entry.name}' into '{out[0]}', which leaves the tree", hint=HINT)
        if not entry.is_link and seen.setdefault(entry.name, entry) != entry:
            raise IntegrityError(f"{what}: its .manifest names '{entry.name}' twice, and differently", hint=HINT)
        listed.append(entry)
    return Manifest(lines[1].strip(), tuple(listed), lines[0].strip())


def payload_at(path: Path) -> int:
    """The byte at which the archive begins.

    Raises IntegrityError for a file that is no makeself archive.
    """
    with path.open("rb") as file:
        head = file.read(_SCRIPT)
    if not head.startswith(b"#!"):
        raise IntegrityError(f"{path.name} is not a self-extracting archive", hint=HINT)
    begins = [0, *(end.end() for end in re.finditer(b"\n", head))]
    for form in _LINES:
        for found in form.finditer(head):
            lines = int(found[1])
            for count in (lines, lines - 1):  # skip=N is the first line of the archive; head -n N the last of the script
                if 0 < count < len(begins) and packing(head[begins[count] : begins[count] + 8]):
                    return begins[count]
    raise IntegrityError(f"{path.name} does not say where its archive begins", hint=HINT)


def entries(path: Path, limit: int = MAX_UNPACKED) -> Iterator[Entry]:
    """Every member, in its order.

    Raises IntegrityError for what is no such archive, is damaged or cut off, unpacks to more than ``limit`` bytes, or whose
    names or links leave the tree.
    """
    at = payload_at(path)
    with path.open("rb") as file:
        window = Window(file, at, path.stat().st_size - at, path.name)
        stream = unpacked(cast("IO[bytes]", window), path.name, limit)
        yield from damaged(path.name, within(from_tar(stream, path.name), limit, path.name))


def read(path: Path, limit: int = MAX_UNPACKED) -> tuple[Manifest, Mapping[str, tuple[int, int]]]:
    """The manifest, and the (mode, size) of every file there is. One pass over the archive.

    Raises IntegrityError where the manifest is missing or lies: it names a file that is not there, or leaves out one of
    the kernel modules' sources that is.
    """
    manifest: Manifest | None = None
    files: dict[str, tuple[int, int]] = {}
    for entry in entries(path, limit):
        if entry.kind == "file":
            files[entry.name] = (entry.mode, entry.size)
            if entry.name == ".manifest" and entry.data is not None:
                manifest = parse_manifest(entry.data.read(16 << 20).decode("utf-8", "replace"), path.name)
        elif entry.kind == "hardlink":
            files[entry.name] = files.get(entry.target, (entry.mode, 0))
    if manifest is None:
        raise IntegrityError(f"{path.name} holds no .manifest", hint="is it a driver of NVIDIA's?")
    named = {listed.name for listed in manifest.listed if not listed.is_link}
    if absent := sorted(named - files.keys()):
        raise IntegrityError(f"{path.name}: its .manifest names '{absent[0]}', which it does not hold", hint=HINT)
    if unnamed := sorted(n for n in files if n.startswith(("kernel/", "kernel-open/")) and n not in named):
        raise IntegrityError(f"{path.name} holds '{unnamed[0]}', which its .manifest does not name", hint=HINT)
    return manifest, files
