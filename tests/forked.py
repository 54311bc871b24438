"""``doit`` without the half second that Python needs to load it: forked from a process that has loaded it once.

What runs is the program itself, in a process of its own: words, folder, environment, standard streams and exit status are
real. What a start is (which modules are loaded when, signals, the script in ``.venv/bin``) is for tests with ``subprocess``.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

LOADED: Final = (
    "doit.dependency",
    "doit.runner",
    "sqlite3",
    *(
        f"pipeline.cli.commands.{name}"
        for name in ("doit_overrides", "fetch", "host", "matrix", "page", "prune", "run", "status")
    ),
    *(f"pipeline.cli.{name}" for name in ("commands.update", "commands.update_host", "leftovers", "program", "tasks")),
    *(f"pipeline.publish.{name}" for name in ("finish_run", "signing")),
    *(f"pipeline.update.{name}" for name in ("host", "run")),
    *("pipeline.build.pair", "pipeline.hosts.host_bundle", "pipeline.outcomes.page"),
)
"""What a command may load. A name that is none is passed over: tests/unit/support/test_forked.py holds that there is none."""
_processes: Final = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(list(LOADED))


def doit(
    words: Sequence[str], folder: Path, environ: Mapping[str, str], seconds: float = 300, program: str = "pipeline.cli.program"
) -> subprocess.CompletedProcess[str]:
    """Run ``doit WORDS`` in ``folder`` to its end; as ``subprocess.run`` with its output captured.

    ``program``: the module whose ``main`` it is, where it is not the one of ``.venv/bin/doit``.
    """
    with tempfile.TemporaryDirectory(prefix="doit.") as place:
        out, err = Path(place) / "out", Path(place) / "err"
        process = _processes.Process(target=_run, args=(program, list(words), folder, dict(environ), out, err))
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["doit", *words], seconds, out.read_bytes(), err.read_bytes())
        status = process.exitcode
        process.close()
        return subprocess.CompletedProcess(["doit", *words], status, out.read_text(), err.read_text())


def _run(program: str, words: list[str], folder: Path, environ: dict[str, str], out: Path, err: Path) -> None:
    for number, name in enumerate((Path(os.devnull), out, err)):
        opened = os.open(name, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.argv = ["doit", *words]
    sys.exit(importlib.import_module(program).main(words))
