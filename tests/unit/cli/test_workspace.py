"""One checkout: one run at a time, and nothing is opened before it is used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.workspace import Busy, Workspace
from pipeline.core.errors import BadFileError, DiskError, UsageError
from tests import samples
from tests.misbehaving_server import MisbehavingServer, file
from tests.small_project import SmallProject

ROOT = Path(__file__).parents[3]
HOLD = """
import sys
from pathlib import Path
from pipeline.cli.workspace import Workspace
with Workspace(Path(sys.argv[1]), {}).alone():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_told_which_process_holds_the_checkout(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Busy, match=rf"another run \(process {holder.pid}\) works in {tmp_path}"), Workspace(tmp_path).alone():
            pass
        holder.kill()
    with Workspace(tmp_path, {}).alone():
        assert (tmp_path / "build/run.lock").read_text() == f"{os.getpid()}\n"


def test_one_checkout_does_not_hold_another(tmp_path: Path) -> None:
    with Workspace(tmp_path / "a", {}).alone(), Workspace(tmp_path / "b", {}).alone():
        assert (tmp_path / "a/build/run.lock").exists()


def test_a_build_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("a file")
    with pytest.raises(DiskError, match=r"run\.lock"), Workspace(tmp_path, {}).alone():
        pass


def test_files_are_read_when_they_are_wanted_and_not_before(tmp_path: Path) -> None:
    space = Workspace(tmp_path, {"DOCKER_HOST": "unix:///nowhere", "DRIVER_REGISTRY": "localhost:1", "HOME": str(tmp_path)})
    with pytest.raises(BadFileError, match=r"versions\.toml"):
        _ = space.wanted
    for name in ("versions.toml", "versions.lock", "compat.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    assert space.plan.pairs
    assert space.shop.registry.reference("index") == "localhost:1/driver:index"


def test_what_is_in_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "versions.toml").write_text('[settings]\nregistry = "localhost:7000"\n')
    assert Workspace(tmp_path, {}).settings.registry == "localhost:7000"
    assert Workspace(tmp_path, {"DRIVER_REGISTRY": "registry.example/acme"}).settings.registry == "registry.example/acme"


def test_the_feeds_that_were_read_lie_with_the_other_downloads(tmp_path: Path) -> None:
    (tmp_path / "versions.toml").write_text("[build]\n")
    with MisbehavingServer() as server:
        server.says("/feed", file(b"news"))
        space = Workspace(tmp_path, {"DRIVER_CACHE": str(tmp_path / "elsewhere")})
        assert space.fetcher.get(f"{server.base}/feed", max_bytes=100) == b"news"
    assert list((tmp_path / "elsewhere/http").iterdir())
    assert not (tmp_path / "build").exists()


def test_a_run_that_has_not_said_its_number_yet_is_named_without_one(tmp_path: Path) -> None:
    with Workspace(tmp_path, {}).alone():
        (tmp_path / "build/run.lock").write_text("")
        with pytest.raises(Busy, match=f"^another run works in {tmp_path}"), Workspace(tmp_path).alone():
            pass


def test_the_number_of_the_run_before_is_not_taken_for_that_of_the_one_that_begins(tmp_path: Path) -> None:
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout
    with Workspace(tmp_path, {}).alone():
        (tmp_path / "build/run.lock").write_text(gone)
        with pytest.raises(Busy, match=r"^another run works in "), Workspace(tmp_path).alone():
            pass


def test_fetch_is_refused_beside_a_run_like_another_run(tmp_path: Path) -> None:
    project = SmallProject(tmp_path, samples.a_lock())
    with Workspace(tmp_path, {}).alone():
        done = project.doit("fetch")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"doit: another run (process {os.getpid()}) works in {tmp_path}: wait for it, or end it\n"
    assert not (tmp_path / "build/docker").exists()


@pytest.mark.parametrize("words", [["update"], ["update", "--dry-run"]], ids=" ".join)
def test_an_update_without_room_for_its_own_files_says_so_in_one_line(words: list[str], tmp_path: Path) -> None:
    project = SmallProject(tmp_path, samples.a_lock())
    (tmp_path / "build").write_text("not a folder")
    done = project.doit(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"doit: {tmp_path / 'build'}: File exists: free some disk space, or mend its rights")
    assert done.stderr.count("\n") == 1


def test_a_switch_that_is_neither_on_nor_off_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "versions.toml").write_text("[build]\n")
    with pytest.raises(UsageError, match="DRIVER_INSECURE is '2'"):
        _ = Workspace(tmp_path, {"DRIVER_INSECURE": "2"}).settings


@pytest.mark.parametrize("command", ["run", "status", "matrix", "fetch", "render", "update", "page", "prune"])
def test_an_archive_that_nobody_knows_is_one_line_of_every_command(command: str, tmp_path: Path) -> None:
    project = SmallProject(tmp_path, samples.a_lock(), registry="127.0.0.1:9", DRIVER_ARCHIVES="debain=http://127.0.0.1:9/debian")
    done = project.doit(command)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "doit: DRIVER_ARCHIVES names the archive 'debain', which neither versions.toml nor versions.lock has: one of debian\n"
    )
