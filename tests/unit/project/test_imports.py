"""A run that finds everything done pays for no library of those that build."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.config.source_policy import TABLES
from pipeline.update import families

HEAVY = (
    "docker",
    "elftools",
    "tarfile",
    "pipeline.build.pair",
    "pipeline.engine.client",
    "pipeline.fetch.fetcher",
    "pipeline.trees.tars",
)
FEEDS = (
    "pipeline.formats.openpgp",
    "pipeline.update.pinning.pin",
    "pipeline.upstream.nvidia.feeds",
    "pipeline.upstream.coreos.release_feed",
)


@pytest.mark.parametrize(
    "module", ["pipeline.cli.commands.run", "pipeline.cli.commands.status", "pipeline.cli.commands.matrix", "dodo"]
)
def test_commands_start_without_what_only_builders_need(module: str) -> None:
    program = (
        f"import sys, {module}, pipeline.registry.client; print(*(name for name in {HEAVY + FEEDS!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_tables_of_sources_are_read_without_what_reads_the_sources() -> None:
    read = "from pathlib import Path; from pipeline.cli.workspace import Workspace; Workspace(Path.cwd()).wanted"
    program = f"import sys; {read}; print(*(name for name in {HEAVY + FEEDS!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_table_that_is_read_without_its_family_is_the_familys_own() -> None:
    for os, table in TABLES.items():
        assert families.family(os).policy is table
