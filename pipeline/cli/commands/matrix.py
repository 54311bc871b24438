"""``doit matrix``: missing pairs as one line for a CI matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ...core.errors import UsageError
from ...core.tags import is_failure
from ...plan.matrix import MAX_JOBS, PAIRS_PER_JOB, matrix
from ...plan.pairs import Pair
from ..workspace import Workspace
from .base import Plain, only_pairs


class Matrix(Plain):
    """``doit matrix``: what the registry lacks, as ``{"include": [{"id", "select", "pairs", "os", "arch"}], "count": N}``."""

    name = "matrix"
    doc_purpose = "print missing pairs as one line for a CI matrix"
    doc_usage = "[PATTERN...]"
    doc_description = (
        "'doit $select' does a job's pairs. What hosts need first comes first; 'waiting' pairs did not fit and come with the "
        "next run. 'count' is the number of jobs: an empty matrix fails a GitHub run, so ask for it first."
    )
    cmd_options = (
        {"name": "jobs", "short": "", "long": "jobs", "type": int, "default": MAX_JOBS, "help": "at most so many jobs"},
        {
            "name": "per_job",
            "short": "",
            "long": "pairs-per-job",
            "type": int,
            "default": PAIRS_PER_JOB,
            "help": "at most so many pairs in a job",
        },
        {
            "name": "retry_failed",
            "short": "",
            "long": "retry-failed",
            "type": bool,
            "default": False,
            "help": "pairs whose present recipe is known to fail are missing too",
        },
    )

    def work(self, space: Workspace, params: Any, args: list[str]) -> int:
        """Print the line; 0 whatever is missing."""
        if not 1 <= params["jobs"] <= MAX_JOBS or params["per_job"] < 1:
            raise UsageError(f"--jobs takes 1 to {MAX_JOBS}, --pairs-per-job 1 or more", hint="leave them out")
        only_pairs(args)
        space.retry_failed = params["retry_failed"]
        space.ledger.ask()
        missing = list(_missing(space, space.plan.select(args)))
        made = matrix(space.plan.pairs, missing, jobs=params["jobs"], per_job=params["per_job"])
        print(msgspec.json.encode(made).decode())
        return 0


def _missing(space: Workspace, pairs: tuple[Pair, ...]) -> Iterator[Pair]:
    """Pairs that a run would work on.

    A pair whose own names are not in the registry is missing without a look at its recipe, which takes a rendering;
    unless it may be a known failure.
    """
    ledger = space.ledger
    tags = ledger.tags
    failures = any(is_failure(tag) for tag in tags)
    for pair in pairs:
        if pair.exclusion is None and ((not failures and not tags.issuperset(pair.tags)) or not ledger.done(pair)):
            yield pair
