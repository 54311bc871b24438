"""Peak memory of a process with all its children, and the peak size of a folder, sampled while something runs.

Memory is PSS, proportional set size (Linux Documentation/filesystems/proc.rst, smaps_rollup): what processes share counts
once. A folder's size is that of its blocks on disk: a file that has another name elsewhere (a link to the download
cache) takes none, and one without a name, that a process of the tree holds open there, takes its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass
class Peak:
    """The most that was seen, in bytes; ``programs``: bytes of each program at the moment of the most ``memory``."""

    memory: int = 0
    disk: int = 0
    programs: dict[str, int] = field(default_factory=dict)
    samples: int = 0


class Watched:
    """Samples process ``pid``, its children and ``folder`` every ``pause`` seconds. A context manager; ``peak`` has the most."""

    def __init__(self, pid: int, folder: Path, *, pause: float = 0.1) -> None:
        self.peak = Peak()
        self._pid, self._folder, self._pause = pid, folder, pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            began = time.monotonic()
            tree = processes(self._pid)
            programs = {pid: pss(pid) for pid in tree}
            if sum(programs.values()) > self.peak.memory:
                self.peak.memory = sum(programs.values())
                self.peak.programs = {}
                for pid, size in programs.items():
                    self.peak.programs[name(pid)] = self.peak.programs.get(name(pid), 0) + size
            self.peak.disk = max(self.peak.disk, size_of(self._folder, tree))
            self.peak.samples += 1
            if self._over.wait(max(self._pause, time.monotonic() - began)):  # at most half of the time goes into looking
                return


def processes(pid: int) -> list[int]:
    """``pid`` and all that descend from it, as far as they are still there."""
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            above = int(place.read_text().rpartition(")")[2].split()[1])
            children.setdefault(above, []).append(int(place.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, ())
    return found


def pss(pid: int) -> int:
    """Bytes of one process; 0 where it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


def name(pid: int) -> str:
    """The program of a process, as the kernel shows it."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return "ended"


def size_of(folder: Path, pids: Sequence[int] = ()) -> int:
    """Bytes on disk below ``folder`` alone, and of what ``pids`` have open there without a name."""
    names, found = Counter[tuple[int, int]](), dict[tuple[int, int], os.stat_result]()
    for above, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):
                status = os.lstat(f"{above}/{file}")
                names[status.st_dev, status.st_ino] += 1
                found[status.st_dev, status.st_ino] = status
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                if (target := str(handle.readlink())).startswith(f"{folder}/") and target.endswith(" (deleted)"):
                    status = handle.stat()
                    found[status.st_dev, status.st_ino] = status
    return sum(status.st_blocks * 512 for key, status in found.items() if status.st_nlink <= names[key])
