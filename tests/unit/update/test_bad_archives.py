"""Vendors' archives that are not what they should be: ``doit update`` says each in one line, pins nothing of it, keeps nothing.

The feeds are recorded ones; behind them lie archives that are broken on purpose, under the vendors' own addresses. What the
readers refuse one by one stands in test_vendor_archives.py; that ``doit`` refuses them too, in tests/e2e/test_coreos_kernels.py.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from pipeline.core.versions import DriverVersion
from pipeline.upstream.coreos.fedora_kernel import kernel_rpm_urls
from pipeline.upstream.coreos.flatcar import file_url
from pipeline.upstream.nvidia.downloads import tesla_url
from tests.checkout import Checkout
from tests.signed_archive import Key
from tests.standins import packing
from tests.standins.driver import OLD
from tests.standins.vendors import (
    FEDORA_KERNEL,
    FEDORA_KEY,
    FEDORA_WISHES,
    FLATCAR_KERNEL,
    FLATCAR_KEY,
    FLATCAR_RELEASE,
    FLATCAR_WISHES,
    NVIDIA_WISHES,
    Vendors,
    served,
)

pytestmark = [
    pytest.mark.skipif(
        not packing.have("rpmbuild", "rpmsign", "mke2fs", "sfdisk", "bzip2", "makeself", "gpg", "gpgv"),
        reason="rpm, e2fsprogs, fdisk, bzip2, makeself or gnupg is not installed (./doit.sh test installs them)",
    ),
]
MIB = 1 << 20
LIMIT = 64 * MIB
DRIVER = "535.261.03"
MANIFEST = f"NVIDIA Accelerated Graphics Driver for Linux-x86_64\n{DRIVER}\n" + "x\n" * 6
CONTAINER, VMLINUZ, CONFIG = (
    "flatcar_developer_container.bin.bz2",
    "flatcar_production_pxe.vmlinuz",
    "flatcar_production_image_kernel_config.txt",
)
WISHES = (
    FEDORA_WISHES
    + FLATCAR_WISHES
    + """
[kernel-org]
keys = [{{fingerprint = "{key}", source = "{flatcar}"}}]
"""
    + NVIDIA_WISHES
    + """
[[nvidia.exact]]
version = "535.261.03"
reason = "a driver whose archive is broken"

[[nvidia.exact]]
version = "470.256.02"
reason = "another"

[[toolchain]]
name = "fedora-44"
os = "fedora-coreos"
image = "registry.fedoraproject.org/fedora/fedora:44"
digests = {{amd64 = "sha256:0000000000000000000000000000000000000000000000000000000000000000"}}
reason = "nothing is compiled here"
"""
)


class Broken:
    """The vendors' servers, and a checkout that follows them."""

    def __init__(self, made: Vendors, key: Key, work: Path) -> None:
        self.made, self.key, self.work = made, key, work
        mirrors = made.mirrors(work / "mirrors.toml", "localhost:1")
        self.store = work / "cache"
        self.checkout = Checkout(work / "checkout", DRIVER_MIRRORS=str(mirrors), DRIVER_CACHE=str(self.store))
        wishes = WISHES.format(key=made.fingerprint, fedora=FEDORA_KEY, flatcar=FLATCAR_KEY, channel="stable")
        (self.checkout.root / "versions.toml").write_text(wishes)
        self.checkout.relock(lambda lock: msgspec.structs.replace(lock, drivers=(), kernels=(), pending=(), pending_drivers=()))
        self.signed(VMLINUZ, b"vmlinuz")

    def signed(self, name: str, data: bytes) -> None:
        """A file of Flatcar's release, with signature and digests."""
        url = file_url("stable", "amd64", FLATCAR_RELEASE, name)
        self.made.place(url).write_bytes(data)
        self.made.place(f"{url}.sig").write_bytes(self.key._gpg("--detach-sign", data=data))
        self.made.place(f"{url}.DIGESTS").write_text(f"# SHA512 HASH\n{hashlib.sha512(data).hexdigest()}  {name}\n")

    def rpm(self, data: bytes) -> None:
        """kernel-devel."""
        self.made.place(kernel_rpm_urls(FEDORA_KERNEL)[0]).write_bytes(data)

    def run(self, version: str, data: bytes) -> None:
        """A run file."""
        self.made.place(tesla_url(DriverVersion(version), "amd64")).write_bytes(data)

    def update(self) -> dict[str, str]:
        """``doit update`` with a limit of 64 MiB: kernel or driver to the reason why it is not pinned."""
        before = self.files()
        ran = self.checkout.doit("update", DRIVER_MAX_UNPACKED=str(LIMIT)).ended(0)
        assert "Traceback" not in ran.err + ran.out
        assert self.files() - before == set(), "nothing is left behind"
        lock = json.loads((self.checkout.root / "versions.lock").read_text())
        assert not {"kernels", "drivers"} & {key for key, entries in lock.items() if entries}, "nothing of it is pinned"
        reasons = {entry["kernel"]: entry["reason"] for entry in lock["pending"]}
        reasons |= {entry["version"]: entry["reason"] for entry in lock["pending_drivers"]}
        assert not [reason for reason in reasons.values() if "\n" in reason]
        return reasons

    def files(self) -> set[Path]:
        """What lies in the store of pinned files, and below ``build`` but for the cache of feeds and doit's own state."""
        build = self.checkout.root / "build"
        found = {path for path in build.rglob("*") if path.is_file()} if build.exists() else set()
        own = {build / name for name in ("doit.db", "run.lock")}
        return {path for path in found if path not in own and "http" not in path.parts} | set(self.store.glob("sha256/*/*"))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, signing_key: Key, shared: Path) -> Iterator[Broken]:
    work = tmp_path_factory.mktemp("broken")
    with served(work / "www", shared / "upstream", signing_key) as made:
        yield Broken(made, signing_key, work)


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """A small run file with that manifest."""
    work = tmp_path_factory.mktemp("runs")

    def make(listed: str, zeros: int = 0) -> bytes:
        root = work / hashlib.sha256(f"{listed}{zeros}".encode()).hexdigest()[:8]
        (root / "kernel").mkdir(parents=True, exist_ok=True)
        (root / "kernel/Kbuild").touch()
        (root / "nvidia-installer").touch()
        with (root / "zeros").open("wb") as file:
            file.truncate(zeros)
        (root / ".manifest").write_text(MANIFEST + "kernel/Kbuild 0644 KERNEL_MODULE_SRC MODULE:resman\n" + listed)
        return packing.run_file(root, root.with_suffix(".run"), packing="--gzip").read_bytes()

    return make


def climbing(run: bytes, name: str, *, link: str = "") -> bytes:
    """A run file with another archive behind its script."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = (tarfile.SYMTYPE, link) if link else (tarfile.REGTYPE, "")
        tar.addfile(info)
    return run[: run.index(b"\x1f\x8b\x08")] + lzma.compress(out.getvalue(), preset=0)


def test_what_is_no_archive_or_lies_about_what_it_holds(
    broken: Broken, plain_run: Callable[[str], bytes], tmp_path: Path
) -> None:
    """An RPM that is not one, a disk image cut short, a run file whose manifest lies, and a page of HTML."""
    build = tmp_path / "root/usr/lib/modules" / FLATCAR_KERNEL / "build"
    build.mkdir(parents=True)
    (build / "Module.symvers").write_text("content")
    image = packing.disk_image(tmp_path / "root", tmp_path / "c.bin.x", megabytes=8).read_bytes()
    broken.rpm(b"<html>not found</html>" * 100)
    broken.signed(CONTAINER, image[: len(image) // 2])
    broken.run(DRIVER, plain_run("libcuda.so.1 0755 CUDA_LIB NATIVE / MODULE:gpgpu\n"))
    broken.run(OLD, b"<html>not found</html>" * 100)
    reasons = broken.update()
    assert "kernel-devel-6.1.176-200.fc44.x86_64.rpm is not an RPM package" in reasons[FEDORA_KERNEL]
    assert f"{CONTAINER} is damaged or cut off" in reasons[FLATCAR_KERNEL]
    assert "its .manifest names 'libcuda.so.1', which it does not hold" in reasons[DRIVER]
    assert f"NVIDIA-Linux-x86_64-{OLD}.run is not a self-extracting archive" in reasons[OLD]


def test_what_would_leave_its_tree_is_of_another_version_or_has_no_end(
    broken: Broken, plain_run: Callable[..., bytes], tmp_path: Path
) -> None:
    """``../`` in an archive, a bomb, a package of another kernel, a config for another version."""
    root = tmp_path / "kernel-devel"
    (root / "usr/src").mkdir(parents=True)
    (root / "usr/src/x").touch()
    other = packing.rpm(root, "kernel-devel", "6.1.175", "200.fc44", tmp_path / "work")
    broken.rpm(packing.signed_rpm(other, broken.key.home, tmp_path / "signed").read_bytes())
    broken.made.place(file_url("stable", "amd64", FLATCAR_RELEASE, CONTAINER)).unlink(missing_ok=True)
    broken.signed(CONFIG, b"#\n# Linux/x86 6.1.17 Kernel Configuration\n#\nCONFIG_PCI=y\n")
    broken.run(DRIVER, climbing(plain_run(""), "../../etc/passwd"))
    broken.run(OLD, plain_run("", 80 * MIB))
    reasons = broken.update()
    assert "holds kernel-devel-6.1.175-200.fc44.x86_64" in reasons[FEDORA_KERNEL]
    assert f"{CONFIG} is the configuration of 6.1.17, not of " in reasons[FLATCAR_KERNEL]
    assert "holds the name '../../etc/passwd', which leaves the tree" in reasons[DRIVER]
    assert f"unpacks to more than {LIMIT} bytes" in reasons[OLD]


def test_absolute_names_links_out_of_the_tree_and_names_in_a_manifest(broken: Broken, plain_run: Callable[[str], bytes]) -> None:
    broken.run(DRIVER, climbing(plain_run(""), "/etc/passwd"))
    broken.run(OLD, climbing(plain_run(""), "kernel/link", link="../../outside"))
    reasons = broken.update()
    assert "holds the name '/etc/passwd', which leaves the tree" in reasons[DRIVER]
    assert "links 'kernel/link' to '../../outside', outside the tree" in reasons[OLD]
    broken.run(DRIVER, plain_run("../../etc/passwd 0644 DOCUMENTATION\n"))
    broken.run(OLD, plain_run("nvidia-smi 0999 UTILITY_BINARY MODULE:utils\n"))
    reasons = broken.update()
    assert "its .manifest names '../../etc/passwd', which leaves the tree" in reasons[DRIVER]
    assert "line 10 of its .manifest is 'nvidia-smi 0999 UTILITY_BINARY MODULE:utils'" in reasons[OLD]
