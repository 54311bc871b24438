"""A run that finds everything done pays for no library of those that build."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("docker", "elftools", "tarfile", "pipeline.build", "pipeline.engine", "pipeline.fetch", "pipeline.trees")


@pytest.mark.parametrize("module", ["pipeline.commands.run", "pipeline.commands.status", "pipeline.commands.matrix", "dodo"])
def test_commands_start_without_what_only_builders_need(module: str) -> None:
    program = f"import sys, {module}, pipeline.registry; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
