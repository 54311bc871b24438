"""A project of its own in a folder: a lock and wishes like ours, in which the real ``doit`` runs.

project = SmallProject(tmp_path, samples.a_lock(), registry="127.0.0.1:5001")
assert project.doit("matrix").returncode == 0
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline.cli.workspace import Workspace
from pipeline.config import lockfile
from pipeline.config.records import Lock
from tests import forked

ROOT = Path(__file__).parents[1]
DOIT = Path(sys.executable).with_name("doit")


class SmallProject:
    """A folder with what doit reads; the pipeline itself is the checkout's."""

    def __init__(self, root: Path, the_lock: Lock, wishes: str = "", *, registry: str = "", **environ: str) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        for name in ("dodo.py", "pyproject.toml"):
            shutil.copy(ROOT / name, root / name)
        (root / "compat.toml").write_text("")
        (root / "versions.toml").write_text(wishes or "[build]\n")
        (root / "versions.lock").write_bytes(lockfile.dump(the_lock))
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DRIVER_", "DOCKER_")) and k not in ("COLUMNS", "CI")}
        kept["XDG_CACHE_HOME"] = str(root / "build/xdg")  # what it downloads and prunes is its own
        self.environ: dict[str, str] = {**kept, **({"DRIVER_REGISTRY": registry} if registry else {}), **environ}

    def doit(self, *words: str, seconds: float = 300, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run ``doit WORDS`` here to its end (tests/forked.py)."""
        return forked.doit(words, self.root, {**self.environ, **environ}, seconds)

    def space(self, environ: Mapping[str, str] | None = None) -> Workspace:
        """The same folder as the pipeline sees it, in this process."""
        return Workspace(self.root, environ or self.environ)
