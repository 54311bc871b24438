"""The lists of GPUs in NVIDIA's README files, for drivers whose ``supported-gpus.json`` is not at hand.

Debian's packages leave the JSON out and carry both texts. ``README.txt``, appendix A: the GPUs of this driver, then those of
each legacy branch. ``README.md`` of the open kernel modules: the GPUs that these drive. A row ends in a device id, or in
device, subsystem vendor and subsystem device.

Neither text says which GPUs take the open modules alone. None did before branch 560, and from there on the open ones are
recommended anyway: such a GPU is ``both`` here.
"""

from __future__ import annotations

import re
from typing import Final

from ...core.errors import UpstreamDataError
from .supported_gpus import Chip, Gpus, Kinds

_IDS: Final = r"([0-9A-F]{4})(?: ([0-9A-F]{4}) ([0-9A-F]{4}))?"
_ROW: Final = re.compile(rf" (\S.*?) {{2,}}{_IDS}(?: {{2,}}\S.*)?\s*")
_OPEN_ROW: Final = re.compile(rf"\| (\S.*?) +\| {_IDS} +\|\s*")
_CURRENT: Final = re.compile(r"A1\. CURRENT NVIDIA GPUS\s*")
_LEGACY: Final = re.compile(r"The ([0-9]{2,3}(?:\.[0-9]{2})?)\.xx driver supports the following set of GPUs:\s*")
_END: Final = re.compile(r"\* If three IDs are listed,.*")

Id = tuple[str, str, str]
"""Device, subsystem vendor and subsystem device, the latter two "" where any board is meant."""


def parse(readme: bytes, open_readme: bytes | None, what: str) -> Gpus:
    """Every GPU that the driver's README names; without the open modules' README each is only ``listed``.

    Raises UpstreamDataError where a text has no such list.
    """
    chips: dict[Id, Chip] = {}
    drives = None if open_readme is None else _open(open_readme, what)
    branch: str | None = None
    for line in readme.decode("utf-8", "replace").splitlines():
        if _CURRENT.fullmatch(line):
            branch = ""
        elif found := _LEGACY.fullmatch(line):
            branch = found[1]
        elif _END.fullmatch(line):
            branch = None
        elif branch is not None and (row := _ROW.fullmatch(line)):
            device, vendor, board = own = _id(row)
            kinds: Kinds = "legacy" if branch else "listed" if drives is None else "both" if own in drives else "proprietary"
            # The newest branch comes first: it is the one to name.
            chips.setdefault(own, Chip(device=device, subvendor=vendor, subdevice=board, name=row[1], kinds=kinds, legacy=branch))
    if not any(chip.kinds != "legacy" for chip in chips.values()):
        raise UpstreamDataError(f"{what}: no list of GPUs in its README.txt", hint="the text has another form than was known")
    return Gpus(chips=tuple(sorted(chips.values())), warnings=())


def _open(readme: bytes, what: str) -> set[Id]:
    rows = (_OPEN_ROW.fullmatch(line) for line in readme.decode("utf-8", "replace").splitlines())
    if ids := {_id(row) for row in rows if row}:
        return ids
    raise UpstreamDataError(f"{what}: no list of GPUs in the open modules' README.md", hint="the text has another form")


def _id(row: re.Match[str]) -> Id:
    return row[2].lower(), (row[3] or "").lower(), (row[4] or "").lower()
