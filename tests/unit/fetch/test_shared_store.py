"""Downloads lie in one folder of the user's, which all checkouts share at once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.cli.workspace import Workspace
from pipeline.config.records import File, kept
from pipeline.core.errors import DiskError
from pipeline.fetch import partial_file
from pipeline.fetch.partial_file import PartFile
from tests import samples
from tests.misbehaving_server import MisbehavingServer, drip
from tests.small_project import SmallProject

ROOT = Path(__file__).parents[3]
DATA = os.urandom(2000)
SUM = hashlib.sha256(DATA).hexdigest()
TAKE = """
import sys
from pathlib import Path
from pipeline.config.records import File
from pipeline.cli.workspace import Workspace
space = Workspace(Path.cwd())
file = File(name="x", version="1", sha256=sys.argv[2], size=int(sys.argv[3]), trust="vendor-sum", urls=(sys.argv[1],))
print(space.inputs.path(file))
print(space.inputs.lay(file, Path.cwd() / "build/context"))
print(len(space.fetcher.get(sys.argv[1], max_bytes=1 << 20, immutable=True)))
"""


def test_two_checkouts_that_want_one_file_at_once_get_it_once(server: MisbehavingServer, tmp_path: Path) -> None:
    url = server.says("/x.deb", drip(DATA, 0.001))
    shared = str(tmp_path / "cache")
    running = []
    for name in ("one", "two"):
        project = SmallProject(tmp_path / name, samples.a_lock(), XDG_CACHE_HOME=shared, PYTHONPATH=str(ROOT))
        command = [sys.executable, "-c", TAKE, url, SUM, str(len(DATA))]
        running.append(
            subprocess.Popen(
                command, cwd=project.root, env=project.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    ended = [process.communicate(timeout=120) for process in running]
    path = kept(tmp_path / "cache/coreos-nvidia/downloads", SUM)
    assert [(out.splitlines(), err) for out, err in ended] == [
        ([str(path), str(tmp_path / name / "build/context/x.deb"), str(len(DATA))], "") for name in ("one", "two")
    ]
    assert path.read_bytes() == DATA
    assert not list(path.parent.glob("*.part"))
    assert path.stat().st_nlink == 3  # both contexts are links of the one file
    # Once for the file; the feed, whole in the cache or not, at most once by each.
    assert 2 <= len(server.requests) <= 3


def test_a_run_that_stands_still_is_not_waited_for_without_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_file, "STANDSTILL", 0.3)
    dest = tmp_path / "a"
    with PartFile(dest, SUM, len(DATA)):
        begun = time.monotonic()
        with pytest.raises(DiskError, match=r"a\.part: another run has filled it no further for .* minutes: end that run"):
            PartFile(dest, SUM, len(DATA)).__enter__()
        assert time.monotonic() - begun < 5


def test_a_run_that_goes_on_is_waited_for_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_file, "STANDSTILL", 1.0)
    fill = (
        "import sys, time, pathlib; sys.path.insert(0, sys.argv[1]); from pipeline.fetch.partial_file import PartFile\n"
        "with PartFile(pathlib.Path(sys.argv[2]), sys.argv[3], 2000) as part:\n"
        "    print('begun', flush=True)\n"
        "    for piece in range(8):\n"
        "        part.write(sys.stdin.buffer.read(250)); time.sleep(0.4)\n"
        "    part.finish()\n"
    )
    dest = tmp_path / "a"
    command = [sys.executable, "-c", fill, str(ROOT), str(dest), SUM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(DATA)
        other.stdin.flush()
        assert other.stdout.readline() == b"begun\n"
        with PartFile(dest, SUM, len(DATA)) as part:
            assert part.there()
        assert other.wait(30) == 0
    assert dest.read_bytes() == DATA


def test_use_is_noted_in_the_time_of_access_and_the_time_of_change_stays(tmp_path: Path) -> None:
    space = Workspace(tmp_path, {"DRIVER_CACHE": str(tmp_path / "store")})
    (tmp_path / "versions.toml").write_text("[build]\n")
    path = kept(space.store, SUM)
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    os.utime(path, (1000, 2000))
    file = File(name="x", version="1", sha256=SUM, size=len(DATA), trust="vendor-sum", urls=("http://127.0.0.1:9/x",))
    assert space.inputs.path(file) == path
    found = path.stat()
    assert (time.time() - found.st_atime < 60, found.st_mtime) == (True, 2000)


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({"DRIVER_CACHE": "/x", "XDG_CACHE_HOME": "/y", "HOME": "/z"}, "x"),
        ({"DRIVER_CACHE": "", "XDG_CACHE_HOME": "/y", "HOME": "/z"}, "y/coreos-nvidia/downloads"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/z"}, "z/.cache/coreos-nvidia/downloads"),
        ({"HOME": "/z"}, "z/.cache/coreos-nvidia/downloads"),
    ],
)
def test_the_store_is_where_the_variables_say(tmp_path: Path, environ: dict[str, str], place: str) -> None:
    here = {name: value.replace("/", f"{tmp_path}/") for name, value in environ.items()}
    assert Workspace(tmp_path / "checkout", here).store == tmp_path / place
    assert not (tmp_path / "checkout/build").exists()


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "relative", "XDG_CACHE_HOME": "relative"}])
def test_without_a_home_one_line_names_the_variable(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(DiskError, match=r"^no folder to keep downloads in: .*: name a folder in DRIVER_CACHE or set HOME$"):
        _ = Workspace(tmp_path, environ).store


@pytest.mark.parametrize("name", ["DRIVER_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_a_folder_that_cannot_be_made_is_named_with_the_variable(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    project = SmallProject(tmp_path / "checkout", samples.a_lock())
    environ = {k: v for k, v in project.environ.items() if k != "XDG_CACHE_HOME"} | {name: str(tmp_path / "file/below")}
    project.environ = environ
    done = project.doit("fetch")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"doit: {tmp_path}/file/below")
    assert done.stderr.endswith(": Not a directory: mend it, or name another folder in DRIVER_CACHE\n")


def test_a_lock_of_a_dead_run_is_free(tmp_path: Path) -> None:
    part = tmp_path / "a.part"
    hold = "import fcntl, sys, time; file = open(sys.argv[1], 'wb'); fcntl.flock(file, fcntl.LOCK_EX)"
    hold += "; print(1, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", hold, str(part)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        with part.open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        other.kill()
        with PartFile(tmp_path / "a", SUM, len(DATA)) as mine:
            assert mine.length == 0
