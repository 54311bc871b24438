"""``doit status``: what became of every pair."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

from ...core.errors import RegistryError, UsageError
from ...outcomes import index as indexes
from ...outcomes.index import Index
from ...outcomes.table import OUTCOMES, Filter, summary, table
from ...publish import ledger
from ...publish.finish_run import known_last, publish
from ..workspace import Workspace
from .base import JSON, Plain


def _option(name: str, help_text: str) -> dict[str, Any]:
    return {"name": name, "short": "", "long": name, "type": list, "default": [], "help": help_text}


class Status(Plain):
    """``doit status``: every pair with outcome and reason, or those that the options choose."""

    name = "status"
    doc_purpose = "show every pair with its outcome and reason"
    doc_usage = ""
    doc_description = (
        "Asks the registry; where that does not answer, shows the last index ('source': 'cache'). An option may be given more "
        "than once; --kernel and --driver take patterns, and --driver=535 is the whole branch."
    )
    cmd_options = (
        {**JSON, "help": "print the index as JSON"},
        {
            "name": "publish",
            "short": "",
            "long": "publish",
            "type": bool,
            "default": False,
            "help": "also bring the index in the registry up to date",
        },
        _option("os", "only this os (debian, flatcar, ...; also debian/amd64)"),
        _option("kernel", "only kernels that match, for example '6.1.0-5*'"),
        _option("driver", "only drivers that match, or of this branch"),
        _option("outcome", f"only this outcome: {', '.join(OUTCOMES)}"),
    )

    def work(self, space: Workspace, params: Any, args: list[str]) -> int:
        """Print; status 0 whatever the outcomes. With --publish an index that cannot be published is an error."""
        if args:
            raise UsageError(f"status takes no '{args[0]}'", hint="see 'doit help status'")
        wanted = Filter(**{name: tuple(params[name]) for name in ("os", "kernel", "driver", "outcome")})
        index = _published(space) if params["publish"] else present(space)
        chosen = tuple(entry for entry in index.pairs if wanted.takes(entry))
        if params["json"]:
            sys.stdout.write(indexes.dump(msgspec.structs.replace(index, pairs=chosen)).decode())
        else:
            width = shutil.get_terminal_size((100, 24)).columns
            sys.stdout.write(table(chosen, width=width, now=datetime.now(UTC)))
            print(summary(index, chosen), file=sys.stderr)
        return 0


def _published(space: Workspace) -> Index:
    """The index, after it was made again from the registry's tags and pushed where it was not up to date."""
    with space.alone():
        return publish(space.ledger, space.plan, space.shop, ())


def present(space: Workspace) -> Index:
    """The index as the registry's tags have it now; the last one known where it does not answer, which is said."""
    space.impatient = True
    book = space.ledger
    book.ask()
    local = ledger.local_index(space.root)
    try:
        if book.knows(space.plan) and book.is_published(ledger.local_document(space.root)):
            return local
        return book.index(space.plan, local)
    except RegistryError as error:
        print(f"doit: {error}; showing what was known last", file=sys.stderr)
        return ledger.cached(space.plan, known_last(space.root, space.registry))
