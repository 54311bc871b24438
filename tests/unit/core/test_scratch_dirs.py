"""What commands make for themselves below build/ goes with them, at the latest when the next one comes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.workspace import Workspace
from pipeline.core import scratch_dirs
from pipeline.core.errors import DiskError

ROOT = Path(__file__).parents[3]
HOLD = """
import sys
from pathlib import Path
from pipeline.core import scratch_dirs
with scratch_dirs.folder(Path(sys.argv[1]), scratch_dirs.UPDATE) as place:
    print(place, flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_there_until_the_end(tmp_path: Path) -> None:
    with scratch_dirs.folder(tmp_path / "build", scratch_dirs.UPDATE) as place:
        (place / "sub").mkdir()
        assert place.parent == tmp_path / "build"
    assert list((tmp_path / "build").iterdir()) == []


@pytest.mark.parametrize("by", ["the next update", "the next run"])
def test_what_a_killed_update_left_is_swept_and_what_a_running_one_uses_is_not(by: str, tmp_path: Path) -> None:
    build = tmp_path / "build"
    command = [sys.executable, "-c", HOLD, str(build)]
    with (
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as left,
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running,
    ):
        assert left.stdout is not None
        assert running.stdout is not None
        dead, alive = Path(left.stdout.readline().strip()), Path(running.stdout.readline().strip())
        left.kill()
        left.wait()
        assert dead.is_dir()
        with scratch_dirs.folder(build, scratch_dirs.UPDATE) if by == "the next update" else Workspace(tmp_path, {}).alone():
            assert not dead.exists()
            assert alive.is_dir()
        running.kill()


def test_a_folder_that_cannot_be_made_is_an_error_of_the_disk_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("a file")
    for place in (tmp_path / "build", Path("/proc")):  # where root may not write either
        with pytest.raises(DiskError, match=f"^{place}: "), scratch_dirs.folder(place, scratch_dirs.UPDATE):
            pass
