"""``supported-gpus.json`` of a driver's archive: which GPU it drives, with which kind of kernel module.

Each chip has ``devid``, ``features`` and, where another branch drives it, ``legacybranch``. Two features matter:
``kernelopen`` (the open modules drive it) and ``gsp_proprietary_supported`` (the proprietary ones do as well). A list
without the second word anywhere (525) is older than GPUs that need the open modules: there ``kernelopen`` means both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from ...core import strict_json
from ...core.errors import UpstreamDataError
from ..records import Skips

Kinds = Literal["open", "proprietary", "both", "listed", "legacy"]
_Id = Annotated[str, Meta(pattern=r"^0x[0-9A-Fa-f]{4}\Z")]
_LEGACY: Final = re.compile(r"([0-9]{2,3}(?:\.[0-9]{2})?)\.xx")
_OPEN: Final = "kernelopen"
_OPEN_AND_PROPRIETARY: Final = "gsp_proprietary_supported"


class Chip(Struct, frozen=True, kw_only=True, order=True):
    """One GPU, ids as four lower-case hex digits; ``subvendor`` and ``subdevice`` are "" where any board is meant.

    ``kinds`` are the modules of this driver that run it (``listed``: it runs, and nothing says by which kind); ``legacy``
    names the branch that does where this one does not.
    """

    device: str
    subvendor: str = ""
    subdevice: str = ""
    name: str
    kinds: Kinds
    legacy: str = ""


class Gpus(Struct, frozen=True, kw_only=True):
    """All GPUs of one driver's list, sorted by id."""

    chips: tuple[Chip, ...]
    warnings: tuple[str, ...]


class _Chip(Struct, frozen=True):
    devid: _Id
    name: str
    features: tuple[str, ...]
    legacybranch: str | None = None
    subdevid: _Id | None = None
    subvendorid: _Id | None = None


class _Gpus(Struct, frozen=True):
    chips: tuple[_Chip, ...]


def parse(data: bytes, url: str) -> Gpus:
    """The list.

    A chip with half a subsystem id, or a ``legacybranch`` that is none, is left out with a warning.
    Raises UpstreamDataError for another document, or where no chip is left.
    """
    read = strict_json.decode(data, _Gpus, url).chips
    needs_word = any(_OPEN_AND_PROPRIETARY in chip.features for chip in read)
    found: list[Chip] = []
    skips = Skips()
    for chip in read:
        legacy = _LEGACY.fullmatch(chip.legacybranch) if chip.legacybranch else None
        if chip.legacybranch and not legacy:
            skips.add("no branch in legacybranch", f"{chip.devid} {chip.legacybranch}")
        elif (chip.subdevid is None) != (chip.subvendorid is None):
            skips.add("half a subsystem id", f"{chip.devid} {chip.name}")
        else:
            found.append(
                Chip(
                    device=_digits(chip.devid),
                    subvendor=_digits(chip.subvendorid),
                    subdevice=_digits(chip.subdevid),
                    name=chip.name,
                    kinds="legacy" if legacy else _kinds(chip.features, needs_word),
                    legacy=legacy[1] if legacy else "",
                )
            )
    if not found:
        raise UpstreamDataError(f"{url}: no GPU in it", hint="it comes out of a driver's archive; see whether it is one")
    return Gpus(chips=tuple(sorted(found)), warnings=skips.warnings(url))


def _digits(text: str | None) -> str:
    return text[2:].lower() if text else ""


def _kinds(features: Iterable[str], needs_word: bool) -> Kinds:
    if _OPEN not in features:
        return "proprietary"
    return "both" if not needs_word or _OPEN_AND_PROPRIETARY in features else "open"


def kind_table(chips: Iterable[Chip]) -> bytes:
    """What ``nvidia-driver`` on a host asks: a line a GPU, sorted, for grep in a POSIX shell.

    ``10de:2330 both``, ``10de:1b06 proprietary``, ``10de:2b85 open``, ``10de:102d legacy 470``, or ``10de:2330 listed``
    where nothing says by which kind. Ids are those of PCI's vendor, device.
    Boards whose answer is not their device's have a line of their own, with subsystem vendor and device
    after it: ``10de:1db6:10de:1212 open``. So a shell looks for the long id first, then for the short one:
    ``grep "^10de:1db6:10de:1212 " || grep "^10de:1db6 "``. A GPU without a line is not in this driver's list: it may be
    newer than the driver. Where a device's boards differ and none stands for all, only the long lines are there.
    """
    devices: dict[str, dict[tuple[str, str], str]] = {}
    for chip in chips:
        answer = f"{chip.kinds} {chip.legacy}".rstrip()
        boards = devices.setdefault(chip.device, {})
        if boards.setdefault((chip.subvendor, chip.subdevice), answer) != answer:
            raise UpstreamDataError(
                f"GPU 10de:{chip.device} has two entries, '{boards[chip.subvendor, chip.subdevice]}' and '{answer}'",
                hint="the driver's supported-gpus.json contradicts itself: name the kind in the host's settings",
            )
    lines: list[str] = []
    for device, boards in devices.items():
        answers = set(boards.values())
        general = boards.get(("", ""), next(iter(answers)) if len(answers) == 1 else "")
        if general:
            lines.append(f"10de:{device} {general}")
        lines += [
            f"10de:{device}:{vendor}:{board} {answer}"
            for (vendor, board), answer in boards.items()
            if board and answer != general
        ]
    return "".join(f"{line}\n" for line in sorted(lines)).encode()
