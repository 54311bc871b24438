"""Programs that nobody here wrote, as tests call them: skopeo, docker, podman."""

from __future__ import annotations

import os
import subprocess
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


RUN: Final = ("run", "--rm", "--network", "none")
# podman raises limits to the kernel's own, which a sandbox may forbid even to root.
PODMAN_RUN: Final = (*RUN, "--cgroups", "disabled", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
