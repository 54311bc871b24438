"""Every command of the README is run, in a checkout of the pair that the README names.

That pair is built here, with ``nvidia`` alone. ``localhost:5000`` is a registry of the test's own, ``ghcr.io`` one that asks
for a password. ``./doit.sh`` and ``./doit.sh test`` alone are not run from here: the one is what test_bare_root.py does on a
machine that has nothing yet, the other is what runs this test (test_documents.py holds .ci/run to it).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from pipeline.cli.workspace import Workspace
from pipeline.config.records import Lock
from pipeline.outcomes import totals
from tests.checkout import MODULES, ROOT, Checkout
from tests.documents import README, blocks, commands
from tests.registry_process import running_registry

pytestmark = [pytest.mark.e2e, pytest.mark.area("thread")]

README_PAIR = re.search(r"docker pull localhost:5000/driver:(\S+-amd64)-([\d.]+)", README.read_text())
assert README_PAIR
KERNEL, DRIVER = README_PAIR.groups()
"""What the README names; the committed lock pins it."""
BY_DOIT_SH = {"./doit.sh", "./doit.sh test"}
PAIR = f"{KERNEL}-{DRIVER}"
ID = f"debian/amd64:{PAIR}"
KINDS = ("proprietary",)
TOKEN = "a-token-of-the-tests"
NO_ARCHIVE = {"DRIVER_ARCHIVES": "debian=http://127.0.0.1:9/debian debian-security=http://127.0.0.1:9/debian-security"}
"""Nothing but ``doit update`` reads an archive once the first run has put the pinned files into the cache."""

# What each command shows a person who runs it: a pattern of its stdout and stderr together.
SHOWS = {
    "doit status": rf"(?s)debian/amd64.*{KERNEL} +{DRIVER} +{'both' if len(KINDS) == 2 else KINDS[0]} +built.*1 pair.*1 built",
    "doit status --json": r'"schema":1,.*"source":"registry"(?s:.*)"outcome":"built"',
    "doit page": r"build/page\.html",
    "doit 'image:*6.1.0-57-amd64*'": r"1 of 1 pair built",
    "doit --json 'image:*6.1.0-57-amd64*'": r'(?m)^\{"event": "end", .*"built": 1',
    "doit list --all": rf"image:{ID} +render, build, prove, push",
    f"docker pull localhost:5000/driver:{PAIR}": r"Digest: sha256:[0-9a-f]{64}",
    f"podman pull --tls-verify=false localhost:5000/driver:{PAIR}": r"(?m)^[0-9a-f]{64}$",
    f"skopeo inspect --tls-verify=false docker://localhost:5000/driver:{PAIR}": rf'"io.coreos-nvidia.kernel": "{KERNEL}"',
    "docker create --name driver-index localhost:5000/driver:index none": r"(?m)^[0-9a-f]{64}$",
    f"docker cp driver-index:/kernel/amd64/{KERNEL} driver-index.txt": "",
    "docker rm driver-index": "driver-index",
    "cat driver-index.txt": rf"^{DRIVER} built sha256:[0-9a-f]{{64}}$",
    "doit host --registry ghcr.io/acme --driver 535": r"build/host/flatcar-docker: config\.ign for a new host",
    "$EDITOR versions.toml": r"\[\[driver\]\]",
    "doit update --dry-run": r"pinned: 1 kernel and 1 driver",
    "doit update": r"pinned: 1 kernel and 1 driver",
    "doit": r"1 of 1 pair built",
    "docker login --username acme --password-stdin ghcr.io < token": "Login Succeeded",
    "DRIVER_REGISTRY=ghcr.io/acme doit": rf"(?s){ID}: proved {' and '.join(KINDS)} on the booted kernel.*1 of 1 pair built",
    "doit matrix": r'^\{"include": *\[\], *"count": *0',
    "doit prune": r"0 of \d+ images may go",
    "doit prune --local": r"\d+ files?, [0-9.]+ MB, may go",
    "doit render": r"4 Dockerfiles below build/docker",
    "doit fetch 'image:*6.1.0-57-amd64*' > by-hand.sh": "",
    "sh by-hand.sh": r"Successfully tagged driver-image:[0-9a-f]{16}",
}


@dataclass
class Desk:
    """Where somebody follows the README: a checkout, and what its names stand for here."""

    checkout: Checkout
    names: dict[str, str]
    environ: dict[str, str]
    first: str = ""
    """What the first run printed."""

    def run(self, command: str, **environ: str) -> str:
        """Run ``command`` with ``environ`` besides its own environment; return what it says, fail where it fails."""
        for name, place in self.names.items():
            command = command.replace(name, place)
        done = subprocess.run(
            ["bash", "-euc", command],
            check=False,
            cwd=self.checkout.root,
            env=self.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def desk(room: Path, environ: dict[str, str]) -> Iterator[Desk]:
    checkout = Checkout(room / "readme", **environ)
    for name in ("versions.toml", "versions.lock"):
        shutil.copyfile(ROOT / name, checkout.root / name)
    checkout.relock(only_the_pair)
    checkout.edit("versions.toml", lambda text: re.sub(r"(?m)^kernels = .*$", f'kernels = ["{KERNEL}"]', text))
    checkout.edit("versions.toml", without_vendors_and_other_drivers)
    checkout.only(modules=MODULES, kinds=KINDS)
    (checkout.root / "token").write_text(TOKEN)
    storage = room / "readme.storage"
    storage.mkdir()
    (storage / "config.json").write_text("{}\n")  # podman wants it where DOCKER_CONFIG names the folder
    driver = subprocess.run(
        ["docker", "info", "--format", "{{.Driver}}"], check=True, env=checkout.environ, capture_output=True, text=True
    ).stdout.strip()
    (storage / "storage.conf").write_text(
        f'[storage]\ndriver = "{"overlay" if driver == "overlay2" else "vfs"}"\n'
        f'graphroot = "{storage}/root"\nrunroot = "{storage}/run"\n'
    )
    # What podman keeps for this machine, and what "system reset" deletes of it, is others' as well: not here.
    (storage / "containers.conf").write_text(f'[engine]\ntmp_dir = "{storage}/libpod"\nevents_logger = "none"\n')
    entry = subprocess.run(
        ["htpasswd", "-Bbn", "-C", "4", "acme", TOKEN], check=True, capture_output=True, text=True
    ).stdout.strip()
    with (
        running_registry(room / "ghcr", htpasswd=f"{entry}\n") as ghcr,
        running_registry(room / "readme.registry") as address,
    ):
        local = address.replace("127.0.0.1", "localhost")
        environ = checkout.environ | {
            "DRIVER_REGISTRY": local,
            "PATH": f"{Path(sys.executable).parent}:{checkout.environ['PATH']}",
            "EDITOR": "cat",
            "DOCKER_CONFIG": str(storage),
            "CONTAINERS_STORAGE_CONF": str(storage / "storage.conf"),
            "CONTAINERS_CONF": str(storage / "containers.conf"),
        }
        desk = Desk(checkout, {"localhost:5000": local, "ghcr.io": ghcr}, environ)
        desk.first = desk.run("doit --json")
        yield desk
        for image in (f"localhost:5000/driver:{PAIR}", "localhost:5000/driver:index"):
            desk.run(f"docker image rm --force {image}")
        desk.run("podman --cgroup-manager cgroupfs system reset --force")


def only_the_pair(lock: Lock) -> Lock:
    kernels = tuple(msgspec.structs.replace(k, drivers=(DRIVER,)) for k in lock.kernels if k.kernel == KERNEL)
    drivers = tuple(d for d in lock.drivers if d.version == DRIVER)
    return msgspec.structs.replace(lock, kernels=kernels, drivers=drivers, pending=(), pending_drivers=())


def without_vendors_and_other_drivers(text: str) -> str:
    """Of the sources only Debian's archive, which a machine that builds reaches; vendors' feeds have tests of their own."""
    head, *tables = re.split(r"(?m)^(?=\[)", text)
    kept = [t for t in tables if re.match(rf'\[(build|debian|settings)\]|\[\[driver\]\]\nexact = "{DRIVER}"', t)]
    assert len(kept) >= 3
    return head + "".join(kept)


def test_every_command_that_the_readme_has_is_known_here_and_no_other() -> None:
    assert set(commands(README)) == BY_DOIT_SH | set(SHOWS)


@pytest.mark.full
@pytest.mark.parametrize("command", [line for line in commands(README) if line not in BY_DOIT_SH])
def test_a_command_of_the_readme_does_what_it_is_there_for(desk: Desk, command: str) -> None:
    lock = (desk.checkout.root / "versions.lock").read_bytes()
    try:
        said = desk.run(command, **({} if "update" in command else NO_ARCHIVE))
    finally:
        # What the archive pins today must not be built here instead of the pair that the other tests built.
        (desk.checkout.root / "versions.lock").write_bytes(lock)
    assert re.search(SHOWS[command], said), said[-3000:]


@pytest.mark.full
def test_what_was_built_by_hand_has_the_files_and_the_configuration_of_the_pushed_image(desk: Desk, tmp_path: Path) -> None:
    by_hand = (desk.checkout.root / "by-hand.sh").read_text().splitlines()
    assert [line.split()[5].partition(":")[0] for line in by_hand] == [
        "driver-toolchain",
        "driver-base",
        "driver-userspace",
        "driver-image",
    ]
    own, pushed = by_hand[-1].split()[5], f"localhost:5000/driver:{PAIR}"
    desk.run(f"docker pull --quiet {pushed}")
    assert files(desk, own, tmp_path) == files(desk, pushed, tmp_path)
    configs = [json.loads(desk.run(f"docker image inspect {name}"))[0]["Config"] for name in (own, pushed)]
    for key in ("Entrypoint", "Cmd", "Env"):
        assert configs[0][key] == configs[1][key]
    assert configs[0]["Labels"].items() <= configs[1]["Labels"].items()


def files(desk: Desk, image: str, scratch: Path) -> dict[str, tuple[object, ...]]:
    """Everything in an image by its path: type, mode, owner, link, sha256."""
    archive = scratch / "image.tar"
    container = desk.run(f"docker create {image}").strip()
    try:
        desk.run(f"docker export --output {archive} {container}")
    finally:
        desk.run(f"docker rm {container}")
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            data = tar.extractfile(member) if member.isreg() else None
            digest = sha256(data.read()).hexdigest() if data else ""
            found[member.name] = (member.type, oct(member.mode), member.uid, member.gid, member.linkname, digest)
    assert f"opt/lib/modules/{KERNEL}/nvidia.ko" in found
    archive.unlink()
    return found


def shape(text: str) -> str:
    """``text`` with digests, numbers, versions, kinds of modules and "pair" or "pairs" made equal."""
    text = re.sub(r"\b[0-9a-f]{12,64}\b", "<digest>", text)
    text = re.sub(r"\b(open and proprietary|open|proprietary)\b", "<kind>", text)
    text = text.replace("-cloud-amd64", "-amd64")
    return re.sub(r"\d+(\.\d+)*", "<n>", text).replace("<n> pairs:", "<n> pair:")


@pytest.mark.full
def test_the_sample_output_of_the_first_command_is_what_it_prints(desk: Desk) -> None:
    *sample, last = next(text for text in blocks(README, "text") if "on the booted kernel" in text).splitlines()
    real = set()
    for event in map(json.loads, desk.first.splitlines()):
        pair = f"{event['pair']}: " if "pair" in event else ""
        real.add(shape(f"{pair}{event['text']}"))
    machine = "\n".join(path.read_text() for path in (README.parent / "bootstrap").glob("*.sh"))
    for line in sample:
        if line == "…":
            continue
        if line.startswith("doit.sh: "):
            assert line.removeprefix("doit.sh: ").partition(" at ")[0] in machine, line
        else:
            stamp, _, said = line.partition("] ")
            assert re.fullmatch(r"\[ *\d+\.\d s", stamp), line
            assert shape(said) in real, f"{line}\n{sorted(real)}"
    space = Workspace(ROOT, {})
    built: list[totals.Told] = [(pair.kernel.os, "built") for pair in space.plan.pairs]
    assert last.partition("] ")[2] == totals.line([*built, *totals.unpinned(space.lock.pending)])
