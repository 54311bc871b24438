"""The commands: see the package."""

from __future__ import annotations

import argparse
import fnmatch
import os
import signal
import sys
import time
from collections.abc import Sequence

from pipeline.cli.commands.status import present
from pipeline.cli.workspace import Workspace
from pipeline.core.errors import PairFailed, PipelineError, UsageError

from . import __doc__ as words
from .cells import built, left, ordered
from .measure import Bench
from .pins import ROOT, Space, pin
from .results import FILE, Results
from .table import write

TROUBLES = 3
"""How many measurements in a row the machine may fail to make before a run gives up."""


def run(space: Space, patterns: Sequence[str], until: float) -> int:
    """Measure what is left, until that time; 2 where the machine did not do its part."""
    results = Results(space.root / FILE)
    pairs = [p for p in ordered(space.plan.pairs) if not patterns or any(fnmatch.fnmatchcase(p.id, w) for w in patterns)]
    if not pairs:
        raise UsageError(f"no pair of the lock matches {' or '.join(patterns)}", hint="*6.1.0-56*535* is one that does")
    todo = left(pairs, results)
    print(f"{len(todo)} cells have no result yet, {len(results)} have one", flush=True)
    scratch = space.root / "build" / "outcomes"
    scratch.mkdir(parents=True, exist_ok=True)
    bench = Bench(space.shop, scratch)
    troubles = 0
    for number, (pair, given) in enumerate(todo, start=1):
        if time.time() >= until or troubles == TROUBLES:
            break
        try:
            row = bench.measure(pair, given)
        except PairFailed:
            raise
        except PipelineError as error:
            troubles += 1
            print(f"{pair.id} {given.kind}: {error}; not measured", file=sys.stderr, flush=True)
            continue
        troubles = 0
        results.add(row)
        said = f"{row.outcome} {row.reason}".strip()
        print(f"{number}/{len(todo)} {pair.id} {given.kind}: {said} ({row.seconds:.0f} s)", flush=True)
    write(space, results)
    return 2 if troubles else 0


def take(space: Space) -> int:
    """Take over what ``doit`` itself has built out of this checkout's versions.lock, as the registry's index has it."""
    results = Results(space.root / FILE)
    own = Workspace(space.root, space.environ)
    found = built(own.plan.pairs, present(own).pairs, [given for _, given in left(space.plan.pairs, results)])
    if found:
        results.add(*found)
    print(f"{len(found)} cells taken over")
    write(space, results)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Do one of the commands; its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.outcomes", description=words, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("pin", help="write docs/outcomes/versions.lock")
    running = commands.add_parser("run", help="measure what has no result yet")
    running.add_argument("--minutes", type=float, default=float("inf"), help="begin no measurement after so many")
    running.add_argument("pattern", nargs="*", help="pairs by their id, such as '*6.1.0-56*535*'; all without one")
    commands.add_parser("take", help="take over what 'doit' has built and proved, from the registry's index")
    commands.add_parser("write", help="write docs/outcomes.md and docs/outcomes.html")
    chosen = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    space = Space(ROOT, os.environ)
    try:
        with space.alone():
            if chosen.command == "pin":
                problems = pin(space)
                print("\n".join(problems) or f"{len(space.lock.kernels)} kernels, {len(space.lock.drivers)} drivers")
                return 2 if problems else 0
            if chosen.command == "run":
                return run(space, chosen.pattern, time.time() + chosen.minutes * 60)
            if chosen.command == "take":
                return take(space)
            write(space, Results(space.root / FILE))
    except PipelineError as error:
        print(f"bench.outcomes: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("bench.outcomes: ended; the same words go on where it was", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
