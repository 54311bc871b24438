"""Which OS families there are, by their modules' names alone: every run reads versions.toml, few need what reads feeds."""

from __future__ import annotations

from functools import cache
from typing import Final

from ..core.errors import BadFileError
from ..core.files import CHECKOUT
from .records import Os

NO_FEED: tuple[Os, ...] = ("debian", "host")
"""Debian's archive is no family with a feed of releases; ``host`` is the machine one stands on."""
_TITLES: Final[dict[Os, str]] = {"fedora-coreos": "Fedora CoreOS", "host": "this machine's"}
"""What people call them, where that is not the name with capitals."""


def title(os: Os) -> str:
    """What people call the OS: ``Flatcar``, ``Fedora CoreOS``."""
    return _TITLES.get(os) or os.replace("-", " ").title()


@cache
def names() -> tuple[Os, ...]:
    """Every family below pipeline/update/families, sorted."""
    here = CHECKOUT / "pipeline/update/families"
    return tuple(sorted(path.stem.replace("_", "-") for path in here.glob("*.py") if not path.stem.startswith("_")))


def check(oses: tuple[Os, ...], where: str) -> None:
    """Raise BadFileError, with ``where``, for the first OS that nothing here knows."""
    for os in oses:
        if os not in NO_FEED and os not in names():
            raise BadFileError(f"{where}: no OS '{os}'", hint=f"there are {', '.join((*NO_FEED, *names()))}")
