"""Programs that nobody here wrote, as tests call them: skopeo, docker, podman."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final


class Client:
    """A program, called with words of its own first."""

    def __init__(self, *words: str, **environ: str) -> None:
        self.words, self.environ = words, {**os.environ, **environ}

    def __call__(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            [*self.words, *words], check=False, env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == status, f"{' '.join((*self.words, *words))}: {done.stderr[-2000:]}"
        return done.stdout


_UNIFIED: Final = Path("/sys/fs/cgroup/unified/cgroup.controllers")
HYBRID: Final = _UNIFIED.exists() and bool(_UNIFIED.read_text().strip())
"""True where version 2 of control groups holds controllers beside version 1: crun refuses to run anything there, runc does."""
RUNTIME: Final = "runc" if HYBRID else "crun"
"""What podman starts containers with. On a machine without any control groups only crun does."""
RUN: Final = ("run", "--rm", "--network", "none")
# podman raises limits to the kernel's own, which a sandbox may forbid even to root.
PODMAN_RUN: Final = (
    *(RUN if HYBRID else (*RUN, "--cgroups", "disabled")),
    "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096",
)  # fmt: skip
