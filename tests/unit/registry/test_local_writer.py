"""Who may write into the registry that doit.sh started, as the pipeline finds that out (pipeline/registry/local_writer.py)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.workspace import Workspace
from pipeline.core.errors import BadFileError, LoginError
from pipeline.registry.client import Registry
from pipeline.registry.credentials import Credentials
from pipeline.registry.local_writer import Writer, find
from tests import registry_process
from tests.registry_process import running_registry


@pytest.fixture(autouse=True)
def writer_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process by the name of docker-registry, whose number the records here have."""
    with subprocess.Popen(["docker-registry", "60"], executable=shutil.which("sleep")) as process:
        while not Path("/proc", str(process.pid), "cmdline").read_bytes():  # it has no arguments for a moment during execve
            assert process.poll() is None
        monkeypatch.setitem(LINES, "PID", str(process.pid))
        yield
        process.kill()


LINES = {"REGISTRY": "localhost:5000", "WRITER": "127.0.0.1:20001", "USER": "build", "PASSWORD": "se=cret", "PID": ""}


def record(folder: Path, **changed: str) -> Path:
    """A file as bootstrap/registry.sh writes it."""
    file = folder / "registry.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in (LINES | changed).items()))
    return file


@pytest.mark.parametrize("place", ["localhost:5000", "127.0.0.1:5000", "localhost:5000/acme"])
def test_the_writer_of_the_registry_that_is_meant(tmp_path: Path, place: str) -> None:
    found = find(place, record(tmp_path))
    assert found == Writer("127.0.0.1:20001", Credentials("build", "se=cret", str(tmp_path / "registry.env")))
    assert "se=cret" not in repr(found)


@pytest.mark.parametrize(
    "place", ["ghcr.io/acme", "localhost:5001", "localhost", "registry.example:5000", "localhost.example:5000", "[::1]:5000", ""]
)
def test_no_password_for_another_registry(tmp_path: Path, place: str) -> None:
    assert find(place, record(tmp_path)) is None


def test_without_a_record_there_is_no_writer(tmp_path: Path) -> None:
    assert find("localhost:5000", tmp_path / "registry.env") is None
    (tmp_path / "build").touch()
    assert find("localhost:5000", tmp_path / "build/registry.env") is None


OTHER = "of a program that is no registry"


@pytest.mark.parametrize("process", [OTHER, "999999999", "nonsense", "../proc/self", "1\0"])
def test_a_record_whose_process_is_gone_is_of_no_registry_that_runs(tmp_path: Path, process: str) -> None:
    assert find("localhost:5000", record(tmp_path, PID=process.replace(OTHER, str(os.getpid())))) is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"WRITER": ""}, "does not say WRITER"),
        ({"PASSWORD": ""}, "does not say PASSWORD"),
        ({"PID": ""}, "does not say PID"),
        ({"REGISTRY": ""}, "does not say REGISTRY"),
        ({"WRITER": "registry.example:443"}, "registry.example:443 is no port of this machine"),
        ({"WRITER": "127.0.0.1"}, "127.0.0.1 is no port"),
        ({"WRITER": "127.0.0.1:0"}, "127.0.0.1:0 is no port"),
        ({"WRITER": "127.0.0.1:99999"}, "127.0.0.1:99999 is no port"),
        ({"WRITER": "127.0.0.1:20001/x"}, "127.0.0.1:20001/x is no port"),
    ],
)
def test_a_damaged_record_is_one_line_that_says_what_to_do(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    with pytest.raises(BadFileError) as caught:
        find("localhost:5000", record(tmp_path, **changed))
    assert said in str(caught.value)
    assert str(caught.value).endswith("run ./doit.sh, which starts the registry anew")


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"nonsense"], ids=["empty", "bytes", "words"])
def test_a_record_that_is_none_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "registry.env").write_bytes(data)
    with pytest.raises(BadFileError, match=r"run \./doit\.sh"):
        find("localhost:5000", tmp_path / "registry.env")
    with pytest.raises(BadFileError, match="Is a directory"):
        find("localhost:5000", tmp_path)


def hashed(password: str) -> str:
    """bcrypt, as bootstrap/registry.sh makes it."""
    script = "chomp(my ($w, $s) = <STDIN>); print crypt($w, $s)"
    salted = f"{password}\n$2y$04${'a' * 21}u\n"
    return subprocess.run(["perl", "-e", script], input=salted, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(not registry_process.installed(), reason=registry_process.MISSING)
def test_what_is_written_goes_to_the_writer_with_its_login_and_what_is_read_does_not(tmp_path: Path) -> None:
    digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    with (
        running_registry(tmp_path / "reader") as reader,
        running_registry(tmp_path / "writer", htpasswd=f"build:{hashed('right')}\n") as address,
    ):
        registry = Registry(reader, writer=Writer(address, Credentials("build", "right", "registry.env")), environ={})
        assert registry.push_blob(b"{}", digest, 2)
        assert not registry.push_blob(b"{}", digest, 2), "it is looked for where it was sent"
        assert not registry.has_blob(digest), "these two share no storage"
        assert registry.reference("t") == f"{reader}/driver:t"
        assert registry.requests == 1 + 3 + 1 + 1, "one of them is the 401"

        other = Writer(address, Credentials("build", "wrong-word", "build/registry.env"))
        refused = Registry(reader, writer=other, environ={"DRIVER_REGISTRY_USER": "build", "DRIVER_REGISTRY_PASSWORD": "right"})
        with pytest.raises(LoginError) as caught:
            refused.push_blob(b"{}", digest, 2)
        assert "build/registry.env is not of the registry that runs now: run ./doit.sh again" in str(caught.value)
        assert "wrong-word" not in str(caught.value)
        assert str(caught.value).startswith(f"{reader}/driver: "), "the name that people know"


def test_a_workspace_takes_the_writer_of_its_own_registry_alone(tmp_path: Path) -> None:
    (tmp_path / "versions.toml").write_text('[settings]\nregistry = "localhost:5000"\n')
    (tmp_path / "build").mkdir()
    record(tmp_path / "build", WRITER="nowhere.example:1")
    with pytest.raises(BadFileError, match="is no port of this machine"):
        _ = Workspace(tmp_path, {}).registry
    assert Workspace(tmp_path, {"DRIVER_REGISTRY": "ghcr.io/acme"}).registry.host == "ghcr.io"
