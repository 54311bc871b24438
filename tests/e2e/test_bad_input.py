"""What goes wrong is one line on stderr and the right exit status, and nothing that was there is lost."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline.config.records import Lock
from tests.checkout import DRIVER, KERNEL, NEWEST, Checkout
from tests.registry_process import running_registry
from tests.told_server import Told, in_turn, says

pytestmark = [pytest.mark.e2e, pytest.mark.area("thread")]

NOBODY_THERE = "unix:///nowhere/docker.sock"
PAIR = f"debian/amd64:{KERNEL}-{DRIVER}"
EVERYTHING_EXCLUDED = '\n[[exclude]]\ndriver = ">=1"\nreason = "to have nothing to build"\n'


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[str]:
    """An empty registry."""
    with running_registry(tmp_path / "registry") as address:
        yield address


@pytest.fixture
def offline(bare: Checkout) -> Checkout:
    """A checkout that finds neither engine nor registry nor archive."""
    bare.environ |= {"DOCKER_HOST": NOBODY_THERE, "DRIVER_ARCHIVES": "debian=http://127.0.0.1:1/debian"}
    return bare


def test_no_engine_is_said_in_one_line_however_many_pairs_need_it(bare: Checkout, empty: str) -> None:
    ran = bare.doit("--json", DOCKER_HOST=NOBODY_THERE, DRIVER_REGISTRY=empty).ended(2)
    assert ran.complaint.startswith(f"doit: no container engine answers at {NOBODY_THERE} (")
    assert "mend DOCKER_HOST, or unset it and run ./doit.sh, which starts one" in ran.complaint
    assert set(bare.outcomes().values()) == {"pending"}


def test_what_answers_as_engine_and_is_none_is_named(bare: Checkout, empty: str) -> None:
    with Told(in_turn(says(200, b"<html>a router's page</html>"))) as other:
        ran = bare.doit("--json", DOCKER_HOST=f"tcp://{other.place}", DRIVER_REGISTRY=empty).ended(2)
    assert f"no container engine answers at tcp://{other.place}" in ran.complaint


def test_a_registry_that_refuses_is_named_before_anything_is_built(bare: Checkout) -> None:
    with Told(in_turn(says(403, {"errors": [{"code": "DENIED", "message": "not today"}]}))) as server:
        ran = bare.doit("--json", DRIVER_REGISTRY=server.place, DOCKER_HOST=NOBODY_THERE).ended(2)
    assert server.place in ran.complaint
    assert "not today" in ran.complaint
    assert ran.out == ""


def test_no_registry_at_all_is_named(bare: Checkout) -> None:
    ran = bare.doit("--json", DRIVER_REGISTRY="localhost:1", DOCKER_HOST=NOBODY_THERE).ended(2)
    *before, problem = ran.err.splitlines()
    assert set(before) <= {"doit: waiting for localhost:1 to list the tags of driver"}, "said after some seconds of trying"
    assert problem.startswith("doit: localhost:1/driver: tag list: ")


def test_a_registry_with_a_password_takes_the_right_one_only(bare: Checkout, tmp_path: Path) -> None:
    bare.edit("versions.toml", lambda text: text + EVERYTHING_EXCLUDED)
    line = subprocess.run(["htpasswd", "-nbB", "builder", "secret"], check=True, capture_output=True, text=True).stdout
    bare.environ |= {"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path / "login")}
    with running_registry(tmp_path / "registry", htpasswd=line.strip() + "\n") as address:
        bare.environ["DRIVER_REGISTRY"] = address
        nobody = bare.doit("--json").ended(2)
        assert address in nobody.complaint
        assert "log in" in nobody.complaint.lower() or "login" in nobody.complaint.lower()
        (tmp_path / "login").mkdir()
        for password, expected in (("wrong", 2), ("secret", 0)):
            login = {"auths": {address: {"auth": _basic(f"builder:{password}")}}}
            (tmp_path / "login/config.json").write_text(json.dumps(login))
            ran = bare.doit("--json").ended(expected)
            assert "secret" not in ran.err
            if expected:
                assert address in ran.complaint
        assert bare.space().registry.digest("index") is not None


def _basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def smallest(lock: Lock) -> Lock:
    """The lock with a toolchain of a single package: the first thing that is fetched."""
    toolchain = lock.toolchains[0]
    first = min(toolchain.packages, key=lambda file: file.size)
    return msgspec.structs.replace(lock, toolchains=(msgspec.structs.replace(toolchain, packages=(first,)),))


@pytest.fixture
def one_package(bare: Checkout, empty: str, tmp_path: Path) -> Checkout:
    """A checkout with an empty cache whose first download is one small package."""
    bare.relock(smallest)
    bare.environ |= {"DRIVER_CACHE": str(tmp_path / "cache"), "DRIVER_REGISTRY": empty}
    return bare


@pytest.mark.parametrize("how", ["wrong", "short", "gone"])
def test_a_package_that_does_not_come_as_pinned_is_never_used(one_package: Checkout, how: str, tmp_path: Path) -> None:
    (package,) = one_package.space().lock.toolchains[0].packages
    path = f"/{package.archive}/{package.path}"
    answers: dict[str, tuple[Callable[..., None], str]] = {
        "wrong": (says(200, b"x" * package.size), "sha256"),
        "short": (says(200, b"x" * package.size, cut=package.size // 2), package.path.rpartition("/")[2] if package.path else ""),
        "gone": (says(404), f"left the archive '{package.archive}'"),
    }
    answer, word = answers[how]
    with Told(in_turn(answer)) as server:
        one_package.environ["DRIVER_ARCHIVES"] = f"{package.archive}=http://{server.place}/{package.archive}"
        ran = one_package.doit("--json", f"image:{PAIR}").ended(2)
    assert server.asked("GET", path)
    *tries, complaint = ran.err.splitlines()
    assert word in complaint
    assert all("; again in" in line for line in tries), "whatever else is said is a note about another try"
    assert not [name for name in (tmp_path / "cache/sha256").rglob("*") if name.is_file() and len(name.name) == 64]
    assert one_package.outcomes()[PAIR] == "pending"


@pytest.fixture
def small_disk(bare: Checkout) -> Iterator[Callable[[str], Path]]:
    """Gives ``build/`` of a checkout a file system of its own, of so many bytes."""
    place = bare.root / "build"

    def mount(size: str) -> Path:
        place.mkdir(exist_ok=True)
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this machine lets nobody mount a small disk: {done.stderr.strip()}")
        return place

    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    yield mount
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("size", ["64k", "2m", "40m"])
def test_a_full_disk_is_one_line_and_leaves_no_half_file(
    bare: Checkout, empty: str, small_disk: Callable[[str], Path], size: str
) -> None:
    bare.environ["DRIVER_REGISTRY"] = empty
    build = small_disk(size)
    ran = bare.doit("--json", f"image:{PAIR}").ended(2)
    assert "No space left on device" in ran.complaint
    assert "Traceback" not in ran.out
    assert not list(build.rglob("*.tar"))
    assert not [tag for tag in bare.space().registry.tags() if tag.startswith(("r-", "failed-", KERNEL))]


@pytest.mark.parametrize("words", [["list"], ["info", "image"], ["render"], [f"image:{PAIR}"], ["fetch"], ["page"]])
def test_a_disk_with_no_byte_left_is_one_line_of_every_command(
    bare: Checkout, small_disk: Callable[[str], Path], words: list[str]
) -> None:
    build = small_disk("300k")
    with contextlib.suppress(OSError):
        (build / "filler").write_bytes(bytes(1 << 20))
    ran = bare.doit(*words).ended(2)
    assert "Traceback" not in ran.err
    assert re.search("No space left on device|disk is full", ran.err.splitlines()[-1])


def edited(change: Callable[[dict[str, object]], object]) -> Callable[[str], str]:
    def edit(text: str) -> str:
        document = json.loads(text)
        change(document)
        return json.dumps(document)

    return edit


def _kernel(document: dict[str, object]) -> dict[str, object]:
    kernels = document["kernels"]
    assert isinstance(kernels, list)
    first = kernels[0]
    assert isinstance(first, dict)
    return first


def _twin(document: dict[str, object]) -> None:
    kernels = document["kernels"]
    assert isinstance(kernels, list)
    kernels.append(kernels[0])


def _headers(document: dict[str, object]) -> dict[str, object]:
    headers = _kernel(document)["headers"]
    assert isinstance(headers, list)
    assert isinstance(headers[0], dict)
    return headers[0]


def _shared_tag(document: dict[str, object]) -> None:
    kernels = document["kernels"]
    assert isinstance(kernels, list)
    twin = json.loads(json.dumps(kernels[0]))
    twin["kernel"] = twin["kernel"].replace("6.1.0-47", "6.1.0+47")
    other = json.loads(json.dumps(twin))
    other["kernel"] = twin["kernel"].replace("+", "~")
    kernels += [twin, other]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (edited(lambda d: d.update(schema=2)), "schema"),
        (edited(lambda d: _kernel(d).update(colour="blue")), "colour"),
        (edited(lambda d: _headers(d).pop("sha256")), "sha256"),
        (edited(lambda d: _headers(d).update(sha256="abc")), "sha256"),
        (edited(lambda d: _headers(d).update(size="large")), "size"),
        (edited(_twin), "two entries"),
        (edited(_shared_tag), "share"),
        (lambda text: text[: len(text) // 2], "versions.lock"),
        (lambda text: "", "versions.lock"),
        (lambda text: "\x00\xff" + text, "versions.lock"),
    ],
)
def test_a_lock_edited_into_nonsense_is_refused_with_the_place_of_it(
    offline: Checkout, change: Callable[[str], str], words: str
) -> None:
    offline.edit("versions.lock", change)
    ran = offline.doit().ended(3)
    assert ran.complaint.startswith("doit: ")
    assert "versions.lock" in ran.complaint
    assert words in ran.complaint
    assert ran.out == ""


@pytest.mark.parametrize("command", ["list", "render", "status", "fetch"])
def test_no_command_goes_on_with_a_lock_that_it_cannot_read(offline: Checkout, command: str) -> None:
    offline.edit("versions.lock", edited(lambda d: _kernel(d).update(colour="blue")))
    ran = offline.doit(command).ended(3)
    assert "colour" in ran.complaint
    assert ran.out == ""
    assert not (offline.root / "build/docker").exists()


@pytest.mark.parametrize("name", ["versions.toml", "compat.toml"])
def test_wishes_and_rules_that_cannot_be_read_are_refused_by_name(offline: Checkout, name: str) -> None:
    offline.edit(name, lambda text: text + "\n[surprise]\n")
    ran = offline.doit().ended(3)
    assert name in ran.complaint
    assert "surprise" in ran.complaint


@pytest.mark.parametrize("pattern", ["image:*6.1.0-99*", "image:debian/amd64:nothing", "*everything*", "imag:*"])
def test_a_pattern_that_matches_no_pair_is_wrong_use(offline: Checkout, pattern: str) -> None:
    ran = offline.doit(pattern).ended(3)
    assert f"'{pattern}' matches no" in ran.complaint


@pytest.mark.parametrize("words", [["no-such-task"], ["--no-such-option"], ["status", "extra", "--nothing"], ["update", "now"]])
def test_a_word_that_cannot_be_meant_is_wrong_use(offline: Checkout, words: list[str]) -> None:
    ran = offline.doit(*words).ended(3)
    assert "Traceback" not in ran.err
    assert any(word.lstrip("-") in ran.err for word in words)


def test_list_render_and_status_need_neither_engine_nor_registry_nor_network(offline: Checkout) -> None:
    names = offline.doit("list", "--all").ended(0).out
    assert f"image:{PAIR}" in names
    offline.doit("render").ended(0)
    assert len(list((offline.root / "build/docker").rglob("Dockerfile"))) == 2 + 2 + 4
    ran = offline.doit("status", "--json").ended(0)
    index = json.loads(ran.out)
    assert index["source"] == "cache"
    assert {row["outcome"] for row in index["pairs"]} <= {"pending", "excluded"}
    assert "showing what was known last" in ran.complaint


def test_a_dockerfile_changed_by_hand_is_named_and_not_built(offline: Checkout) -> None:
    offline.doit("render").ended(0)
    (dockerfile,) = (offline.root / "build/docker").glob(f"image/debian/amd64/{KERNEL}-{DRIVER}/Dockerfile")
    before = dockerfile.read_text()
    dockerfile.write_text(before.replace("FROM ", "FROM evil/", 1))
    ran = offline.doit("render").ended(0)
    assert f"{dockerfile} was changed by hand" in ran.err
    assert dockerfile.read_text() == before


def test_a_second_run_in_the_same_checkout_is_refused_and_harms_nothing(bare: Checkout, empty: str) -> None:
    bare.environ["DRIVER_REGISTRY"] = empty
    with Told(in_turn(says(200, {"name": "driver", "tags": []}))) as slow:
        # The first run waits at an engine that takes the connection and never answers.
        slow.answer = lambda seen, handler: handler.connection.recv(1) and None
        with bare.start("--json", DOCKER_HOST=f"tcp://{slow.place}") as first:
            _until(lambda: bool(slow.connections))
            ran = bare.doit("--json").ended(2)
            first.send_signal(signal.SIGKILL)
    assert re.search(rf"another run \(process {first.pid}\) works in {re.escape(str(bare.root))}", ran.complaint)


def _until(true: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_excluded_pair_is_an_outcome_with_its_reason_and_no_failure(bare: Checkout, empty: str) -> None:
    patches = re.compile(r"(?ms)^\[\[patch\]\].*?(?=^\[\[|^#|\Z)")
    bare.edit("compat.toml", lambda text: patches.sub("", text))
    shutil.rmtree(bare.root / "dockerfiles/patches")
    pair = f"debian/amd64:{NEWEST}-{DRIVER}"
    ran = bare.doit("--json", f"image:{pair}", DOCKER_HOST=NOBODY_THERE, DRIVER_REGISTRY=empty).ended(0)
    assert ran.err == ""
    row = next(row for row in bare.index()["pairs"] if (row["kernel"], row["driver"]) == (NEWEST, DRIVER))
    assert row["outcome"] == "excluded"
    assert "pci_resize_resource" in row["reason"]
    assert row["see"].startswith("https://")
