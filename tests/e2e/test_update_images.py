"""The kernel of a Fedora CoreOS build whose metadata lacks it, out of its container image: real engine, registry and rpm.

The images are stand-ins: they hold rpm's database, made by rpm from synthetic packages, and an os-release, and nothing else.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from pipeline.config import lockfile
from pipeline.engine.client import Engine
from pipeline.fetch.apt_sources import Archives
from pipeline.fetch.mirrors import Mirrors
from pipeline.update.container_images import Images
from pipeline.update.run import Result, update
from pipeline.upstream.coreos import fedora_coreos
from tests import rpm_databases
from tests.recorded_upstream import Held, documents
from tests.registry_process import MISSING, installed, running_registry
from tests.samples import wishes

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.area("coreos"),
    pytest.mark.skipif(not installed(), reason=MISSING),
    pytest.mark.skipif(not rpm_databases.installed(), reason=rpm_databases.MISSING),
]
STABLE = "44.20260707.3.1"
KERNEL = "6.19.5-300.fc44.x86_64"
POLICY = "[fedora-coreos]\nstreams = ['stable']\narches = ['amd64']\nkeep = 1\n"


@pytest.fixture(scope="module")
def quay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that stands in for quay.io."""
    with running_registry(tmp_path_factory.mktemp("quay")) as address:
        yield address


@pytest.fixture(scope="module")
def api(engine_host: str) -> Iterator[docker.APIClient]:
    with contextlib.closing(docker.APIClient(base_url=engine_host, timeout=120)) as client:
        yield client


def tree(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def publish(api: docker.APIClient, quay: str, files: dict[str, bytes]) -> str:
    """Push an image of ``files`` as ``fedora/fedora-coreos:stable`` and forget it; its digest."""
    name = f"{quay}/fedora/fedora-coreos"
    api.import_image_from_data(tree(files), repository=name, tag="stable")
    said = [json.loads(line) for line in api.push(name, tag="stable").splitlines() if line.strip()]
    api.remove_image(f"{name}:stable", force=True)
    (digest,) = (line["aux"]["Digest"] for line in said if "aux" in line)
    return str(digest)


def run(shared: Path, quay: str, digest: str = "", *, host: str) -> Result:
    """An update whose index names the image by ``digest``, or, without one, leaves it to the stream's tag."""
    found = documents(shared / "upstream")
    if digest:
        index = json.loads(found[fedora_coreos.releases_url("stable")])
        for release in index["releases"]:
            reference = f"quay.io/fedora/fedora-coreos@{digest}"
            release["oci-images"] = [{"architecture": "x86_64", "digest-ref": reference}] if release["version"] == STABLE else []
        found[fedora_coreos.releases_url("stable")] = json.dumps(index).encode()
    wanted = wishes(POLICY)
    with contextlib.closing(Images(lambda: Engine(host), Mirrors(registries={"quay.io": quay}))) as images:
        return update(wanted, lockfile.empty(), Held(found), Archives(wanted, {}, Path("/none")), images=images)


def kernels(result: Result) -> dict[str, list[str]]:
    return {p.kernel: [r.version for r in p.releases] for p in result.lock.pending}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("rpm") / "made"
    packages = ("kernel 6.19.5 300.fc44", "kernel-core 6.19.5 300.fc44", "bash 5.3 1.fc44")
    return rpm_databases.database(place, *packages).read_bytes()


@pytest.mark.parametrize("place", ["usr/share/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite"])
def test_the_database_of_the_image_that_the_index_names_by_digest_gives_the_kernel(
    shared: Path, engine_host: str, quay: str, api: docker.APIClient, database: bytes, place: str
) -> None:
    digest = publish(api, quay, {place: database})
    result = run(shared, quay, digest, host=engine_host)
    assert kernels(result)[KERNEL] == [STABLE]
    assert not [image for image in api.images() if any(quay in name for name in image["RepoDigests"] or ())]


def test_an_image_named_by_its_streams_tag_has_to_be_of_that_release(
    shared: Path, engine_host: str, quay: str, api: docker.APIClient, database: bytes
) -> None:
    files = {"usr/share/rpm/rpmdb.sqlite": database, "usr/lib/os-release": f"OSTREE_VERSION='{STABLE}'\n".encode()}
    publish(api, quay, files)
    assert kernels(run(shared, quay, host=engine_host))[KERNEL] == [STABLE]
    publish(api, quay, {**files, "usr/lib/os-release": b"OSTREE_VERSION='44.20260801.3.0'\n"})
    moved = run(shared, quay, host=engine_host)
    assert KERNEL not in kernels(moved)
    assert any(f"is not release {STABLE}" in line for line in moved.reports)


def test_an_image_without_a_database_or_with_a_spoilt_one_leaves_the_kernel_unknown_and_is_reported(
    shared: Path, engine_host: str, quay: str, api: docker.APIClient
) -> None:
    for files in ({"etc/hostname": b"x"}, {"usr/share/rpm/rpmdb.sqlite": b"no database"}):
        result = run(shared, quay, publish(api, quay, files), host=engine_host)
        assert list(kernels(result)) == [""]
        assert result.problems == []
        assert any(line.startswith(f"fedora-coreos stable {STABLE}/amd64: ") for line in result.reports)


def test_no_image_or_no_engine_leaves_the_kernel_unknown(shared: Path, engine_host: str, quay: str) -> None:
    for result in (
        run(shared, quay, f"sha256:{'0' * 64}", host=engine_host),
        run(shared, quay, f"sha256:{'0' * 64}", host="tcp://127.0.0.1:9"),
    ):
        assert list(kernels(result)) == [""]
        assert any(f"stable {STABLE}/amd64" in line for line in result.reports)
