"""Clients that nobody here wrote read, pull and run what the pipeline pushed: skopeo, podman, docker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.checkout import DRIVER, KERNEL, KINDS
from tests.clients import PODMAN_RUN, RUN, Client

pytestmark = [pytest.mark.e2e, pytest.mark.area("thread")]


def test_skopeo_inspects_it(reference: str, digest: str) -> None:
    found = json.loads(Client("skopeo")("inspect", "--tls-verify=false", f"docker://{reference}"))
    assert found["Digest"] == digest
    assert (found["Architecture"], found["Os"]) == ("amd64", "linux")
    assert found["Labels"]["io.coreos-nvidia.kernel"] == KERNEL
    assert found["Labels"]["io.coreos-nvidia.driver"] == DRIVER
    assert f"535-{KERNEL}-debian12" in found["RepoTags"]


def test_skopeo_copies_it_whole_and_keeps_its_digest(reference: str, digest: str, tmp_path: Path) -> None:
    skopeo = Client("skopeo")
    skopeo("copy", "--src-tls-verify=false", "--preserve-digests", f"docker://{reference}", f"oci:{tmp_path / 'oci'}:driver")
    (held,) = json.loads((tmp_path / "oci/index.json").read_text())["manifests"]
    assert held["digest"] == digest


def pulled_and_run(client: Client, run: tuple[str, ...], reference: str) -> None:
    """The image's program speaks, its modules and tools are there and are found by name."""
    assert "nvidia-driver" in client(*run, reference, "help")
    shell = (*run, "--entrypoint", "/bin/sh", reference, "-c")
    roots = ("/opt", "/opt/open")[: len(KINDS)]
    assert client(*shell, " ".join(["ls", *(f"{root}/lib/modules/{KERNEL}/nvidia.ko" for root in roots)]))
    assert client(*shell, "command -v nvidia-smi").strip().endswith("/nvidia-smi")
    said = client(*shell, "nvidia-smi; echo status $?")
    assert "status 9" in said, "it ran, found its libraries, and no driver is loaded"
    assert "couldn't communicate with the NVIDIA driver" in said
    modinfo = client(*shell, f"modinfo -F vermagic /opt/lib/modules/{KERNEL}/nvidia.ko")
    assert modinfo.startswith(f"{KERNEL} ")


def test_docker_pulls_and_runs_it(docker: Client, reference: str, digest: str) -> None:
    docker("pull", "--quiet", reference)
    (held,) = json.loads(docker("image", "inspect", reference))
    assert held["RepoDigests"] == [f"{reference.rpartition(':')[0]}@{digest}"]
    assert held["Config"]["Labels"]["io.coreos-nvidia.driver"] == DRIVER
    pulled_and_run(docker, RUN, reference)


def test_podman_pulls_and_runs_it(podman: Client, reference: str, digest: str) -> None:
    podman("pull", "--quiet", "--tls-verify=false", reference)
    (held,) = json.loads(podman("image", "inspect", reference))
    assert held["Digest"] == digest
    pulled_and_run(podman, PODMAN_RUN, reference)


def test_docker_and_podman_read_the_index_without_running_anything(
    docker: Client, podman: Client, images_at: str, tmp_path: Path
) -> None:
    index = f"{images_at}/driver:index"
    for client, pull in ((docker, ("pull", "--quiet")), (podman, ("pull", "--quiet", "--tls-verify=false"))):
        client(*pull, index)
        container = client("create", index, "/nothing-runs").strip()
        place = tmp_path / client.words[0]
        client("cp", f"{container}:/kernel/amd64/{KERNEL}", str(place))
        client("rm", container)
        assert place.read_text().startswith(f"{DRIVER} built sha256:")
