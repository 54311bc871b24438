"""The end of a run: branch names and the index, from the registry's tags alone, whoever else writes at the same time.

A registry has no conditional writes, so two runners that end together may each publish an index without the other's
pairs, or point a branch name back at an older driver. Each therefore lists the tags again after it has published, and does
it all again where there are new outcomes. The last one to publish so sees what all the others have pushed. One that dies
in between is made good by the next run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..config.lockfile import write
from ..core.tags import is_outcome
from ..outcomes.index import Index
from ..plan.pairs import Pair, Plan
from . import ledger
from .ledger import Ledger

if TYPE_CHECKING:  # what builds is imported by those who build
    from ..build.shared_layers import Workshop
    from ..registry.client import Registry

SOURCE_FILE: Final = Path("build/index.registry")
"""Of which registry ``build/index.json`` tells."""
_ROUNDS: Final = 10
"""Others may go on building for hours; after so many rounds the index is theirs to complete."""


def publish(book: Ledger, plan: Plan, shop: Workshop, worked_on: Sequence[Pair]) -> Index:
    """Settle the branch names of the pairs that this run ``worked_on`` and publish the index; the index."""
    if worked_on:
        book.refresh()
    for _ in range(_ROUNDS):
        if worked_on:
            book.settle_aliases(plan, worked_on, shop, missing=False)
        local = ledger.local_index(book.root)
        index = book.index(plan, local)
        pushed = book.push_index(index, plan, shop)
        if index != local:
            ledger.save_index(book.root, index)
        write(book.root / SOURCE_FILE, _place(book.registry))
        if not pushed and not worked_on:
            break
        seen = _outcomes(book.tags)
        book.refresh()
        if _outcomes(book.tags) <= seen:
            break
    if worked_on:  # at the end: who finished beside us has settled its own by now
        book.settle_aliases(plan, (), shop)
    return index


def known_last(root: Path, registry: Registry) -> Index:
    """Read the last index that the checkout ``root`` wrote of this very registry; an empty one where there is none."""
    try:
        same = (root / SOURCE_FILE).read_bytes() == _place(registry)
    except FileNotFoundError:
        same = True  # written before that was noted
    except OSError:
        same = False
    return ledger.local_index(root) if same else Index()


def _place(registry: Registry) -> bytes:
    return f"{registry.host}/{registry.repository}\n".encode()


def _outcomes(tags: set[str]) -> set[str]:
    return {tag for tag in tags if is_outcome(tag)}
