"""A fleet of runners over one registry, killed at random: every pair is built, and how much is built twice.

    .venv/bin/python -m bench.fleet [--runners 20] [--pairs 2000] [--kills 0.2] [--seed 1]

Each runner is a process with a checkout of its own; they share the registry and nothing else. ``doit matrix`` cuts the
missing pairs into jobs, runners take them, and a share of the runs is killed (SIGKILL) at a random moment; a killed job is
started again by whoever is free, as a CI does. The build step stands in for the real one (bench/stand_in.py). At the end
the index must hold every pair, each with the digest that its tags have.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.made_up import checkout
from bench.noop import MEMORY
from pipeline.registry.client import Registry
from tests.registry_process import running_registry


@dataclass
class Figures:
    """What a fleet did."""

    runners: int
    pairs: int
    seconds: float = 0.0
    jobs: int = 0
    runs: int = 0
    killed: int = 0
    begun: Counter[str] = field(default_factory=Counter)
    serial: int = 0

    @property
    def twice(self) -> int:
        """Builds beyond the first of each pair, those that a kill cut short among them."""
        return sum(self.begun.values()) - len(self.begun)


class Fleet:
    """The runners, their jobs and their seeded fate."""

    def __init__(self, place: Path, registry: str, figures: Figures, kills: float, seed: int) -> None:
        self.place, self.registry, self.figures, self.kills = place, registry, figures, kills
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self.roots = [place / f"runner{number}" for number in range(figures.runners)]
        for root in self.roots:
            checkout(root, figures.pairs, registry)

    def doit(self, root: Path, *words: str) -> subprocess.CompletedProcess[str]:
        """One run to its end."""
        return subprocess.run(
            self._command(words), cwd=root, env=self._environ(root), capture_output=True, text=True, check=False
        )

    def work(self) -> None:
        """Take jobs until ``doit matrix`` has none left.

        Raises RuntimeError where nothing comes of that.
        """
        failures: list[str] = []
        for _ in range(5):
            count = 4 * self.figures.runners
            words = ("--jobs", str(count), "--pairs-per-job", str(max(1, self.figures.pairs // count)))
            jobs = json.loads(self.doit(self.roots[0], "matrix", *words).stdout)["include"]
            if not jobs:
                return
            self.figures.jobs += len(jobs)
            for job in jobs:
                self._jobs.put(job["select"].split())
            threads = [threading.Thread(target=self._runner, args=(root, failures)) for root in self.roots]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if failures:
                raise RuntimeError(failures[0])
        raise RuntimeError("there are jobs left after five rounds")

    def _runner(self, root: Path, failures: list[str]) -> None:
        while not failures:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            with self._lock:
                self.figures.runs += 1
                doomed = self._random.random() < self.kills
                delay = self._random.uniform(0.3, 4.0)
            process = subprocess.Popen(
                self._command(job), cwd=root, env=self._environ(root), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            try:
                _, said = process.communicate(timeout=delay if doomed else None)
                if process.returncode:
                    failures.append(f"{job}: status {process.returncode}: {said.decode()[-1000:]}")
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                with self._lock:
                    self.figures.killed += 1
                self._jobs.put(job)

    def _command(self, words: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "bench.stand_in", *words]

    def _environ(self, root: Path) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DRIVER_", "DOCKER_"))}
        return {**kept, "DRIVER_REGISTRY": self.registry, "DOCKER_HOST": "unix:///nowhere", "STAND_IN_LOG": str(root / "log")}


def measure(runners: int, pairs: int, kills: float, seed: int, place: Path) -> Figures:
    """Let a fleet do its work.

    Raises RuntimeError where the index is not complete afterwards or says what the tags do not.
    """
    figures = Figures(runners, pairs)
    with running_registry(place / "registry") as registry:
        fleet = Fleet(place, registry, figures, kills, seed)
        begin = time.monotonic()
        fleet.work()
        figures.seconds = time.monotonic() - begin
        last = fleet.doit(fleet.roots[-1])
        index: dict[str, Any] = json.loads((fleet.roots[-1] / "build" / "index.json").read_bytes())
        figures.serial = index["serial"]
        wrong = [entry for entry in index["pairs"] if entry["outcome"] != "built"]
        if last.returncode or wrong or len(index["pairs"]) < pairs:
            raise RuntimeError(f"not all is built: {last.stderr[-500:]} {wrong[:1]}")
        reader = Registry(registry, environ={})
        for entry in random.Random(seed).sample(index["pairs"], min(50, len(index["pairs"]))):
            if {reader.digest(tag) for tag in entry["tags"]} != {entry["digest"]}:
                raise RuntimeError(f"{entry['kernel']} {entry['driver']}: the index and the tags do not agree")
    for root in fleet.roots:
        if (root / "log").exists():
            lines = (line.split() for line in (root / "log").read_text().splitlines())
            figures.begun.update(name for word, name in lines if word == "begin")
    return figures


def report(figures: Figures) -> str:
    """In words."""
    return (
        f"{figures.runners} runners, {figures.pairs} pairs: {figures.jobs} jobs in {figures.runs} runs, {figures.killed} of them "
        f"killed, {figures.seconds:.0f} s. {sum(figures.begun.values())} builds begun, {figures.twice} beyond the first of a "
        f"pair ({figures.twice / figures.pairs:.1%}). The index is complete, at serial {figures.serial}."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.fleet", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runners", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--kills", type=float, default=0.2, help="share of the runs that is killed")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-fleet.", dir=MEMORY if MEMORY.is_dir() else None) as place:
        print(report(measure(chosen.runners, chosen.pairs, chosen.kills, chosen.seed, Path(place))))


if __name__ == "__main__":
    main()
