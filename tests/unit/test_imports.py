"""A run that finds everything done pays for no library of those that build."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.upstream import families
from pipeline.upstream.policy import TABLES

HEAVY = ("docker", "elftools", "tarfile", "pipeline.build", "pipeline.engine", "pipeline.fetch", "pipeline.trees")
FEEDS = ("pipeline.gpg", "pipeline.pin", "pipeline.upstream.nvidia_feeds", "pipeline.upstream.release_feed")


@pytest.mark.parametrize("module", ["pipeline.commands.run", "pipeline.commands.status", "pipeline.commands.matrix", "dodo"])
def test_commands_start_without_what_only_builders_need(module: str) -> None:
    program = f"import sys, {module}, pipeline.registry; print(*(name for name in {HEAVY + FEEDS!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_tables_of_sources_are_read_without_what_reads_the_sources() -> None:
    read = "from pathlib import Path; from pipeline.workspace import Workspace; Workspace(Path.cwd()).wanted"
    program = f"import sys; {read}; print(*(name for name in {HEAVY + FEEDS!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_table_that_is_read_without_its_family_is_the_familys_own() -> None:
    for os, table in TABLES.items():
        assert families.family(os).policy is table
