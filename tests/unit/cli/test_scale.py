"""What thousands of pairs cost, counted: requests of the registry and calls of functions, which no slow machine changes.

Seconds are in docs/performance.md, with the benchmark that made them.
"""

from __future__ import annotations

import json
import os
import pstats
import subprocess
import sys
from pathlib import Path

import pytest

from bench.counting_proxy import PAGE, counting
from bench.made_up import checkout, fill
from tests import samples
from tests.documents import ROOT
from tests.registry_process import MISSING, installed, running_registry
from tests.small_project import SmallProject

pytestmark = pytest.mark.skipif(not installed(), reason=MISSING)


def noop(place: Path, pairs: int) -> tuple[int, int, int]:
    """A whole ``doit`` that finds ``pairs`` pairs done: function calls, requests, tags in the registry."""
    with running_registry(place / "registry") as registry:
        space = checkout(place / "checkout", pairs, registry)
        tags = fill(space, place / "registry/storage")
        with counting(registry) as proxy:
            kept = {k: v for k, v in os.environ.items() if not k.startswith(("DRIVER_", "DOCKER_"))}
            done = subprocess.run(
                [sys.executable, "-m", "cProfile", "-o", place / "profile", "-m", "pipeline"],
                cwd=space.root,
                env={**kept, "DRIVER_REGISTRY": proxy.address, "DOCKER_HOST": "unix:///nowhere/docker.sock"},
                capture_output=True,
                text=True,
                check=True,
            )
            assert f"{pairs} of {pairs} pairs built" in done.stderr
            calls: int = pstats.Stats(str(place / "profile")).total_calls  # type: ignore[attr-defined]
            return calls, len(proxy.seen), len(tags) + 2  # what every image stands on, and the index


def test_a_further_pair_costs_no_more_calls_among_many_than_among_few_and_a_page_of_tags_one_request(tmp_path: Path) -> None:
    found = {pairs: noop(tmp_path / str(pairs), pairs) for pairs in (400, 1000, 1600)}
    calls = [found[pairs][0] for pairs in found]
    assert (calls[2] - calls[1]) / (calls[1] - calls[0]) < 1.05
    for pairs, (_, requests, tags) in found.items():
        assert requests == -(-tags // PAGE) + 2, "each page of the list, the index's manifest and its configuration"
        assert requests <= 2 + 5 * pairs / 1000 + 1


def test_the_four_commands_for_any_other_ci_do_what_the_page_says(tmp_path: Path) -> None:
    text = (ROOT / "docs/ci.md").read_text().partition("## Anywhere else")[2].split("```")[1]
    lines = [line.partition("#")[0].strip() for line in text.strip().splitlines()]
    assert lines[0] == "./doit.sh update", "the only one that reads the upstreams"
    kernels = tuple(samples.kernel(f"6.1.0-{n}-cloud-amd64", f"6.1.{n}") for n in (40, 41))
    (tmp_path / "doit.sh").write_text(f'#!/bin/sh\nexec {sys.executable} -m bench.stand_in "$@"\n')
    (tmp_path / "doit.sh").chmod(0o755)
    with running_registry(tmp_path / "registry") as registry:
        project = SmallProject(tmp_path, samples.a_lock(kernels=kernels), registry=registry, DOCKER_HOST="unix:///nowhere")

        def shell(script: str, **environ: str) -> str:
            command = ["sh", "-eufc", script]
            told = {**project.environ, **environ}
            return subprocess.run(command, cwd=tmp_path, env=told, check=True, stdout=subprocess.PIPE, text=True).stdout

        jobs = json.loads(shell(lines[1]))["include"]
        assert len(jobs) == 2
        for job in jobs:
            shell(lines[2], select=job["select"])
        assert json.loads(shell(lines[1])) == {"include": [], "count": 0, "waiting": 0}
        shell(lines[3])
    assert "2 built" in (tmp_path / "build/page.html").read_text()
