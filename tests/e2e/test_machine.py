"""doit.sh on a copy of the checkout: what it starts, what it leaves alone, what it says when it cannot.

The copy has a task graph of one line: what doit does is not the point here.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.registry_process import running_registry

ROOT = Path(__file__).parents[2]
NAMES = ("doit.sh", "machine", "pipeline", "pyproject.toml", "requirements.txt", "LICENSE")
SYSTEM_SOCKET = Path("/var/run/docker.sock")
DODO = 'def task_hello():\n    return {"actions": ["echo hello"], "verbosity": 2}\n'
HERE = {k: v for k, v in os.environ.items() if k not in {"DOCKER_HOST", "DRIVER_REGISTRY", "PYTHONPATH", "VIRTUAL_ENV"}}
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")

pytestmark = [
    pytest.mark.area("thread"),
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a container engine"),
    pytest.mark.skipif(SYSTEM_SOCKET.exists(), reason=f"this machine has an engine at {SYSTEM_SOCKET}, which doit.sh uses"),
]


class Checkout:
    """A copy of this checkout, with a registry port of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in NAMES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, root / name)
        project = root / "pyproject.toml"
        project.write_text(re.sub(r"(?ms)^\[tool\.doit\.plugins\.command\].*?^(?=\[)", "", project.read_text()))
        (root / "dodo.py").write_text(DODO)
        self.port = free_port()
        (root / "versions.toml").write_text(f'[settings]\nregistry = "localhost:{self.port}"\n')

    def start(self, *words: str, as_user: tuple[str, ...] = (), **environ: str) -> subprocess.Popen[str]:
        command = [*as_user, str(self.root / "doit.sh"), *words]
        piped = subprocess.PIPE
        return subprocess.Popen(
            command, env=HERE | environ, cwd="/", stdin=subprocess.DEVNULL, stdout=piped, stderr=piped, text=True
        )

    def doit(self, *words: str, as_user: tuple[str, ...] = (), **environ: str) -> tuple[int, str, str]:
        """(exit status, stdout, stderr) of ``doit.sh``, called from another folder."""
        with self.start(*words, as_user=as_user, **environ) as process:
            out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def processes(self) -> dict[int, str]:
        """Everything that runs for this copy: pid and program."""
        found = {}
        names = (str(self.root).encode(), self.run_folder.encode())
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if any(name in word for word in words for name in names):
                found[int(path.parent.name)] = os.path.basename(words[0].decode())  # noqa: PTH119
        return found

    @property
    def engine_address(self) -> str:
        return (self.root / "build/engine.env").read_text().strip().removeprefix("DOCKER_HOST=")

    @property
    def run_folder(self) -> str:
        try:
            return str(Path(self.engine_address.removeprefix("unix://")).parent)
        except FileNotFoundError:
            return "no engine has been started"


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    """One for all: making its Python environment is most of the seconds here."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        copy = Checkout(Path(folder))
        try:
            yield copy
        finally:
            copy.doit("down", "--purge")


@pytest.fixture
def running(checkout: Checkout) -> Iterator[Checkout]:
    """The copy with engine and registry running."""
    status, out, err = checkout.doit("hello")
    assert (status, out) == (0, ".  hello\nhello\n"), err
    yield checkout
    assert checkout.doit("down")[0] == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def one_line(err: str) -> str:
    """The only line that doit.sh said."""
    assert err.startswith("doit.sh: "), err
    assert err.count("\n") == 1, err
    return err


def test_a_command_that_builds_nothing_needs_neither_engine_nor_registry(checkout: Checkout) -> None:
    status, out, err = checkout.doit("list", DOCKER_HOST="unix:///nowhere")
    assert (status, out) == (0, "hello   \n"), err
    assert checkout.processes() == {}


def test_two_runs_at_once_start_one_engine_and_one_registry_and_both_answer(checkout: Checkout) -> None:
    runs = [checkout.start("hello"), checkout.start("hello")]
    said = [run.communicate(timeout=300)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert sorted(checkout.processes().values()) == ["containerd", "docker-registry", "dockerd"]
    version = subprocess.run(
        ["docker", "version", "--format", "{{.Server.APIVersion}}"],
        env=HERE | {"DOCKER_HOST": checkout.engine_address},
        check=True,
        capture_output=True,
        text=True,
    )
    assert version.stdout.strip() >= "1.41"
    image = f"localhost:{checkout.port}/nothing:1"
    client = ["docker", "--host", checkout.engine_address]
    subprocess.run([*client, "import", "-", image], check=True, input=b"\0" * 1024, capture_output=True)
    subprocess.run([*client, "push", image], check=True, capture_output=True)
    subprocess.run([*client, "image", "rm", image], check=True, capture_output=True)
    subprocess.run([*client, "pull", image], check=True, capture_output=True)


def test_a_second_run_says_nothing_and_starts_nothing_anew(running: Checkout) -> None:
    before = running.processes()
    environment = (running.root / ".venv/pyvenv.cfg").stat().st_ino
    status, _, err = running.doit("hello")
    assert (status, err) == (0, "")
    assert running.processes() == before
    assert (running.root / ".venv/pyvenv.cfg").stat().st_ino == environment


def test_down_stops_what_this_checkout_started_and_nothing_else(running: Checkout, tmp_path: Path) -> None:
    folder = running.run_folder
    with running_registry(tmp_path) as other:
        assert running.doit("down") == (0, "", "")
        assert running.processes() == {}
        socket.create_connection((other.split(":")[0], int(other.split(":")[1])), 5).close()
    assert not Path(folder).exists()
    assert not (running.root / "build/engine.env").exists()
    assert str(running.root) not in Path("/proc/self/mountinfo").read_text()
    assert (running.root / "build/engine/data").is_dir(), "data stays"
    assert running.doit("down") == (0, "", ""), "once more does no harm"


def test_after_the_engine_was_killed_down_cleans_up_and_a_run_starts_another(running: Checkout) -> None:
    engine = next(pid for pid, program in running.processes().items() if program == "dockerd")
    os.kill(engine, 9)
    status, _, err = running.doit("hello")
    assert (status, one_line(err)) == (0, f"doit.sh: starting a private container engine at {running.engine_address}\n")
    assert sorted(running.processes().values()) == ["containerd", "docker-registry", "dockerd"]


def test_a_named_engine_and_a_named_registry_are_left_to_whoever_runs_them(running: Checkout) -> None:
    address = running.engine_address
    os.kill(next(pid for pid, program in running.processes().items() if program == "docker-registry"), 15)
    status, _, err = running.doit("hello", DOCKER_HOST=address, DRIVER_REGISTRY="registry.example/acme")
    assert (status, err) == (0, "")
    assert "docker-registry" not in running.processes().values()


def test_a_named_engine_that_does_not_answer_is_an_error(checkout: Checkout) -> None:
    status, _, err = checkout.doit("hello", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert status == 2
    assert "no container engine answers at unix:///nowhere/docker.sock" in one_line(err)


def test_a_taken_port_is_an_error_that_says_what_to_do(checkout: Checkout) -> None:
    with socket.create_server(("127.0.0.1", checkout.port)):
        status, _, err = checkout.doit("hello")
    assert status == 2
    assert f"port {checkout.port} is taken" in one_line(err)
    assert "set DRIVER_REGISTRY" in err
    assert checkout.processes() == {}


def test_without_root_and_without_an_engine_it_says_so_and_changes_nothing(checkout: Checkout) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        copy = Checkout(Path(folder))
        subprocess.run(["chown", "-R", "65534:65534", folder], check=True)
        status, _, err = copy.doit("hello", as_user=NOBODY, HOME=folder, PATH="/usr/bin:/bin")
        assert status == 2
        assert "root is needed to start a container engine" in one_line(err)
        assert not (copy.root / ".venv").exists()


def test_the_environment_is_made_anew_when_the_requirements_change(checkout: Checkout) -> None:
    before = (checkout.root / ".venv/made-from").read_text()
    with (checkout.root / "requirements.txt").open("a") as stream:
        stream.write("# changed\n")
    status, out, err = checkout.doit("list")
    assert (status, out) == (0, "hello   \n"), err
    assert one_line(err) == "doit.sh: making the Python environment .venv from requirements.txt\n"
    assert (checkout.root / ".venv/made-from").read_text() != before


@pytest.mark.parametrize("words", [("down", "--all"), ("down", "everything")])
def test_down_with_another_word_is_wrong_use(checkout: Checkout, words: tuple[str, ...]) -> None:
    status, _, err = checkout.doit(*words)
    assert status == 3
    assert one_line(err) == "doit.sh: down takes --purge or nothing\n"


def test_a_checkout_in_a_folder_with_an_apostrophe_has_a_registry_all_the_same() -> None:
    words = '. "$1/machine/registry.sh"; registry_config 5000'
    environ = {**os.environ, "ROOT": "/srv/it's a clone"}
    made = subprocess.run(["bash", "-c", words, "-", ROOT], check=True, capture_output=True, text=True, env=environ).stdout
    assert YAML(typ="safe").load(made)["storage"]["filesystem"]["rootdirectory"] == "/srv/it's a clone/build/registry/data"
