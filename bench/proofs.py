"""What a pair takes at its hungriest, its proof, one alone and several at once: memory and disk.

    .venv/bin/python -m bench.proofs --registry localhost:5000 [--pairs '*[0-9]-amd64*' '*cloud-amd64-535.261*']

Nothing is compiled: the images are in the registry (``doit`` put them there), their modules are unpacked, read and booted as
before a push. A process of its own does that and is watched (bench/footprint.py) with its virtual machines.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.footprint import Peak, Watched
from bench.made_up import ROOT
from pipeline.build.assemble import Layer, Store
from pipeline.build.pair import prove
from pipeline.cli.workspace import Workspace


def prove_all(registry: str, patterns: Sequence[str], scratch: Path) -> None:
    """Prove the first pair of each pattern, all at once, as far as ``doit -n`` would."""
    space = Workspace(ROOT, {**os.environ, "DRIVER_REGISTRY": registry})
    space.inputs  # noqa: B018 - opened before threads ask for it
    shop = space.shop
    shop.root, shop.store = scratch, Store(scratch / "build" / "layers")
    (scratch / "build").mkdir()

    def one(pattern: str) -> None:
        pair = next(pair for pair in space.plan.select([f"image:{pattern}"]) if not pair.exclusion)
        manifest = shop.registry.manifest(pair.tags[0])
        if manifest is None:
            raise SystemExit(f"{registry} has no image of {pair.id}; build it first")
        found = json.loads(manifest.data)["layers"]
        layers = [Layer(layer["digest"], layer["size"], "", 0) for layer in found]
        with shop.proving:
            prove(pair, list(pair.kinds), dict(zip(("base", "userspace", "kernel"), layers, strict=False)), shop)

    with ThreadPoolExecutor(len(patterns)) as pool:
        list(pool.map(one, patterns))


def measure(registry: str, patterns: Sequence[str]) -> Peak:
    """The peak of a process that proves ``patterns`` at once."""
    with tempfile.TemporaryDirectory(prefix=".bench.", dir=ROOT / "build") as place:
        command = [sys.executable, "-m", "bench.proofs", "--registry", registry, "--here", place, "--pairs", *patterns]
        process = subprocess.Popen(command)
        with process, Watched(process.pid, Path(place)) as watched:
            process.wait()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        return watched.peak


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.proofs", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--registry", default="localhost:5000")
    parser.add_argument(
        "--pairs", nargs="+", default=["*[0-9]-amd64*", "*cloud-amd64-535.261*"], help="the first pair of each pattern"
    )
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.here:
        prove_all(chosen.registry, chosen.pairs, chosen.here)
        return
    print("| proofs at once | peak memory, MB | of it | peak disk, MB |\n|---:|---:|---|---:|")
    for patterns in (chosen.pairs[:1], chosen.pairs):
        peak = measure(chosen.registry, patterns)
        programs = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in sorted(peak.programs.items(), key=lambda p: -p[1]))
        print(f"| {len(patterns)} | {peak.memory / 1e6:.0f} | {programs} | {peak.disk / 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    main()
