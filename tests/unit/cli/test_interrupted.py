"""Ctrl-C is one line on stderr and exit status 130, wherever the program waits."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import samples
from tests.small_project import SmallProject

ROOT = Path(__file__).parents[3]
DOIT = Path(sys.executable).with_name("doit")


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["matrix"], ["prune"], ["run", "image"]], ids=" ".join)
def test_ctrl_c_while_a_registry_keeps_us_waiting(words: list[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        place = f"localhost:{silent.getsockname()[1]}"
        project = SmallProject(tmp_path, samples.a_lock(), registry=place, DOCKER_HOST="unix:///nonexistent/engine.sock")
        running = subprocess.Popen(
            [DOIT, *words], cwd=project.root, env=project.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        asked, _ = silent.accept()
        with asked:
            assert asked.recv(1)
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    assert err == f"doit: {words[0]} was interrupted: run it again, what was finished is kept\n"


@pytest.mark.parametrize(
    ("sent", "status", "how"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by a signal")]
)
def test_a_signal_while_upstreams_keep_an_update_waiting(sent: signal.Signals, status: int, how: str, tmp_path: Path) -> None:
    wishes = "[flatcar]\nkeep = 1\n\n[fedora-coreos]\nkeep = 1\n"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        place = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        mirrors = tmp_path / "mirrors.toml"
        mirrors.write_text(
            f'[mirrors]\n"https://www.flatcar.org/" = "{place}"\n"https://builds.coreos.fedoraproject.org/" = "{place}"\n'
        )
        project = SmallProject(tmp_path / "project", samples.a_lock(), wishes, DRIVER_MIRRORS=str(mirrors))
        before = (project.root / "versions.lock").read_bytes()
        running = subprocess.Popen(
            [DOIT, "update"], cwd=project.root, env=project.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        asked, _ = silent.accept()
        with asked:
            assert asked.recv(1)
            running.send_signal(sent)
            out, err = running.communicate(timeout=20)  # a silent server alone would keep it for minutes
    assert (running.returncode, out) == (status, "")
    assert err == f"doit: update was {how}: run it again, what was finished is kept\n"
    assert list((project.root / "build").glob(".update.*")) == []
    assert (project.root / "versions.lock").read_bytes() == before


@pytest.mark.parametrize("part", ["jinja2", "msgspec", "doit.doit_cmd", "requests"])
def test_a_package_that_is_gone_from_the_environment_is_one_line(part: str) -> None:
    code = f"import sys; sys.modules[{part!r}] = None; from pipeline.cli.program import main; sys.exit(main(['status']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith(f"doit: the Python environment {sys.prefix} is damaged (import of {part} halted")
    assert done.stderr.endswith(": delete it and run ./doit.sh, which makes it anew\n")


@pytest.mark.parametrize("part", ["jinja2", "msgspec", "doit.doit_cmd", "pipeline.cli.commands.base", "tomllib"])
def test_ctrl_c_while_the_program_itself_still_loads(part: str) -> None:
    code = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {part!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from pipeline.cli.program import main\n"
        "sys.exit(main(['status']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "doit: interrupted: run it again, what was finished is kept\n"
