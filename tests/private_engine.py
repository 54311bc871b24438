"""A container engine of a test's own, empty at first, started and stopped by doit.sh's own functions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FUNCTIONS = """
set -euo pipefail
ROOT=$1 PYTHON=$2
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
say() { printf '%s\\n' "$*" >&2; }
die() { say "$@"; exit 2; }
as_root() { "$@"; }
need_root() { :; }
. "$ROOT/bootstrap/processes.sh"
. "$ROOT/bootstrap/engine.sh"
"""


def why_not() -> str:
    """Why none can be started here; empty where one can."""
    if os.geteuid() != 0:
        return "only root can start a container engine"
    absent = [name for name in ("dockerd", "containerd", "runc") if shutil.which(name) is None]
    return f"{', '.join(absent)} not installed" if absent else ""


@contextmanager
def private_engine(root: Path) -> Iterator[str]:
    """Address of an engine whose data lies in ``root``/build/engine; it and its data are gone with the block."""
    shutil.copytree(ROOT / "bootstrap", root / "bootstrap", ignore=shutil.ignore_patterns("__pycache__"))
    try:
        _bash(root, "start_engine")
        yield (root / "build/engine.env").read_text().strip().removeprefix("DOCKER_HOST=")
    finally:
        _bash(root, "stop_engine")
        shutil.rmtree(root / "build/engine", ignore_errors=True)


def daemon(root: Path) -> int:
    """The process of dockerd."""
    return int(_bash(root, "engine_pid"))


def _bash(root: Path, function: str) -> str:
    words = ["bash", "-c", f"{_FUNCTIONS}\n{function}", "bash", str(root), sys.executable]
    done = subprocess.run(words, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{function}: {done.stderr}")
    return done.stdout
