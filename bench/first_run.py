"""The first command, from an empty engine and an empty registry, over bare ``make modules``; seconds to the first image.

    .venv/bin/python -m bench.first_run [--pair '*-cloud-amd64-535.309.01'] [--kind proprietary] [--modules nvidia]

What ``./doit.sh`` does on a machine that has the packages, the Python environment and every download (they are fetched before
the clock starts): start a private engine and a registry, make toolchain, base and userspace, compile, prove and push each
pair of the committed lock. It runs in a checkout of its own, as root. Then bare make of the same pairs, kinds and modules in
the same engine (bench/build.py: each kind asks NVIDIA's probes itself, nothing but make is timed), on warm files. Goal: a
ratio of at most 1.5.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.build import bare
from bench.made_up import ROOT, narrowed
from pipeline.cli.workspace import Workspace
from pipeline.core.errors import UsageError
from tests.private_engine import private_engine, why_not
from tests.registry_process import running_registry

FILES: Final = ("dodo.py", "pyproject.toml", "versions.lock", "compat.toml")
FOLDERS: Final = ("pipeline", "dockerfiles", "image")


@dataclass(frozen=True)
class Figures:
    """Seconds since the command began: of each step's end, of each pair's push, of the run's. Of bare make, by pair and kind."""

    steps: tuple[tuple[str, float, float], ...]
    """What was done, its seconds, and when it ended."""
    pushed: dict[str, float]
    whole: float
    bare: dict[str, float] = field(default_factory=dict)

    @property
    def first(self) -> float:
        """When the first image could be pulled."""
        return min(self.pushed.values())

    @property
    def ratio(self) -> float:
        """The first command over bare make."""
        return self.whole / sum(self.bare.values())


def checkout(root: Path, build: dict[str, list[str]]) -> None:
    """A checkout of the committed files below ``root``, its wishes and its lock narrowed to ``build``."""
    root.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(ROOT / name, root / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("versions.toml", "versions.lock"):
        (root / name).write_text(narrowed((ROOT / name).read_text(), build))


def watched(events: Iterable[tuple[float, dict[str, Any]]], whole: float) -> Figures:
    """The figures of a run out of what ``--json`` said, each line with the second it came in.

    Raises UsageError where a pair was not built.
    """
    steps: list[tuple[str, float, float]] = []
    pushed: dict[str, float] = {}
    for second, event in events:
        if event["event"] == "step":
            text = event["text"].rpartition(" in ")[0]
            steps.append((f"{event.get('pair', '')}: {text}", event["seconds"], second))
        elif event["event"] == "outcome":
            if event["outcome"] != "built":
                raise UsageError(f"{event['pair']}: {event['text']}", hint="name another with --pair")
            pushed[event["pair"]] = second
    if not pushed:
        raise UsageError("no pair was built", hint="see what it said above")
    return Figures(tuple(steps), pushed, whole)


def run(root: Path, environ: dict[str, str], words: Sequence[str], begin: float) -> Figures:
    """``doit --json`` there, from ``begin`` on."""
    command = [sys.executable, "-m", "pipeline", "--json", *words]
    events: list[tuple[float, dict[str, Any]]] = []
    with subprocess.Popen(command, cwd=root, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            events.append((time.monotonic() - begin, json.loads(line)))
            print(line, end="", file=sys.stderr, flush=True)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return watched(events, time.monotonic() - begin)


def measure(place: Path, pattern: str, build: dict[str, list[str]]) -> Figures:
    """The first command, then bare make."""
    root, words = place / "checkout", [f"image:{pattern}"]
    checkout(root, build)
    store = os.environ.get("DRIVER_CACHE") or str(ROOT / "build" / "cache")
    environ = {**os.environ, "PYTHONPATH": str(root), "DRIVER_CACHE": store, "DRIVER_REGISTRY": "localhost:1"}
    subprocess.run(
        [sys.executable, "-m", "pipeline", "fetch", *words], cwd=root, env=environ, stdout=subprocess.DEVNULL, check=True
    )
    with ExitStack() as stack:
        begin = time.monotonic()
        address = stack.enter_context(running_registry(place / "registry"))
        environ |= {"DRIVER_REGISTRY": address, "DOCKER_HOST": stack.enter_context(private_engine(root))}
        figures = run(root, environ, words, begin)
        space = Workspace(root, environ)
        for pair in space.plan.select(words):
            if pair.exclusion is None:
                seconds, _ = bare(pair, space, root / "build" / "bare")
                figures.bare.update({f"{pair.id}, {kind}": found for kind, found in seconds.items()})
        space.shop.engine.close()
    return figures


def report(figures: Figures) -> str:
    """Every step, bare make, the ratio and the first image, in Markdown."""
    total = sum(figures.bare.values())
    lines = ["| | seconds | ended at |", "|---|---:|---:|"]
    lines += [f"| {text} | {seconds:.1f} | {end:.1f} |" for text, seconds, end in figures.steps]
    lines += [f"| bare make, {name} | {seconds:.1f} | |" for name, seconds in figures.bare.items()]
    lines += [
        "",
        f"The first command took {figures.whole:.1f} s, bare make {total:.1f} s: {figures.ratio:.2f} (goal 1.50).",
        f"The first of {len(figures.pushed)} images was in the registry after {figures.first:.1f} s.",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.first_run", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pair", default="*", help="pattern of pairs of versions.lock; all where it is not given")
    parser.add_argument("--kind", action="append", default=[], help="only this kind")
    parser.add_argument("--modules", default="", help="NV_KERNEL_MODULES, with commas; all where it is not given")
    chosen = parser.parse_args(arguments)
    if why := why_not():
        parser.exit(2, f"bench.first_run: {why}\n")
    build = {"kinds": chosen.kind, "modules": list(filter(None, chosen.modules.split(",")))}
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bench.", dir=ROOT / "build") as place:
        print(report(measure(Path(place), chosen.pair, build)))


if __name__ == "__main__":
    main()
