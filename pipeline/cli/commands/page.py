"""``doit page``: the coverage page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from ...config.lockfile import write
from ...core.errors import DiskError, UsageError
from ...outcomes import page
from ..workspace import Workspace
from .base import Plain
from .status import present

PAGE_FILE: Final = Path("build/page.html")


class Page(Plain):
    """``doit page``: which driver there is for which release, as one HTML file."""

    name = "page"
    doc_purpose = "write the coverage page, one HTML file that needs no network"
    doc_usage = ""
    doc_description = "Made from the index, as 'doit status' shows it. Prints where the page lies."
    cmd_options = (
        {
            "name": "output",
            "short": "o",
            "long": "output",
            "type": str,
            "default": str(PAGE_FILE),
            "help": "where to write it; - is stdout",
        },
    )

    def work(self, space: Workspace, params: Any, args: list[str]) -> int:
        """Write the page; 0 whatever the outcomes."""
        if args:
            raise UsageError(f"page takes no '{args[0]}'", hint="see 'doit help page'")
        text = page.page(present(space))
        if params["output"] == "-":
            sys.stdout.write(text)
            return 0
        place = space.root / params["output"]
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"{place.parent}: {error.strerror}", hint="choose another --output") from error
        write(place, text.encode())
        print(place)
        return 0
