"""bootstrap/probe.py: what doit.sh believes about the machine before it starts anything."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from bootstrap import probe


class Engine(BaseHTTPRequestHandler):
    """Answers /_ping as an engine does, everything else with 404."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/_ping" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        return "a socket"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[str]:
    """The address of something that answers like an engine."""
    path = tmp_path / "docker.sock"
    with socketserver.UnixStreamServer(str(path), Engine) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"unix://{path}"
        server.shutdown()
        thread.join()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(autouse=True)
def no_system_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(probe, "SYSTEM_SOCKET", tmp_path / "system.sock")


def found(root: Path, **environ: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in probe.main(root, environ).splitlines())


def test_an_engine_that_answers_a_ping_has_no_problem(engine: str) -> None:
    assert probe.ask_engine(engine) == ""


@pytest.mark.parametrize(
    "host", ["unix:///nowhere", "tcp://127.0.0.1:99999", "npipe:////./pipe/docker_engine", "docker", "tcp://[::1", ""]
)
def test_an_address_where_no_engine_can_be_has_a_problem(host: str) -> None:
    assert probe.ask_engine(host)


def test_a_port_that_nobody_listens_on_is_no_engine(free_port: int) -> None:
    assert "refused" in probe.ask_engine(f"tcp://127.0.0.1:{free_port}")


def test_an_ssh_address_is_left_to_the_client_that_speaks_it() -> None:
    assert probe.ask_engine("ssh://builder") == ""


def test_docker_host_is_taken_at_its_word_even_where_another_engine_answers(tmp_path: Path, engine: str) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build/engine.env").write_text(f"DOCKER_HOST={engine}\n")
    told = found(tmp_path, DOCKER_HOST="unix:///nowhere")
    assert (told["engine"], told["engine_from"]) == ("unix:///nowhere", "DOCKER_HOST")
    assert told["engine_problem"]


def test_the_engine_that_doit_sh_started_comes_next(tmp_path: Path, engine: str) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build/engine.env").write_text(f"DOCKER_HOST={engine}\n")
    told = found(tmp_path)
    assert (told["engine"], told["engine_from"], told["engine_problem"]) == (engine, "private", "")


def test_the_machine_s_own_engine_comes_last(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SYSTEM_SOCKET", Path(engine.removeprefix("unix://")))
    (tmp_path / "build").mkdir()
    (tmp_path / "build/engine.env").write_text("DOCKER_HOST=unix:///run/gone.sock\n")
    assert (found(tmp_path)["engine"], found(tmp_path)["engine_from"]) == (engine, "system")


def test_with_no_engine_at_all_there_is_no_address(tmp_path: Path) -> None:
    assert (found(tmp_path)["engine"], found(tmp_path)["engine_problem"]) == ("", "there is none")


@pytest.mark.parametrize(
    ("wishes", "environ", "port"),
    [
        ("", {}, "5000"),
        ('[settings]\nregistry = "localhost:5999"\n', {}, "5999"),
        ('[settings]\nregistry = "ghcr.io/acme"\n', {}, ""),
        ('[settings]\nregistry = "localhost:5999/acme"\n', {}, ""),
        ("", {"DRIVER_REGISTRY": "localhost:5000"}, ""),
        ("not toml", {}, "5000"),
        ("settings = 1", {}, "5000"),
    ],
)
def test_a_registry_is_wanted_on_loopback_unless_another_is_named(
    tmp_path: Path, wishes: str, environ: dict[str, str], port: str
) -> None:
    (tmp_path / "versions.toml").write_text(wishes)
    assert found(tmp_path, **environ)["registry_port"] == port


def test_a_port_that_somebody_listens_on_is_told(tmp_path: Path, free_port: int) -> None:
    (tmp_path / "versions.toml").write_text(f'[settings]\nregistry = "localhost:{free_port}"\n')
    assert found(tmp_path)["registry_answers"] == ""
    with socket.create_server(("127.0.0.1", free_port)):
        assert found(tmp_path)["registry_answers"] == "yes"
