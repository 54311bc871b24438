"""Makers of cache entries for the tests of the cache: one that counts, and another process that takes its time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAKER = """
import sys, time
from pathlib import Path
from tests.support.cache import Cache

root, seconds, wait = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])

def make(folder):
    (folder / "half").write_text("half")
    print("making", flush=True)
    time.sleep(seconds)
    (folder / "whole").write_text("whole")

with Cache(root, wait=wait) as cache:
    print((cache.entry("slow-thing", {"x": "1"}, make) / "whole").read_text(), flush=True)
    sys.stdin.read()
"""


def start(root: Path, seconds: float, wait: float = 60) -> subprocess.Popen[str]:
    """Another run that wants the entry "slow-thing" and takes so long to make it; it holds it until its input ends."""
    command = [sys.executable, "-c", MAKER, str(root), str(seconds), str(wait)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def line(process: subprocess.Popen[str]) -> str:
    """The next line of what it prints."""
    assert process.stdout is not None
    return process.stdout.readline()


class Maker:
    """Fills a folder and counts how often."""

    def __init__(self, size: int = 10) -> None:
        self.size, self.times = size, 0

    def __call__(self, folder: Path) -> None:
        self.times += 1
        (folder / "lib").mkdir()
        (folder / "lib/thing.ko").write_bytes(bytes(range(256)) * (self.size // 256 + 1))
        (folder / "program").write_text("#!/bin/sh\n")
        (folder / "program").chmod(0o755)
        (folder / "link").symlink_to("program")
