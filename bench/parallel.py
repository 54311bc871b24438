"""Two pairs at once (``doit -n 2``) over the same two one after the other: seconds, memory and disk.

    .venv/bin/python -m bench.parallel [--kind open] [--modules nvidia] [--pairs '*6.1.0-47*' '*6.1.0-50*']
    .venv/bin/python -m bench.parallel --stand-in 5

Takes the tests' own pairs (tests/debian), the engine and the download cache that ``doit`` would take, and a registry of its
own. The pairs' dates in the lock are
moved before each round, so that no cache of the engine holds a step; toolchain, base and userspace are made beforehand.
One pair alone already keeps two processors at work while it compiles, so that the ideal is the time of one after the
other; it can be beaten, since one pair's unpacking, linking and booting fall into another's compiling. With ``--stand-in
SECONDS`` each pair computes that long on one processor (bench/stand_in.py): the ideal is then half. Goal: 0.95 of ideal.
Memory is that of doit and all its children (virtual machines too, the engine's containers not), disk what lies below build/
and is no link to the download cache; bench/footprint.py samples both.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from bench.footprint import Peak, Watched, size_of
from bench.made_up import FILES, PINNED, ROOT, narrowed, pinned
from pipeline.config import lockfile
from pipeline.config.records import Lock
from tests.registry_process import running_registry

AT_ONCE: Final = 2


@dataclass(frozen=True)
class Round:
    """One run over all pairs: seconds, its peak, and the bytes on disk below ``build`` before and after it."""

    seconds: float
    peak: Peak
    before: int
    after: int


@dataclass(frozen=True)
class Figures:
    """Both ways, and how many times as fast the ideal is as one after the other."""

    pairs: tuple[str, ...]
    at_once: Round
    in_turn: Round
    ideal: float

    @property
    def of_ideal(self) -> float:
        """1.0: as fast as can be."""
        return self.in_turn.seconds / self.at_once.seconds / self.ideal


class Bench:
    """A checkout with two pairs in its lock."""

    def __init__(
        self, root: Path, registry: str, patterns: Sequence[str], build: Mapping[str, Sequence[str]], seconds: float
    ) -> None:
        self.root, self.seconds = root, seconds
        root.mkdir(parents=True)
        for name in FILES:
            shutil.copyfile(ROOT / name, root / name)
        wishes = narrowed((PINNED / "versions.toml").read_text(), build)
        (root / "versions.toml").write_text(wishes)
        whole = pinned().plan
        chosen = [next(pair for pair in whole.select([f"image:{pattern}"]) if not pair.exclusion) for pattern in patterns]
        self.ids = tuple(pair.id for pair in chosen)
        self._kernels = [msgspec.structs.replace(pair.kernel, drivers=(pair.driver.version,)) for pair in chosen]
        self._lock: Lock = msgspec.structs.replace(whole.lock, pending=())
        self._environ = {**os.environ, "DRIVER_REGISTRY": registry, "STAND_IN_SECONDS": str(seconds), "STAND_IN_WORK": "1"}
        if not seconds and (ROOT / "build" / "layers").is_dir():  # base and userspace, where they were made before
            shutil.copytree(ROOT / "build" / "layers", root / "build" / "layers", copy_function=os.link)

    def prepare(self) -> None:
        """Make what thousands of pairs share."""
        self._renew()
        for pair in {kernel.drivers[0]: kernel for kernel in self._kernels}.values():
            self._doit(f"toolchain:{pair.toolchain}/{pair.arch}", f"driver:{pair.drivers[0]}/{pair.arch}")

    def round(self, *words: str) -> Round:
        """One run over both pairs, every one of them new."""
        self._renew()
        build = self.root / "build"
        before, begin = size_of(build), time.monotonic()
        peak = self._doit(*words)
        return Round(time.monotonic() - begin, peak, before, size_of(build))

    def _renew(self) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        kernels = tuple(msgspec.structs.replace(kernel, date=now) for kernel in self._kernels)
        (self.root / lockfile.LOCK_FILE).write_bytes(lockfile.dump(msgspec.structs.replace(self._lock, kernels=kernels)))

    def _doit(self, *words: str) -> Peak:
        command = [sys.executable, "-m", "bench.stand_in" if self.seconds else "doit", *words]
        process = subprocess.Popen(command, cwd=self.root, env=self._environ)
        with process, Watched(process.pid, self.root / "build") as watched:
            process.wait()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        return watched.peak


def measure(bench: Bench) -> Figures:
    """At once first, so that what is warm favours the other way."""
    if not bench.seconds:
        bench.prepare()
    at_once = bench.round("-n", str(AT_ONCE))
    time.sleep(1.1)  # a date in a lock has no fraction of a second
    in_turn = bench.round()
    return Figures(bench.ids, at_once, in_turn, float(AT_ONCE) if bench.seconds else 1.0)


def report(figures: Figures) -> str:
    """In Markdown."""
    faster = figures.in_turn.seconds / figures.at_once.seconds
    ways = {"one after the other": figures.in_turn, "two at once": figures.at_once}
    return "\n".join(
        [
            f"{' and '.join(figures.pairs)}",
            "",
            "| | seconds | peak memory, MB | of it | peak disk, MB | before and after |",
            "|---|---:|---:|---|---:|---:|",
            *(f"| {way} | {_row(found)} |" for way, found in ways.items()),
            "",
            f"{faster:.2f} times as fast, {figures.of_ideal:.2f} of ideal (goal 0.95).",
        ]
    )


def _row(found: Round) -> str:
    programs = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in sorted(found.peak.programs.items(), key=lambda p: -p[1]))
    numbers = f"{found.seconds:.1f} | {found.peak.memory / 1e6:.0f} | {programs}"
    return f"{numbers} | {found.peak.disk / 1e6:.1f} | {found.before / 1e6:.1f}, {found.after / 1e6:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.parallel", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kind", action="append", default=[], help="only this kind")
    parser.add_argument("--modules", default="", help="NV_KERNEL_MODULES, with commas; all where it is not given")
    parser.add_argument(
        "--pairs", nargs=2, default=["*6.1.0-47*", "*6.1.0-50*"], help="two patterns, the first pair of each is taken"
    )
    parser.add_argument("--stand-in", type=float, default=0.0, metavar="SECONDS", help="no compiler: compute so long")
    chosen = parser.parse_args(arguments)
    build = {"kinds": chosen.kind, "modules": list(filter(None, chosen.modules.split(",")))}
    (ROOT / "build").mkdir(exist_ok=True)
    temporary = tempfile.TemporaryDirectory(prefix=".bench.", dir=ROOT / "build")
    with temporary as place, running_registry(Path(place) / "registry") as registry:
        print(report(measure(Bench(Path(place) / "checkout", registry, chosen.pairs, build, chosen.stand_in))))


if __name__ == "__main__":
    main()
