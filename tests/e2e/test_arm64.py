"""arm64 for real: Debian's arm64 kernel and driver, compiled on amd64 by the cross compiler, proved, booted, pushed and pulled.

What an arm64 kernel image exports is read out of Debian's real ones too, of 6.1 and of 6.12.

The lock is tests/arm64/versions.lock. To stay within minutes the open ``nvidia.ko`` alone is compiled, and of the userspace
only what the proof reads is taken; docs/arm64.md has the figures of a whole pair.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.build import image_names
from pipeline.build.assemble import MANIFEST_TYPE, Layer, assemble, tree
from pipeline.build.pair import unpack_layer
from pipeline.cli.workspace import Workspace
from pipeline.config.records import File, Lock
from pipeline.core.errors import BadFileError, NotFoundError, PairFailed
from pipeline.engine.client import Engine
from pipeline.formats import debs
from pipeline.formats.kernels import kernel_image, kernel_module
from pipeline.proof import boot, kernel_files, static
from tests import flat_images, registry_process
from tests.checkout import DRIVER, ROOT, Checkout, Ran, layers
from tests.registry_process import running_registry
from tests.tiny_project import walk

QEMU = boot.MACHINES["arm64"][0]
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.full,
    pytest.mark.area("arm64"),
    pytest.mark.skipif(not registry_process.installed(), reason=registry_process.MISSING),
    pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed (./doit.sh test installs it)"),
]
Pushed = tuple[dict[str, Any], list[Layer]]
"""An image's configuration, and its layers."""
KERNEL, OTHER = "6.1.0-47-cloud-arm64", "6.1.0-50-cloud-arm64"
NEWER = "6.12.117+deb12-cloud-arm64"
NEWER_FILES = [
    File(
        name=f"linux-{part}-{NEWER}",
        version="6.12.117-1~deb12u1",
        sha256=sha256,
        size=size,
        trust="signed-index",
        archive="debian-security",
        path=f"pool/updates/main/l/{source}/linux-{part}-{NEWER}_6.12.117-1~deb12u1_arm64.deb",
    )
    for part, source, size, sha256 in (
        ("image", "linux-signed-6.12-arm64", 28341196, "dacb299a09c53cea91e49d7e9e9dc851b9ae1f858c27bea3ebf57831d0447cab"),
        ("headers", "linux-6.12", 2986356, "865c91b242877af3d2e918b2791468e4db7377109025a58e35939f305636caeb"),
    )
]
"""A kernel of which the image alone is read; no driver of the lock is for it."""
READ = {"libcuda1", "libnvidia-ml1", "libnvidia-ptxjitcompiler1", "firmware-nvidia-gsp", "nvidia-smi"}
"""The packages of the userspace that the proof looks into, and a program."""


def small(lock: Lock) -> Lock:
    drivers = (
        msgspec.structs.replace(driver, userspace=tuple(file for file in driver.userspace if file.name in READ))
        for driver in lock.drivers
    )
    return msgspec.structs.replace(lock, drivers=tuple(drivers))


@pytest.fixture(scope="module")
def checkout(room: Path, environ: dict[str, str]) -> Iterator[Checkout]:
    with running_registry(room / "arm64-registry") as address:
        made = Checkout(room / "arm64", DRIVER_REGISTRY=address.replace("127.0.0.1", "localhost"), **environ)
        for name in ("versions.toml", "versions.lock"):
            shutil.copy(ROOT / "tests/arm64" / name, made.root / name)
        made.relock(small)
        yield made


@pytest.fixture(scope="module")
def built(checkout: Checkout) -> Ran:
    return checkout.doit("--json", f"image:debian/arm64:{KERNEL}*").ended(0)


@pytest.fixture(scope="module")
def space(checkout: Checkout, built: Ran) -> Workspace:
    assert built.status == 0
    return checkout.space()


@pytest.fixture(scope="module")
def entry(checkout: Checkout, built: Ran) -> dict[str, Any]:
    assert built.status == 0
    (made,) = (pair for pair in checkout.index()["pairs"] if pair["kernel"] == KERNEL)
    return dict(made)


@pytest.fixture(scope="module")
def image(space: Workspace) -> Pushed:
    """The pushed image's configuration, and its layers."""
    held = space.registry.manifest(f"{KERNEL}-{DRIVER}")
    assert held is not None
    assert held.media_type == MANIFEST_TYPE
    manifest = json.loads(held.data)
    config = json.loads(space.registry.blob(manifest["config"]["digest"]))
    return config, layers(manifest, config)


@pytest.fixture(scope="module")
def unpacked(space: Workspace, image: Pushed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layer's files, one over the other."""
    root = tmp_path_factory.mktemp("image")
    for layer in image[1]:
        unpack_layer(space.shop, layer, root)
    return root


@pytest.fixture(scope="module")
def module(unpacked: Path) -> Path:
    return unpacked / "opt/lib/modules" / KERNEL / "nvidia.ko"


def test_it_is_compiled_on_amd64_proved_and_booted_as_arm64(entry: dict[str, Any]) -> None:
    assert (entry["outcome"], entry["kinds"], entry["arch"]) == ("built", ["open"], "arm64")
    assert entry["tags"] == [f"{KERNEL}-{DRIVER}", f"{DRIVER}-{KERNEL}-debian12"]
    assert entry["proof"]["modules"]["open"]["nvidia"]["symbols"] > 200
    assert "No such device" in entry["proof"]["boot"]["open"], "the module's own code ran on the arm64 kernel and found no GPU"


def test_image_and_every_program_in_it_are_for_arm64(image: Pushed, unpacked: Path, module: Path) -> None:
    config, _ = image
    assert (config["architecture"], config["os"]) == ("arm64", "linux")
    assert config["config"]["Labels"]["io.coreos-nvidia.arch"] == "arm64"
    read = kernel_module.read_module(module)
    assert (read.machine, read.debug) == ("arm64", False)
    assert read.first("vermagic").split()[0] == KERNEL
    assert "aarch64" in read.first("vermagic").split()
    machines = set()
    for path in unpacked.rglob("*"):
        if path.is_file() and not path.is_symlink() and "firmware" not in path.parts:
            with path.open("rb") as file:
                head = file.read(20)
            if head[:4] == b"\x7fELF":
                machines.add(int.from_bytes(head[18:20], "little"))
    assert machines == {183}, "EM_AARCH64 (elf.h)"
    assert "ARCH=arm64" in (unpacked / "opt/nvidia-driver/image.env").read_text()


def test_libraries_lie_under_their_sonames_where_the_linker_of_arm64_looks(unpacked: Path) -> None:
    for name in ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1", "libcuda.so"):
        link = unpacked / "usr/lib/aarch64-linux-gnu" / name
        assert link.resolve().is_relative_to(unpacked / "usr/local/nvidia/lib64"), name
        assert link.resolve().is_file()
    assert not (unpacked / "etc/ld.so.cache").exists()


@pytest.fixture(scope="module")
def other(space: Workspace, tmp_path_factory: pytest.TempPathFactory) -> kernel_files.KernelFiles:
    kernel = next(kernel for kernel in space.lock.kernels if kernel.kernel == OTHER)
    return kernel_files.gather(kernel, space.inputs, tmp_path_factory.mktemp("other"))


def own_of(package: Path, scratch: Path) -> list[tuple[str, bool, str]]:
    """What the kernel itself exports by the Module.symvers of that headers package: name, GPL mark, namespace."""
    (table,) = debs.unpack(package, scratch, lambda name: name.endswith("/Module.symvers"))
    found = static.parse_symvers(table.read_text()).items()
    return sorted((name, e.gpl_only, e.namespace) for name, e in found if e.module == "vmlinux")


@pytest.mark.parametrize("kernel", [KERNEL, OTHER, NEWER])
def test_what_a_real_image_exports_is_what_its_headers_package_says(kernel: str, checkout: Checkout, tmp_path: Path) -> None:
    space = checkout.space()
    files = {NEWER: NEWER_FILES, **{k.kernel: (k.image[0], k.headers[0]) for k in space.lock.kernels}}[kernel]
    try:
        image, headers = (space.inputs.path(file) for file in files)
    except NotFoundError as error:
        pytest.skip(f"{error.message}: another of its series would do")
    (vmlinuz,) = debs.unpack(image, tmp_path / "image", lambda name: name.startswith("boot/vmlinuz"))
    exports = kernel_image.exports(vmlinuz)
    assert sorted((name, e.gpl_only, e.namespace) for name, e in exports.items()) == own_of(headers, tmp_path)
    assert kernel_image.release(vmlinuz) == kernel


@pytest.mark.parametrize(
    ("kernel", "arch", "why"),
    [
        (OTHER, "arm64", f"vermagic is '{KERNEL} .*', the kernel is {OTHER}"),
        (KERNEL, "arm64", "disagrees about version of symbol module_layout"),
        (KERNEL, "amd64", r"\.ko is for arm64, the kernel is amd64"),
    ],
)
def test_the_static_proof_refuses_it_for_another_kernel_or_machine(
    module: Path, other: kernel_files.KernelFiles, kernel: str, arch: str, why: str
) -> None:
    with pytest.raises(PairFailed, match=why):
        static.prove_modules(
            module.parent,
            kernel=kernel,
            driver=DRIVER,
            kind="open",
            arch=arch,
            expected=["nvidia.ko"],
            symvers=other.symvers,
            modversions=other.modversions,
        )


def test_another_arm64_kernel_refuses_it_in_its_own_words(
    space: Workspace, image: Pushed, module: Path, other: kernel_files.KernelFiles, tmp_path: Path
) -> None:
    """That kernel as Fedora packs its own: in a program of EFI, which QEMU 7.2 does not start."""
    unpack_layer(space.shop, image[1][0], tmp_path / "base")
    packed = tmp_path / "vmlinuz"
    packed.write_bytes(flat_images.zboot(other.vmlinuz.read_bytes(), lambda data: gzip.compress(data, 1)))
    with pytest.raises(PairFailed, match="disagrees about version of symbol module_layout"):
        boot.boot(packed, {"open": module}, base=tmp_path / "base", kernel_modules=other.modules, arch="arm64")


def test_a_second_run_finds_all_done(checkout: Checkout, built: Ran) -> None:
    assert built.status == 0
    assert checkout.doit("--json", f"image:debian/arm64:{KERNEL}*").ended(0).work == []


def test_a_vendors_image_is_pulled_for_the_architecture_that_is_asked_for(checkout: Checkout, engine_host: str) -> None:
    """By the digest of an index, which is the same for both; and one image for the other machine is refused."""
    space = checkout.space()
    registry, engine = space.registry, Engine(engine_host)
    parts, name = {}, registry.reference("vendor").rpartition(":")[0]
    for arch in ("amd64", "arm64"):
        layer = space.shop.store.add(tree({"etc/machine": (0o644, f"a vendor's {arch}".encode())}), 0)
        made = assemble([layer], arch=arch, epoch=0, labels={}, names=[f"a vendor's, {arch}"], program=False)
        space.shop.push_image(made, [])
        held = registry.manifest(made.digest)
        assert held is not None
        parts[arch] = image_names.Part(f"vendor-{arch}", held)
    image_names.settle("vendor", parts, registry, print, shared=True)
    index = registry.digest("vendor")
    assert index is not None
    wanted = {arch: f"driver-from:{index[-16:]}-{arch}" for arch in parts}
    try:
        for arch in ("arm64", "amd64", "arm64"):
            engine.pull(name, index, wanted[arch], arch)
            said = subprocess.run(
                ["docker", "--host", engine_host, "image", "inspect", "--format", "{{.Architecture}}", wanted[arch]],
                check=True,
                capture_output=True,
                text=True,
            )
            assert said.stdout.strip() == arch
        only = parts["amd64"].manifest.digest
        with pytest.raises(
            BadFileError, match=rf"{only} is no image for arm64 \(it is for amd64\): give the digest of its image"
        ):
            engine.pull(name, only, f"{wanted['arm64']}-only", "arm64")
    finally:
        for tag in (*wanted.values(), f"{name}@{index}", f"{name}@{parts['amd64'].manifest.digest}"):
            engine.remove(tag)
        engine.close()


def test_under_one_name_with_an_amd64_image_each_client_takes_the_machine_that_it_asks_for(
    space: Workspace, entry: dict[str, Any]
) -> None:
    registry, store = space.registry, space.shop.store
    layer = store.add(tree({"etc/machine": (0o644, b"amd64")}), 0)
    amd = assemble([layer], arch="amd64", epoch=0, labels={}, names=["for amd64"], program=False)
    space.shop.push_image(amd, [])
    manifests = {"amd64": registry.manifest(amd.digest), "arm64": registry.manifest(entry["digest"])}
    parts = {arch: image_names.Part(arch, held) for arch, held in manifests.items() if held}
    image_names.settle("both", parts, registry, print, shared=True)
    for arch, digest in (("amd64", amd.digest), ("arm64", entry["digest"])):
        words = ["skopeo", "inspect", "--tls-verify=false", f"--override-arch={arch}", f"docker://{registry.reference('both')}"]
        said = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        held = registry.manifest(digest)
        assert held is not None
        assert said["Architecture"] == arch
        assert said["Layers"] == [part["digest"] for part in json.loads(held.data)["layers"]]
    assert walk(registry)
