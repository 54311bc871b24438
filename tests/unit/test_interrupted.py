"""Ctrl-C is one line on stderr and exit status 130, wherever the program waits."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOIT = Path(sys.executable).with_name("doit")


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["matrix"], ["prune"], ["run", "image"]], ids=" ".join)
def test_ctrl_c_while_a_registry_keeps_us_waiting(words: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        place = f"localhost:{silent.getsockname()[1]}"
        environ = {**os.environ, "DRIVER_REGISTRY": place, "DOCKER_HOST": "unix:///nonexistent/engine.sock"}
        running = subprocess.Popen(
            [DOIT, *words], cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        asked, _ = silent.accept()
        with asked:
            assert asked.recv(1)
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    assert err == f"doit: {words[0]} was interrupted: run it again, what was finished is kept\n"
