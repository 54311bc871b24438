"""bootstrap/processes.sh: by which doit.sh knows the daemons that it started."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.checkout import ROOT

CHAIN = """
[ "$1" -gt 0 ] || exit 0
exec bash "$0" $(($1 - 1)) WORD
"""
POLLS = """
source "$1/bootstrap/processes.sh"
cd "$2"
bash chain.sh 150 WORD &
echo $! >pid
while is_alive "$(<pid)"; do
    for _ in {1..30}; do pid_of pid WORD >/dev/null || ! is_alive "$(<pid)" || echo "lost sight of it"; done
done
"""


def polled(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-uc", script, "bash", str(ROOT), str(folder)], check=True, capture_output=True, text=True)


def test_a_process_is_known_while_it_executes_another_program(tmp_path: Path) -> None:
    """It has no arguments for a moment, and the first command took that for an engine that had ended."""
    (tmp_path / "chain.sh").write_text(CHAIN)
    done = polled(POLLS, tmp_path)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_process_that_has_ended_or_is_another_is_not_known(tmp_path: Path) -> None:
    script = """
    source "$1/bootstrap/processes.sh"
    cd "$2"
    sleep 60 & echo $! >pid
    until pid_of pid sleep; do :; done  # until then it is a fork of this shell
    pid_of pid other || echo "is another"
    kill $! && { wait $! || true; }
    pid_of pid sleep || echo "has ended"
    for text in '' x 1x 99999999; do echo "$text" >pid; pid_of pid sleep || echo "none"; done
    pid_of missing sleep || echo "no file"
    """
    done = polled(script, tmp_path)
    pid, *rest = done.stdout.splitlines()
    assert pid.isdigit()
    assert rest == ["is another", "has ended", *["none"] * 4, "no file"]
