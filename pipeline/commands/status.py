"""``doit status``: what became of every pair."""

from __future__ import annotations

import sys
from typing import Any

from .. import index as indexes
from .. import ledger
from ..errors import RegistryError
from ..workspace import Workspace
from .plain import JSON, Plain


class Status(Plain):
    """``doit status``: every pair with outcome and reason."""

    name = "status"
    doc_purpose = "show every pair with its outcome and reason"
    doc_usage = ""
    doc_description = "Asks the registry; where that does not answer, shows the last index ('source': 'cache')."
    cmd_options = ({**JSON, "help": "print the index as JSON"},)

    def work(self, space: Workspace, params: Any, args: list[str]) -> int:
        """Print; status 0 whatever the outcomes."""
        local = ledger.local_index(space.root)
        try:
            index = space.ledger.index(space.plan, local)
        except RegistryError as error:
            print(f"doit: {error}; showing what was known last", file=sys.stderr)
            index = ledger.cached(space.plan, local)
        if params["json"]:
            sys.stdout.write(indexes.dump(index).decode())
        else:
            sys.stdout.write(indexes.table(index.pairs))
        return 0
