"""Whoever waits for a registry is told what for, and ``doit status`` does not wait long: it has what was known last."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests import samples
from tests.registry_process import MISSING, installed, running_registry
from tests.small_project import DOIT, SmallProject
from tests.told_server import Told, in_turn, says

WAITS = "doit: waiting for {} to list the tags of driver\n"


def test_status_shows_what_is_known_where_a_registry_takes_the_question_and_never_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        project = SmallProject(tmp_path, samples.a_lock(), registry=place)
        began = time.monotonic()
        done = project.doit("status", "--json")
        assert time.monotonic() - began < 60, "about nine seconds, and what a slow machine adds"
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["source"] == "cache"
    first, second = done.stderr.splitlines(keepends=True)
    assert first == WAITS.format(place)
    assert second.endswith("; showing what was known last\n")


@pytest.mark.skipif(not installed(), reason=MISSING)
def test_what_was_known_last_is_of_the_registry_that_is_asked_and_of_no_other(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as address:
        project = SmallProject(tmp_path / "project", samples.a_lock(), registry=address)
        assert project.doit("status", "--publish").returncode == 0
    with socket.create_server(("127.0.0.1", 0)) as closed:
        other = f"127.0.0.1:{closed.getsockname()[1]}"
    serials = {}
    for registry in (address, other):
        done = project.doit("status", "--json", DRIVER_REGISTRY=registry)
        assert f"{registry}" in done.stderr
        serials[registry] = json.loads(done.stdout)["serial"]
    assert serials == {address: 1, other: 0}


def test_status_does_not_wait_as_long_as_a_registry_asks_for(tmp_path: Path) -> None:
    with Told(in_turn(says(429, b"", Retry_After="86400"))) as server:
        began = time.monotonic()
        done = SmallProject(tmp_path, samples.a_lock(), registry=server.place).doit("status", "--json")
        assert time.monotonic() - began < 60
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["source"] == "cache"
    assert "429" in done.stderr


def test_a_matrix_says_what_it_waits_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        project = SmallProject(tmp_path, samples.a_lock(), registry=place)
        with subprocess.Popen(
            [DOIT, "matrix"], cwd=project.root, env=project.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as running:
            assert running.stderr is not None
            assert running.stderr.readline() == WAITS.format(place)
            running.kill()
