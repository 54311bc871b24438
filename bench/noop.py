"""A run that finds everything done, over 10 to 10 000 pairs: seconds, requests and memory, and how they grow.

    .venv/bin/python -m bench.noop [--pairs 10,100,1000,10000] [--runs 9]

Each run is a whole process, ``doit`` as users start it, against Debian's docker-registry on loopback that holds a made-up
lock's pairs. Requests are counted through a proxy that pages the list of tags by 1 000, as large registries do, in a run
of its own. Beside it: how long until one pair among them that is missing begins to be built, and the other commands. Goals:
0.3, 0.35, 0.5 and 3 seconds, 5 requests a 1 000 pairs, growth of the marginal cost 1.05; 0.5 s to begin one, 1 s for the matrix.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.counting_proxy import counting
from bench.made_up import checkout, fill, remove_tag
from tests.registry_process import running_registry

GOALS: Final = {10: 0.3, 100: 0.35, 1000: 0.5, 10_000: 3.0}
MEMORY: Final = Path("/dev/shm")
"""A registry writes several small files a tag; in memory that takes seconds, on some disks minutes."""


@dataclass(frozen=True)
class Run:
    """One process: wall and processor seconds, peak memory in MB, exit status, and when its first line on stderr came."""

    seconds: float
    cpu: float
    memory: float
    status: int
    first_line: float
    stderr: str


@dataclass(frozen=True)
class Figures:
    """Medians over the runs of one size."""

    pairs: int
    seconds: float
    best: float
    cpu: float
    memory: float
    requests: int
    start: float
    matrix: float
    status: float


def doit(root: Path, registry: str, *words: str) -> Run:
    """``doit`` as a process in ``root``."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("DRIVER_", "DOCKER_"))}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # with it our modules would be compiled at each start: 0.1 s
    environ |= {"DRIVER_REGISTRY": registry, "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    program = [sys.executable, "-m", "pipeline", *words]
    begin = time.monotonic()
    process = subprocess.Popen(program, cwd=root, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    with process.stderr as pipe:
        line = pipe.readline()
        first = time.monotonic() - begin
        rest = pipe.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    return Run(
        seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, process.returncode, first, (line + rest).decode()
    )


def measure(pairs: int, runs: int, place: Path) -> Figures:
    """All figures of one size.

    Raises RuntimeError where a run did not find everything done.
    """
    with running_registry(place / "registry") as registry:
        root = place / "checkout"
        space = checkout(root, pairs, registry)
        storage = place / "registry" / "storage"
        fill(space, storage)
        found: list[Run] = []
        for number in range(runs + 1):
            run = doit(root, registry)
            if run.status or "built" not in run.stderr or len(run.stderr.splitlines()) != 1:
                raise RuntimeError(f"not everything was done: status {run.status}\n{run.stderr[-2000:]}")
            if number:  # the first one warms the page cache
                found.append(run)
        with counting(registry) as proxy:
            doit(root, proxy.address)
            requests = len(proxy.seen)
        one = space.plan.pairs[len(space.plan.pairs) // 2]
        remove_tag(storage, one.recipe_tag)
        starts = [doit(root, registry, f"image:{one.id}") for _ in range(max(1, runs // 3))]
        if not all("engine" in run.stderr for run in starts):
            raise RuntimeError(f"the build did not start: {starts[0].stderr[-2000:]}")
        return Figures(
            pairs,
            statistics.median(run.seconds for run in found),
            min(run.seconds for run in found),
            statistics.median(run.cpu for run in found),
            max(run.memory for run in found),
            requests,
            statistics.median(run.first_line for run in starts),
            _median(root, f"{registry}/empty", "matrix", runs),
            _median(root, registry, "status", runs),
        )


def _median(root: Path, registry: str, command: str, runs: int) -> float:
    """Seconds of another command."""
    found = [doit(root, registry, command) for _ in range(max(1, runs // 3))]
    if any(run.status for run in found):
        raise RuntimeError(f"doit {command}: {found[0].stderr[-2000:]}")
    return statistics.median(run.seconds for run in found)


def report(figures: Sequence[Figures]) -> str:
    """The figures as a table in Markdown, and the growth of the marginal cost."""
    lines = [
        "| pairs | seconds, median | best | goal | CPU s | peak MB | requests | one pair begins | matrix, all missing | status |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for f in figures:
        goal = f"{GOALS[f.pairs]:.2f}" if f.pairs in GOALS else "-"
        lines.append(
            f"| {f.pairs} | {f.seconds:.2f} | {f.best:.2f} | {goal} | {f.cpu:.2f} | {f.memory:.0f} "
            f"| {f.requests} | {f.start:.2f} s | {f.matrix:.2f} s | {f.status:.2f} s |"
        )
    for before, middle, after in zip(figures, figures[1:], figures[2:], strict=False):
        below = (middle.best - before.best) / (middle.pairs - before.pairs)
        above = (after.best - middle.best) / (after.pairs - middle.pairs)
        words = f", {above / below:.2f} of what it costs between {before.pairs} and {middle.pairs}" if below > 0 else ""
        lines.append(f"\nA further pair costs {above * 1e6:.0f} µs between {middle.pairs} and {after.pairs} pairs{words}.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.noop", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", default="10,100,1000,10000", help="sizes, with commas")
    parser.add_argument("--runs", type=int, default=9, help="runs of each size")
    chosen = parser.parse_args(arguments)
    figures = []
    for pairs in map(int, chosen.pairs.split(",")):
        with tempfile.TemporaryDirectory(prefix="bench-noop.", dir=MEMORY if MEMORY.is_dir() else None) as place:
            figures.append(measure(pairs, chosen.runs, Path(place)))
    print(report(figures))


if __name__ == "__main__":
    main()
