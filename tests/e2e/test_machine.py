"""doit.sh on a copy of the checkout: what it starts, what it leaves alone, what it says when it cannot.

The copy has a task graph of one line: what doit does is not the point here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from ruamel.yaml import YAML

from pipeline.cli.workspace import Workspace
from pipeline.registry.client import MANIFEST_TYPES
from tests.registry_process import running_registry

ROOT = Path(__file__).parents[2]
NAMES = ("doit.sh", "bootstrap", "pipeline", "pyproject.toml", "requirements.txt", "LICENSE")
SYSTEM_SOCKET = Path("/var/run/docker.sock")
DODO = 'def task_hello():\n    return {"actions": ["echo hello"], "verbosity": 2}\n'
HERE = {k: v for k, v in os.environ.items() if k not in {"DOCKER_HOST", "DRIVER_REGISTRY", "PYTHONPATH", "VIRTUAL_ENV"}}
RUNNING = ["containerd", "docker-registry", "docker-registry", "dockerd"]
REAL = ("dodo.py", "pyproject.toml", "versions.toml", "versions.lock", "compat.toml", "dockerfiles")
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

    @contextlib.contextmanager
    def real_tasks(self) -> Iterator[None]:
        """The project's own task graph and commands for the time of the block."""
        with tempfile.TemporaryDirectory(dir=self.root) as kept:
            for name in REAL:
                if (self.root / name).exists():
                    shutil.move(self.root / name, kept)
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
                copy(ROOT / name, self.root / name)
            try:
                yield
            finally:
                for name in REAL:
                    subprocess.run(["rm", "-r", str(self.root / name)], check=True)
                for path in Path(kept).iterdir():
                    shutil.move(path, self.root)

    @property
    def writer(self) -> dict[str, str]:
        """What build/registry.env says: REGISTRY, WRITER, USER, PASSWORD."""
        return dict(line.split("=", 1) for line in (self.root / "build/registry.env").read_text().splitlines())

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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stauts"], "'stauts' is neither a command nor a task: did you mean 'status'? './doit.sh help' names the commands"),
        (["tset", "--full"], "'tset' is neither a command nor a task: did you mean 'test'? './doit.sh help' names the commands"),
        (["nothing like it"], "'nothing like it' is neither a command nor a task: './doit.sh help' names the commands"),
        (["down", "--prune"], "down takes --purge or nothing"),
    ],
)
def test_a_word_that_nobody_knows_is_answered_by_the_shell(tmp_path: Path, words: list[str], said: str) -> None:
    bare = Checkout(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with bare.real_tasks():
        status, out, err = bare.doit(*words)
    assert (status, out, err) == (3, "", f"doit.sh: {said}\n")
    assert sorted(tmp_path.rglob("*")) == before, "nothing was made"


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["down", "--help"]], ids=" ".join)
def test_help_needs_nothing_at_all(tmp_path: Path, words: list[str]) -> None:
    bare = Checkout(tmp_path)
    status, out, err = bare.doit(*words)
    assert (status, err) == (0, "")
    assert "./doit.sh test [WORD ...]" in out
    assert "Commands: " in out
    assert not (tmp_path / ".venv").exists()
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["image:*9.9*"], "'image:*9.9*' matches no pair of the lock: 'doit list --all' names them"),
        (["run", "driver:9*"], "'driver:9*' matches no task: 'doit list --all' names them"),
        (["--jsn"], "option --jsn not recognized: did you mean '--json'? see 'doit help run'"),
        (["--json", "status"], "'status' is a command, not a task: a command comes first, its options behind it"),
        (["image", "--json"], "option --json stands behind a word: options come first"),
        (["status", "--jsno"], "option --jsno not recognized: did you mean '--json'? see 'doit help status'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_words_that_mean_nothing_are_answered_before_anything_is_started(checkout: Checkout, words: list[str], said: str) -> None:
    with checkout.real_tasks(), socket.create_server(("127.0.0.1", 0)) as taken:
        wishes = checkout.root / "versions.toml"
        wishes.write_text(f'[settings]\nregistry = "localhost:{taken.getsockname()[1]}"\n{wishes.read_text()}')
        status, out, err = checkout.doit(*words)
    made = "doit.sh: making the Python environment .venv from requirements.txt\n"
    assert (status, out, err.removeprefix(made)) == (3, "", f"doit: {said}\n")
    assert checkout.processes() == {}
    assert not (checkout.root / "build/registry").exists()


def test_help_of_a_command_or_of_tests_starts_nothing(checkout: Checkout) -> None:
    with checkout.real_tasks():
        for words, shown in ((["run", "--help"], "--retry-failed"), (["image", "-h"], ""), (["test", "--help"], "usage: ")):
            status, out, err = checkout.doit(*words)
            assert (status, err.count("\n") > 1, shown in out) == (0, False, True), (words, err)
    assert checkout.processes() == {}


def test_a_folder_that_cannot_be_written_to_or_a_full_disk_is_one_line(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], check=True)
    try:
        bare = Checkout(disk)
        remount = ["mount", "-o", "remount,ro", str(disk)]
        (disk / "build").mkdir()
        (disk / "build/machine.lock").touch()
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"\0" * 4096)
        for words in (["hello"], ["list"], ["down"]):
            status, _, err = bare.doit(*words)
            said = f"doit.sh: {disk}/build: No space left on device: mend its rights, or free some space on its disk\n"
            assert (status, err) == (2, said)
        subprocess.run(remount, check=True)
        for words in (["hello"], ["list"], ["down"]):
            status, _, err = bare.doit(*words)
            assert (status, "Read-only file system" in one_line(err)) == (2, True)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_command_that_builds_nothing_needs_neither_engine_nor_registry(checkout: Checkout) -> None:
    status, out, err = checkout.doit("list", DOCKER_HOST="unix:///nowhere")
    assert (status, out) == (0, "hello   \n"), err
    assert checkout.processes() == {}


def test_two_runs_at_once_start_one_engine_and_one_registry_and_both_answer(checkout: Checkout, tmp_path: Path) -> None:
    runs = [checkout.start("hello"), checkout.start("hello")]
    said = [run.communicate(timeout=300)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert sorted(checkout.processes().values()) == RUNNING
    version = subprocess.run(
        ["docker", "version", "--format", "{{.Server.APIVersion}}"],
        env=HERE | {"DOCKER_HOST": checkout.engine_address},
        check=True,
        capture_output=True,
        text=True,
    )
    assert version.stdout.strip() >= "1.41"
    image, pushed = (f"{place}/nothing:1" for place in (f"localhost:{checkout.port}", checkout.writer["WRITER"]))
    client = ["docker", "--config", str(tmp_path), "--host", checkout.engine_address]
    subprocess.run([*client, "import", "-", pushed], check=True, input=b"\0" * 1024, capture_output=True)
    assert subprocess.run([*client, "push", pushed], check=False, capture_output=True).returncode, "without a login"
    login = [*client, "login", "--username", checkout.writer["USER"], "--password-stdin", checkout.writer["WRITER"]]
    subprocess.run(login, check=True, input=checkout.writer["PASSWORD"].encode(), capture_output=True)
    subprocess.run([*client, "push", pushed], check=True, capture_output=True)
    subprocess.run([*client, "image", "rm", pushed], check=True, capture_output=True)
    subprocess.run([*client, "pull", image], check=True, capture_output=True)
    subprocess.run(["skopeo", "inspect", "--tls-verify=false", f"docker://{image}"], check=True, capture_output=True)


def test_a_second_run_says_nothing_and_starts_nothing_anew(running: Checkout) -> None:
    before = running.processes()
    environment = (running.root / ".venv/pyvenv.cfg").stat().st_ino
    status, _, err = running.doit("hello")
    assert (status, err) == (0, "")
    assert running.processes() == before
    assert (running.root / ".venv/pyvenv.cfg").stat().st_ino == environment


def test_everybody_reads_the_registry_and_the_run_alone_writes_into_it(running: Checkout) -> None:
    reader, writer = f"http://localhost:{running.port}/v2/", f"http://{running.writer['WRITER']}/v2/"
    login = (running.writer["USER"], running.writer["PASSWORD"])
    config = b"{}"
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    assert requests.get(reader, timeout=10).status_code == 200
    for verb, place in (
        ("POST", "blobs/uploads/"),
        ("PUT", "manifests/t"),
        ("DELETE", f"manifests/{digest}"),
        ("DELETE", f"blobs/{digest}"),
    ):
        assert requests.request(verb, f"{reader}driver/{place}", timeout=10).status_code == 405, (verb, place)
        assert requests.request(verb, f"{reader}driver/{place}", auth=login, timeout=10).status_code == 405, (verb, place)
        assert requests.request(verb, f"{writer}driver/{place}", timeout=10).status_code == 401, (verb, place)
    begun = requests.post(f"{writer}driver/blobs/uploads/", auth=login, timeout=10).headers["Location"]
    for verb in ("PATCH", "PUT", "DELETE"):
        place = begun.replace(running.writer["WRITER"], f"localhost:{running.port}")
        assert requests.request(verb, place, data=config, timeout=10).status_code in {400, 404, 405}, verb
    assert requests.get(writer, timeout=10).status_code == 401
    assert requests.get(writer, auth=(login[0], "guessed"), timeout=10).status_code == 401

    registry = Workspace(running.root, {}).registry
    assert registry.push_blob(config, digest, len(config))
    assert not registry.push_blob(config, digest, len(config)), "the reader has it at once"
    assert registry.blob(digest) == config
    manifest = (
        f'{{"schemaVersion":2,"mediaType":"{MANIFEST_TYPES[0]}","layers":[],'
        f'"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"{digest}"}}}}'
    ).encode()
    pushed = registry.push_manifest(manifest, MANIFEST_TYPES[0], ["one", "two"])
    assert registry.reference("one") == f"localhost:{running.port}/driver:one"
    pulled = requests.get(f"{reader}driver/manifests/one", headers={"Accept": MANIFEST_TYPES[0]}, timeout=10)
    assert (pulled.status_code, pulled.content) == (200, manifest)
    assert sorted(registry.tags()) == ["one", "two"]
    registry.delete(pushed)
    assert registry.digest("one") is None
    assert registry.tags() == []


def test_another_user_reads_no_password_and_is_told_why_he_cannot_push(running: Checkout) -> None:
    for name in ("registry.env", "registry/htpasswd"):
        place = running.root / "build" / name
        assert place.stat().st_mode & 0o077 == 0, place
        assert subprocess.run([*NOBODY, "cat", str(place)], check=False, capture_output=True).returncode, place
    said = running.writer["PASSWORD"].encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert said not in path.read_bytes(), path
    push = (
        "from pathlib import Path; from pipeline.core.errors import LoginError; from pipeline.cli.workspace import Workspace\n"
        f"registry = Workspace(Path({str(running.root)!r}), {{}}).registry\nprint(registry.tags())\n"
        "try: registry.push_blob(b'{}', 'sha256:' + '0' * 64, 2)\nexcept LoginError as error: print(error)"
    )
    done = subprocess.run(
        [*NOBODY, str(running.root / ".venv/bin/python"), "-c", push], check=True, capture_output=True, text=True, cwd="/"
    )
    tags, said_of_it = done.stdout.splitlines()
    assert tags == "[]"
    assert "405" in said_of_it
    assert (
        "it is for reading alone; where this checkout's ./doit.sh started it, run ./doit.sh again, as the user who did"
        in said_of_it
    )


def test_each_start_makes_another_password_at_the_same_port(running: Checkout) -> None:
    before = running.writer
    for number in (9, 15):
        assert Workspace(running.root, {}).registry.tags() == []
        pid = next(pid for pid, program in running.processes().items() if program == "docker-registry")
        os.kill(pid, number)
        status, _, err = running.doit("hello")
        assert (status, one_line(err)) == (0, f"doit.sh: starting a registry at localhost:{running.port}\n")
        assert sorted(running.processes().values()) == RUNNING
        assert running.writer["WRITER"] == before["WRITER"]
        assert running.writer["PASSWORD"] != before["PASSWORD"]


def test_a_writer_whose_port_is_taken_gets_another(running: Checkout) -> None:
    before = running.writer
    assert running.doit("down")[0] == 0
    assert not (running.root / "build/registry.env").exists()
    with socket.create_server(("127.0.0.1", int(before["WRITER"].partition(":")[2]))):
        assert running.doit("hello")[0] == 0
        assert running.writer["WRITER"] != before["WRITER"]
        assert requests.get(f"http://{running.writer['WRITER']}/v2/", timeout=10).status_code == 401


@pytest.mark.parametrize("text", ["", "REGISTRY=localhost:1\n", "nonsense\0\n"], ids=["empty", "another's", "nonsense"])
def test_a_damaged_record_of_the_writer_is_made_anew(running: Checkout, text: str) -> None:
    (running.root / "build/registry.env").write_text(text)
    status, _, err = running.doit("hello")
    assert (status, one_line(err)) == (0, f"doit.sh: starting a registry at localhost:{running.port}\n")
    assert requests.get(f"http://{running.writer['WRITER']}/v2/", timeout=10).status_code == 401


def test_a_registry_that_an_older_checkout_started_is_replaced(running: Checkout) -> None:
    assert running.doit("down")[0] == 0
    data = running.root / "build/registry"
    config = data / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{data}/data'}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{running.port}'}}\n"
    )
    with subprocess.Popen(["docker-registry", "serve", str(config)], stderr=subprocess.DEVNULL) as older:
        (data / "pid").write_text(f"{older.pid}\n")
        status, _, err = running.doit("hello")
        assert older.wait(10) is not None
    assert status == 0, err
    push = requests.post(f"http://localhost:{running.port}/v2/driver/blobs/uploads/", timeout=10)
    assert push.status_code == 405


def test_no_daemon_has_a_password_or_a_key_in_its_environment(checkout: Checkout) -> None:
    names = ("DRIVER_KEY_PASSWORD", "DRIVER_SIGNING_KEY", "DRIVER_REGISTRY_PASSWORD", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY")
    environ: dict[str, Any] = dict.fromkeys(names, "a-secret")
    environ |= {"HTTPS_PROXY": "http://me:pw@127.0.0.1:9", "REGISTRY_HTTP_ADDR": "0.0.0.0:1"}
    try:
        status, _, err = checkout.doit("hello", **environ)
        assert status == 0, err
        daemons = checkout.processes()
        assert sorted(daemons.values()) == RUNNING
        for pid, program in daemons.items():
            told = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            found = {variable.partition(b"=")[0].decode() for variable in told if variable}
            assert not any(b"a-secret" in variable for variable in told), program
            wanted = {"PATH", "HOME", "LANG", "TMPDIR", "SHLVL", "PWD", "OLDPWD", "_"}
            if program == "dockerd":
                assert b"HTTPS_PROXY=http://me:pw@127.0.0.1:9" in told
                wanted |= {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"}
                wanted |= {"SSL_CERT_FILE", "SSL_CERT_DIR"}
            assert found <= wanted, program
    finally:
        checkout.doit("down")


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
    assert sorted(running.processes().values()) == RUNNING


def test_down_ends_daemons_whose_pid_files_are_gone(running: Checkout) -> None:
    """They hold the engine's data: the next one would wait for it until it gives up."""
    for name in ("docker.pid", "containerd.pid"):
        (Path(running.run_folder) / name).unlink()
    assert running.doit("down") == (0, "", "")
    assert running.processes() == {}


def test_a_named_engine_and_a_named_registry_are_left_to_whoever_runs_them(running: Checkout) -> None:
    address = running.engine_address
    for pid in [pid for pid, program in running.processes().items() if program == "docker-registry"]:
        os.kill(pid, 15)
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
    words = '. "$1/bootstrap/registry.sh"; writer_config 5000; printf %s "$config"'
    environ = {**os.environ, "ROOT": "/srv/it's a clone"}
    made = subprocess.run(["bash", "-c", words, "-", ROOT], check=True, capture_output=True, text=True, env=environ).stdout
    config = YAML(typ="safe").load(made)
    assert config["storage"]["filesystem"]["rootdirectory"] == "/srv/it's a clone/build/registry/data"
    assert config["auth"]["htpasswd"]["path"] == "/srv/it's a clone/build/registry/htpasswd"
