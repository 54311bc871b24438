"""``nvidia-driver-host`` with the real podman and the real docker against a real registry.

The images are small stand-ins: a busybox, and an ``nvidia-driver`` that tells how it was started instead of loading anything. All
else is real: the index made and signed by the pipeline's code, pulls, digests, copies out of images, the container's rights.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.build import image_names
from pipeline.build.assemble import MANIFEST_TYPE, Store, assemble, tree
from pipeline.outcomes.index import Entry, Index, dump
from pipeline.publish.signing import KEY_FILE, signer
from pipeline.registry.client import Registry
from tests import registry_process
from tests.clients import RUNTIME
from tests.host_machine import KERNEL, NEXT, PROGRAM, A, make_key
from tests.registry_process import running_registry

pytestmark = [
    pytest.mark.area("host"),
    pytest.mark.e2e,
    pytest.mark.skipif(not registry_process.installed(), reason=registry_process.MISSING),
]

# Tells what it can see, on the host's disk.
TELLS = r"""#!/bin/sh
to=/host/var/lib/nvidia-driver/told-$1
mkdir -p /host/var/lib/nvidia-driver
{ grep CapEff /proc/self/status; echo "kind ${KERNEL_MODULE_TYPE:-none}"
  if touch /host/etc/never 2> /dev/null; then echo "can write the host"; else echo "cannot write the host"; fi
  cat /etc/image; } > "$to"
echo "nvidia-driver: $1 done" >&2
"""


class RealHost:
    """A root of plain files with a GPU, one real engine, one real registry."""

    def __init__(self, root: Path, engine: str, address: str, env: dict[str, str]) -> None:
        self.root, self.engine, self.address = root / "root", engine, address.replace("127.0.0.1", "localhost")
        self.env = {**os.environ, **env, "ROOT": str(self.root), "DRIVER_RUNTIME": engine}
        self.registry, self.store = Registry(f"{self.address}/gpu", environ={}), Store(root / "layers")
        self.entries: list[Entry] = []
        self.private, public = make_key(root)
        for path, text in (
            ("proc/sys/kernel/osrelease", KERNEL),
            ("etc/os-release", "ID=debian\nVERSION_ID=12"),
            ("sys/bus/pci/devices/0000:00:06.0/vendor", "0x10de"),
            ("sys/bus/pci/devices/0000:00:06.0/class", "0x030200"),
            ("etc/nvidia-driver/driver.pub", public.read_text().strip()),
            ("etc/nvidia-driver/driver.env", f"DRIVER_REGISTRY={self.address}/gpu\nDRIVER_VERSION={A}\nKERNEL_MODULE_TYPE=open"),
        ):
            place = self.root / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text + "\n")
        busybox = Path(str(shutil.which("busybox"))).read_bytes()
        programs = {
            f"bin/{name}": (0o755, busybox)
            for name in ("sh", "grep", "ls", "ps", "wc", "touch", "cat", "mkdir", "echo", "timeout")
        }
        self.base = self.store.add(tree(programs), 0)

    def push(
        self, files: dict[str, tuple[int, bytes]], tags: list[str], labels: dict[str, str], *, program: bool, arch: str = "amd64"
    ) -> str:
        layers = [self.base, self.store.add(tree(files), 0)] if program else [self.store.add(tree(files), 0)]
        image = assemble(layers, arch=arch, epoch=0, labels=labels, names=["test"] * len(layers), program=program)
        for layer in layers:
            self.registry.push_blob(self.store.blob(layer.digest), layer.digest, layer.size)
        config = json.loads(image.manifest)["config"]
        self.registry.push_blob(image.config, config["digest"], config["size"])
        return self.registry.push_manifest(image.manifest, MANIFEST_TYPE, tags)

    def publish(self, kernel: str, build: str = "") -> str:
        files = {"usr/bin/nvidia-driver": (0o755, TELLS.encode()), "etc/image": (0o644, f"image {kernel} {build}\n".encode())}
        labels = {"io.coreos-nvidia.kernel": kernel, "io.coreos-nvidia.driver": A}
        tags = [f"{kernel}-{A}", f"{A}-{kernel}-debian12"]
        digest = self.push(files, tags, labels, program=True)
        self.entries = [entry for entry in self.entries if entry.kernel != kernel]
        self.entries.append(
            Entry(os="debian", arch="amd64", kernel=kernel, driver=A, outcome="built", tags=tuple(tags), digest=digest)
        )
        return digest

    def publish_both(self, kernel: str) -> tuple[str, dict[str, str]]:
        """The kernel's image on two architectures, under one name: digests of the index and of each image."""
        own = {"amd64": self.publish(kernel)}
        label = {"io.coreos-nvidia.driver": "not for this machine"}
        own["arm64"] = self.push({"usr/bin/nvidia-driver": (0o755, b"no")}, [], label, program=True, arch="arm64")
        parts = {arch: image_names.Part(digest, held) for arch, digest in own.items() if (held := self.registry.manifest(digest))}
        for tag in (f"{kernel}-{A}", f"{A}-{kernel}-debian12"):
            image_names.settle(tag, parts, self.registry, print, shared=True)
        return str(self.registry.digest(f"{kernel}-{A}")), own

    def publish_index(self, serial: int) -> None:
        data = dump(Index(serial=serial, generated="2026-11-24T12:00:00Z", pairs=tuple(self.entries)))
        made = signer({KEY_FILE: str(self.private)})
        assert made is not None
        self.push({"index.json": (0o644, data), "index.json.sig": (0o644, made.sign(data))}, ["index"], {}, program=False)

    def run(self, *words: str, status: int = 0, **env: str) -> str:
        command = ["sh", str(PROGRAM), *words]
        done = subprocess.run(command, env={**self.env, **env}, capture_output=True, text=True, timeout=300)
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        self.out = done.stdout
        return done.stderr

    def here(self) -> set[str]:
        """Digests of our images in the engine."""
        words = [
            self.engine,
            "images",
            "--digests",
            "--filter",
            "label=io.coreos-nvidia.kernel",
            "--format",
            "{{.Repository}} {{.Digest}}",
        ]
        listed = subprocess.run(words, env=self.env, capture_output=True, text=True, check=True).stdout
        return {line.split()[1] for line in listed.splitlines() if line.startswith(f"{self.address}/gpu/driver ")}

    def told(self, word: str) -> str:
        return (self.root / f"var/lib/nvidia-driver/told-{word}").read_text()

    def clean(self) -> None:
        words = [self.engine, "images", "--quiet", "--no-trunc"]
        for image in set(subprocess.run(words, env=self.env, capture_output=True, text=True).stdout.split()):
            inspected = [self.engine, "image", "inspect", "--format", "{{.RepoDigests}}{{.RepoTags}}", image]
            if f"{self.address}/gpu/" in subprocess.run(inspected, env=self.env, capture_output=True, text=True).stdout:
                subprocess.run([self.engine, "rmi", "--force", image], env=self.env, capture_output=True)


@pytest.fixture(scope="module", autouse=True)
def mount_points() -> Iterator[None]:
    """A container sees this machine's own root, read-only: what is mounted below it needs its directory, as a host has it."""
    made = [place for name in ("nvidia-driver", "nvidia-docker") if not (place := Path("/var/lib") / name).exists()]
    if made and os.geteuid() != 0:
        pytest.skip(f"only root can make {made[0]}")
    for place in made:
        place.mkdir()
    yield
    for place in made:
        place.rmdir()


@pytest.fixture(params=["docker"])  # podman runs in test_host_vm.py, and below where the two differ
def host(request: pytest.FixtureRequest, tmp_path: Path, engine_host: str) -> Iterator[RealHost]:
    engine = str(request.param)
    for name in (engine, "busybox", "openssl"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed (./doit.sh test installs it)")
    env = {"DOCKER_HOST": engine_host}
    if engine == "podman":
        # A store of its own; and limits that a container without all rights, such as CI's, may set.
        (tmp_path / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'
            f'[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "{RUNTIME}"\n'
        )
        env |= {"CONTAINERS_STORAGE_CONF": f"{tmp_path}/storage.conf", "CONTAINERS_CONF": f"{tmp_path}/containers.conf"}
        for driver in ("overlay", "vfs"):  # vfs is slow, and works on any disk
            settings = f'[storage]\ndriver = "{driver}"\ngraphroot = "{tmp_path}/{driver}"\nrunroot = "{tmp_path}/run-{driver}"\n'
            (tmp_path / "storage.conf").write_text(settings)
            if subprocess.run(["podman", "info"], env={**os.environ, **env}, capture_output=True).returncode == 0:
                break
    with running_registry(tmp_path / "registry") as address:
        made = RealHost(tmp_path, engine, address, env)
        yield made
        made.clean()


def test_a_boot_pulls_pins_and_starts_the_loader_with_the_rights_it_needs_and_no_more(host: RealHost) -> None:
    digest = host.publish(KERNEL)
    host.run("boot")
    assert (host.root / f"var/lib/nvidia-driver/good/{KERNEL}").read_text().split()[0] == digest
    told = host.told("load").splitlines()
    rights = int(told[0].split()[1], 16)
    wanted = {0, 1, 3, 5, 16, 19, 27, 34}  # CHOWN DAC_OVERRIDE FOWNER KILL SYS_MODULE SYS_PTRACE MKNOD SYSLOG
    held = {bit for bit in range(41) if rights >> bit & 1}
    assert held <= wanted
    assert "kind open" in told
    assert "cannot write the host" in told
    assert f"image {KERNEL} " in told
    assert [host.told(word).splitlines()[-1] for word in ("volume", "cdi")] == [told[-1]] * 2


@pytest.mark.parametrize("host", ["docker", "podman"], indirect=True)
def test_a_pinned_image_needs_no_registry_and_a_moved_tag_waits_for_the_next_prefetch(host: RealHost) -> None:
    first = host.publish(KERNEL)
    host.run("boot")
    second = host.publish(KERNEL, "built anew")
    host.run("boot")
    assert "built anew" not in host.told("load")
    assert f"it was {first}" in host.run("prefetch")
    host.run("boot")
    assert "built anew" in host.told("load")
    host.run("prefetch")
    assert host.here() == {second}, "the one before is of no more use once this one has loaded"


def test_of_a_name_that_is_an_index_the_host_takes_its_own_architecture_and_pins_what_the_name_was(host: RealHost) -> None:
    index, own = host.publish_both(KERNEL)
    host.run("boot")
    pin, how, version, _ = (host.root / f"var/lib/nvidia-driver/good/{KERNEL}").read_text().split()
    assert (pin, how, version) == (index, "tag", A)
    assert f"image {KERNEL} " in host.told("load")
    host.run("boot", DRIVER_BOOT_DEADLINE="0")
    host.publish_index(5)
    host.run("boot", DRIVER_KEY="/etc/nvidia-driver/driver.pub")
    signed = (host.root / f"var/lib/nvidia-driver/good/{KERNEL}").read_text().split()
    assert signed[:2] == [own["amd64"], "signed"], "the signed index has an entry for each architecture, with its own image"
    host.run("prefetch")
    assert host.here() & {index, own["amd64"]}, "the image stays by whichever digest it is pinned"


def test_a_missing_image_is_explained_from_the_real_index(host: RealHost) -> None:
    host.publish(NEXT)
    host.entries.append(Entry(os="debian", arch="amd64", kernel=KERNEL, driver=A, outcome="failed", reason="too few arguments"))
    host.publish_index(3)
    assert f"no image for kernel {KERNEL} and driver {A}: failed: too few arguments" in host.run("boot", status=30)


def test_digests_come_from_the_index_that_the_pipeline_signed(host: RealHost) -> None:
    digest = host.publish(KERNEL)
    host.publish_index(4)
    forged = host.publish(KERNEL, "forged")
    assert forged != digest
    host.run("boot", DRIVER_KEY="/etc/nvidia-driver/driver.pub")
    assert "forged" not in host.told("load")
    assert (host.root / f"var/lib/nvidia-driver/good/{KERNEL}").read_text().split()[:2] == [digest, "signed"]


def test_a_silent_registry_is_told_from_a_missing_image(host: RealHost) -> None:
    settings = host.root / "etc/nvidia-driver/driver.env"
    settings.write_text(f"DRIVER_REGISTRY=localhost:9/gpu\nDRIVER_VERSION={A}\nDRIVER_BOOT_DEADLINE=0\n")
    assert "refused" in host.run("boot", status=31)


def test_a_login_is_taken_from_the_file_of_credentials(tmp_path: Path, engine_host: str) -> None:
    if shutil.which("htpasswd") is None:
        pytest.skip("htpasswd is not installed (./doit.sh test installs it)")
    with running_registry(tmp_path / "registry") as address:
        host = RealHost(tmp_path, "docker", address, {"DOCKER_HOST": engine_host})
        host.publish(KERNEL)
    line = subprocess.run(["htpasswd", "-nbB", "-C", "4", "host", "secret"], check=True, capture_output=True, text=True).stdout
    with running_registry(tmp_path / "registry", htpasswd=line.strip() + "\n") as address:
        host.address = address.replace("127.0.0.1", "localhost")
        settings = host.root / "etc/nvidia-driver/driver.env"
        settings.write_text(f"DRIVER_REGISTRY={host.address}/gpu\nDRIVER_VERSION={A}\nDRIVER_BOOT_DEADLINE=0\n")
        assert "no basic auth credentials" in host.run("boot", status=33)
        login = {"auths": {host.address: {"auth": base64.b64encode(b"host:secret").decode()}}}
        (host.root / "etc/nvidia-driver/logins.json").write_text(json.dumps(login))
        with settings.open("a") as more:
            more.write("DRIVER_CREDENTIALS=/etc/nvidia-driver/logins.json\n")
        host.run("boot")
        assert f"image {KERNEL} " in host.told("load")
        host.clean()


def test_the_next_kernels_image_is_fetched_and_old_ones_go(host: RealHost) -> None:
    digests = {kernel: host.publish(kernel) for kernel in ("6.1.0-40-cloud-amd64", KERNEL, NEXT)}
    for kernel in digests:
        (host.root / "proc/sys/kernel/osrelease").write_text(f"{kernel}\n")
        if kernel != NEXT:
            host.run("boot")
    (host.root / "proc/sys/kernel/osrelease").write_text(f"{KERNEL}\n")
    (host.root / "boot").mkdir()
    for kernel in (KERNEL, NEXT):
        (host.root / f"boot/vmlinuz-{kernel}").write_text("a kernel")
    (host.root / "var/lib/nvidia-driver/previous-kernel").unlink()
    host.run("prefetch")
    assert host.here() == {digests[KERNEL], digests[NEXT]}
    host.run("may-reboot")
    assert host.out.startswith(f"free: the image for {NEXT} is here")
