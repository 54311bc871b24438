"""doit.sh on a fresh machine of Debian 12 and of 13: a root with ca-certificates and git, and nothing of this machine's."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.workspace import Workspace
from pipeline.core.versions import KernelRelease
from pipeline.plan.pairs import Pair
from tests.support.bare_root import CHECKOUT, ROOT, BareRoot
from tests.support.cache import Cache
from tests.support.debian_roots import Archives

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.area("thread"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a root of its own"),
    pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="mmdebstrap is not installed (./doit.sh test installs it)"),
]
PYTHON = {"bookworm": "3.11", "trixie": "3.13"}
SHORT, WHOLE = 600, 3000
"""Seconds: many times what a quiet machine needs."""


@pytest.fixture(scope="module")
def kept() -> Iterator[Cache]:
    with Cache.of_this_user() as cache:
        yield cache


@pytest.fixture(params=PYTHON)
def root(request: pytest.FixtureRequest, kept: Cache, tmp_path: Path) -> BareRoot:
    return BareRoot(kept, request.param, tmp_path / "root")


def test_help_and_list_in_a_root_that_has_nothing_yet(root: BareRoot) -> None:
    version = PYTHON[root.release]
    done = root.run(
        f"""
        ! command -v python3
        cd {CHECKOUT}
        ./doit.sh help >/tmp/help
        ./doit.sh list >/tmp/list
        readlink -f .venv/bin/python
        ./doit.sh list | cmp - /tmp/list
        """,
        SHORT,
    )
    assert (done.returncode, done.stdout) == (0, f"/usr/bin/python{version}\n"), done.stderr[-3000:]
    said = done.stderr.splitlines()
    assert [line for line in said if not line.startswith("doit.sh: will install with apt-get: ")] == [
        "doit.sh: making the Python environment .venv from requirements.txt"
    ]
    assert len(said) == 2
    assert re.search(r"(?m)^ +doit prune +", (root.place / "tmp/help").read_text())
    listed = (root.place / "tmp/list").read_text()
    assert all(f"{group} " in listed for group in ("driver", "image", "render", "toolchain")), listed


@pytest.mark.full
def test_the_first_command_in_a_root_that_has_nothing_yet(root: BareRoot) -> None:
    pair, port = cheapest(), free_port()
    wishes = root.checkout / "versions.toml"
    assert "[settings]" not in wishes.read_text()
    wishes.write_text(f'{wishes.read_text()}\n[settings]\nregistry = "localhost:{port}"\n')
    done = root.run(
        f"""
        cd {CHECKOUT}
        export DRIVER_ARCHIVES='{Archives.of_this_machine().variable}'
        ./doit.sh 'image:{pair.id}'
        ./doit.sh status >/tmp/status
        .venv/bin/python -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read())' \\
            http://localhost:{port}/v2/driver/tags/list >/tmp/tags
        ./doit.sh down
        cat /proc/[0-9]*/comm
        """,
        WHOLE,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
    told = done.stdout + done.stderr
    assert f"{pair.id}: proved {' and '.join(pair.kinds)} on the booted kernel" in told
    assert re.search(r"(?m)\] 1 of 1 pair built$", told)
    status = (root.place / "tmp/status").read_text()
    assert re.search(rf"{re.escape(pair.kernel.kernel)} +{re.escape(pair.driver.version)} .*built", status)
    assert re.search(r"(?m)^\d+ pairs: 1 built, ", status)
    assert pair.recipe_tag in (root.place / "tmp/tags").read_text()
    running = set(done.stdout.splitlines()[-20:])
    assert not running & {"dockerd", "containerd", "docker-registry"}


def cheapest() -> Pair:
    """The pair of Debian's newest kernel with the fewest kinds."""
    pairs = [pair for pair in Workspace(ROOT).plan.pairs if pair.kernel.os == "debian" and not pair.exclusion]
    newest = max(KernelRelease(pair.kernel.kernel) for pair in pairs)
    return min((pair for pair in pairs if pair.kernel.kernel == str(newest)), key=lambda pair: len(pair.kinds))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
