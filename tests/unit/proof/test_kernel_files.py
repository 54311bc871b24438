"""What the proof needs of a kernel, in each form in which vendors publish it, and what is said where it cannot be proved."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
import types
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.config.records import File, Kernel
from pipeline.core.errors import IntegrityError, PairFailed
from pipeline.fetch.fetcher import Fetcher
from pipeline.fetch.store import Inputs
from pipeline.formats.kernels import arm64_image, kernel_image
from pipeline.proof import kernel_files, static
from pipeline.trees import tars
from pipeline.trees.spec import of_driver, of_kernel
from tests import flat_images, samples
from tests.standins import packing

FEDORA, FLATCAR = "6.1.176-200.fc44.x86_64", "6.1.176-flatcar"
SYMVERS = "0x12345678\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n0x00000001\tgpl\tvmlinux\tEXPORT_SYMBOL_GPL\t\n"
needs_packers = pytest.mark.skipif(
    not packing.have("rpmbuild", "mke2fs", "sfdisk", "bzip2", "makeself"),
    reason="rpm, e2fsprogs, fdisk, bzip2 or makeself is not installed (./doit.sh test installs them)",
)


class Shelf:
    """A store of pinned files with what a test puts there."""

    def __init__(self, root: Path, fetcher: Fetcher) -> None:
        self.root = root
        self.inputs = Inputs(root, fetcher, lambda name: ())

    def put(self, data: bytes, name: str) -> File:
        digest = hashlib.sha256(data).hexdigest()
        place = self.root / "sha256" / digest[:2] / digest
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        url = f"https://vendor.example/{name}"
        return File(name="x", version="1", sha256=digest, size=len(data), trust="vendor-sum", urls=(url,))


@pytest.fixture
def shelf(tmp_path: Path, fetcher: Fetcher) -> Shelf:
    return Shelf(tmp_path / "store", fetcher)


def kernel(form: str, **changes: object) -> Kernel:
    made: Kernel = samples.changed(samples.vendor_lock(form).kernels[0], **changes)
    return made


def gather(own: Kernel, shelf: Shelf, tmp_path: Path) -> kernel_files.KernelFiles:
    scratch = tmp_path / "build" / "proof"
    scratch.mkdir(parents=True)
    return kernel_files.gather(own, shelf.inputs, scratch)


PREL32 = ".long 0, s_{name} - ., ns_{name} - ."
"""An entry of a table of exported symbols from Linux 5.4 on."""
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed (./doit.sh test installs it)")


def vmlinux_with(
    *names: str,
    gpl: tuple[str, ...] = (),
    flags: tuple[int, ...] = (),
    form: str = PREL32,
    namespaces: Mapping[str, str] = types.MappingProxyType({}),
) -> bytes:
    """An ELF file with the tables of exported symbols that a kernel has (include/linux/export.h), by gcc."""
    lines = ['.section __ksymtab_strings,"aMS",@progbits,1']
    lines += [f'ns_{name}: .asciz "{namespaces.get(name, "")}"' for name in (*names, *gpl)]
    lines += [f's_{name}: .asciz "{name}"' for name in (*names, *gpl)]
    for section, members in (("__ksymtab", names), ("__ksymtab_gpl", gpl)):
        lines.append(f'.section {section},"a"')
        lines += [form.format(name=name) for name in members]
    if flags:
        lines += ['.section __kflagstab,"a"', f".byte {', '.join(map(str, flags))}"]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "vmlinux"
        command = ["gcc", "-x", "assembler", "-nostdlib", "-static", "-Wl,-e,0", "-o", str(made), "-"]
        done = subprocess.run(command, input="\n".join([*lines, ""]).encode(), capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return made.read_bytes()


@needs_packers
def test_rpms_give_symbols_with_their_crcs_the_kernel_and_its_modules(shelf: Shelf, tmp_path: Path) -> None:
    devel, core = tmp_path / "devel", tmp_path / "core"
    for path, text in (
        (devel / f"usr/src/kernels/{FEDORA}/Module.symvers", SYMVERS),
        (devel / f"usr/src/kernels/{FEDORA}/.config", "CONFIG_MODVERSIONS=y\n"),
        (core / f"lib/modules/{FEDORA}/vmlinuz", "the kernel"),
        (core / f"lib/modules/{FEDORA}/kernel/i2c.ko", "a module"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (core / f"lib/modules/{FEDORA}/build").symlink_to(f"/usr/src/kernels/{FEDORA}")
    packed = {
        n: packing.rpm(r, n, "6.1.176", "200.fc44", tmp_path / f"{n}.w")
        for n, r in (("kernel-devel", devel), ("kernel-core", core))
    }
    own = kernel(
        "rpms",
        headers=(shelf.put(packed["kernel-devel"].read_bytes(), "kernel-devel.rpm"),),
        image=(shelf.put(packed["kernel-core"].read_bytes(), "kernel-core.rpm"),),
    )
    files = gather(own, shelf, tmp_path)
    assert (files.symvers["printk"].crc, files.symvers["gpl"].gpl_only, files.modversions) == (0x12345678, True, True)
    assert files.vmlinuz.read_text() == "the kernel"
    assert files.modules is not None
    assert (files.modules / "kernel/i2c.ko").is_file()


@needs_packers
def test_a_developer_container_gives_symbols_and_the_release_gives_the_kernel(shelf: Shelf, tmp_path: Path) -> None:
    build = tmp_path / "root/usr/lib/modules" / FLATCAR / "build"
    build.mkdir(parents=True)
    (build / "Module.symvers").write_text(SYMVERS)
    image = packing.disk_image(tmp_path / "root", tmp_path / "c.bin.x", megabytes=8)
    headers = (shelf.put(image.read_bytes(), "flatcar_developer_container.bin.bz2"),)
    own = kernel("developer-container", headers=headers, image=(shelf.put(b"the kernel", "vmlinuz"),))
    files = gather(own, shelf, tmp_path)
    assert (set(files.symvers), files.modversions, files.vmlinuz.read_bytes()) == ({"printk", "gpl"}, False, b"the kernel")
    (tmp_path / "build/proof").rename(tmp_path / "build/before")
    with pytest.raises(PairFailed, match=r"is not the developer container of 6\.1\.177-flatcar: it has 6\.1\.176-flatcar"):
        gather(samples.changed(own, kernel="6.1.177-flatcar"), shelf, tmp_path)


def source(shelf: Shelf, config: str, image: bytes = b"") -> Kernel:
    tarball = io.BytesIO()
    with tarfile.open(fileobj=tarball, mode="w:xz") as tar:
        info = tarfile.TarInfo("linux-6.1.176/Makefile")
        tar.addfile(info, io.BytesIO())
    files = (shelf.put(tarball.getvalue(), "linux-6.1.176.tar.xz"), shelf.put(config.encode(), "config"))
    return kernel("source", headers=files, image=(shelf.put(image, "vmlinuz"),) if image else ())


@needs_gcc
def test_a_kernel_without_symvers_is_asked_itself_what_it_exports(shelf: Shelf, tmp_path: Path) -> None:
    own = source(shelf, "\nCONFIG_PCI=y\n", vmlinux_with("printk", "pci_enable_device", gpl=("rcu_read_lock",)))
    files = gather(own, shelf, tmp_path)
    assert {name: export.gpl_only for name, export in files.symvers.items()} == {
        "printk": False,
        "pci_enable_device": False,
        "rcu_read_lock": True,
    }
    assert not files.modversions


@needs_gcc
@pytest.mark.parametrize(
    "form", [PREL32, ".long 0, s_{name} - .", ".quad 0xffffffff81000000, s_{name}"], ids=["from 5.4", "from 4.19", "before"]
)
def test_what_a_kernel_exports_is_read_in_the_form_of_its_time(form: str, tmp_path: Path) -> None:
    names, gpl = [f"name_{number}" for number in range(40)], ("gpl_1", "gpl_2")
    (tmp_path / "vmlinux").write_bytes(vmlinux_with(*names, gpl=gpl, form=form))
    read = kernel_image.exports(tmp_path / "vmlinux")
    assert {name: (e.gpl_only, e.namespace) for name, e in read.items()} == {
        **dict.fromkeys(names, (False, "")),
        **dict.fromkeys(gpl, (True, "")),
    }


@needs_gcc
def test_the_tree_of_a_kernels_source_holds_what_its_image_exports_as_kbuild_reads_it(shelf: Shelf, tmp_path: Path) -> None:
    image = vmlinux_with("printk", "kfree", "cxl_map", gpl=("rcu_read_lock",), namespaces={"cxl_map": "CXL"})
    own = source(shelf, "CONFIG_PCI=y\n", image)
    (tree,) = of_kernel(own)
    with tarfile.open(tars.lay(tree, tmp_path / "trees", shelf.inputs)) as tar:
        assert tar.getnames()[-1] == f"usr/src/kernels/{own.kernel}/Module.symvers"
        written = tar.extractfile(tar.getmembers()[-1])
        assert written is not None
        text = written.read().decode()
    assert text == (
        "0x00000000\tcxl_map\tvmlinux\tEXPORT_SYMBOL\tCXL\n"
        "0x00000000\tkfree\tvmlinux\tEXPORT_SYMBOL\t\n"
        "0x00000000\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n"
        "0x00000000\trcu_read_lock\tvmlinux\tEXPORT_SYMBOL_GPL\t\n"
    )
    assert static.parse_symvers(text) == gather(own, shelf, tmp_path).symvers


def test_an_arm64_kernels_source_has_the_symvers_of_its_image_too(shelf: Shelf, tmp_path: Path) -> None:
    plain = sorted([*(f"plain_{number}" for number in range(arm64_image.FEWEST)), "kfree"])
    image = flat_images.zboot(flat_images.flat_image(plain, ["dma_buf_get"], namespaces={"dma_buf_get": "DMA_BUF"}))
    own = samples.changed(source(shelf, "CONFIG_PCI=y\n", image), arch="arm64")
    (tree,) = of_kernel(own)
    with tarfile.open(tars.lay(tree, tmp_path / "trees", shelf.inputs)) as tar:
        written = tar.extractfile(f"usr/src/kernels/{own.kernel}/Module.symvers")
        assert written is not None
        text = written.read().decode()
    assert text.splitlines()[0] == "0x00000000\tdma_buf_get\tvmlinux\tEXPORT_SYMBOL_GPL\tDMA_BUF"
    assert static.parse_symvers(text) == gather(own, shelf, tmp_path).symvers
    assert len(text.splitlines()) == len(plain) + 1


@needs_gcc
def test_the_image_decides_the_tree_of_a_kernels_source(shelf: Shelf) -> None:
    first, second = (of_kernel(source(shelf, "CONFIG_PCI=y\n", vmlinux_with(name)))[0] for name in ("printk", "kfree"))
    assert first.files == second.files
    assert first.key != second.key


def test_a_tree_whose_image_cannot_be_read_is_not_made(shelf: Shelf, tmp_path: Path) -> None:
    (tree,) = of_kernel(source(shelf, "CONFIG_PCI=y\n", b"MZ" * 400))
    with pytest.raises(PairFailed, match="cannot be proved: the symbols of vmlinuz cannot be read"):
        tars.lay(tree, tmp_path / "trees", shelf.inputs)
    assert not list((tmp_path / "trees").iterdir())


@needs_gcc
def test_a_newer_kernel_marks_in_a_table_of_flags_what_is_for_gpl_modules_only(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(vmlinux_with("printk", "rcu_read_lock", flags=(0, 1)))
    read = kernel_image.exports(tmp_path / "vmlinux")
    assert {name: export.gpl_only for name, export in read.items()} == {"printk": False, "rcu_read_lock": True}
    (tmp_path / "torn").write_bytes(vmlinux_with("printk", "rcu_read_lock", flags=(0,)))
    with pytest.raises(PairFailed, match="cannot be proved: the symbols of torn cannot be read"):
        kernel_image.exports(tmp_path / "torn")


def test_crcs_that_nobody_can_know_cannot_be_proved(shelf: Shelf, tmp_path: Path) -> None:
    own = source(shelf, "\nCONFIG_MODVERSIONS=y\n", b"image")
    with pytest.raises(PairFailed, match="cannot be proved: MODVERSIONS is on in its config and there is no Module") as refused:
        gather(own, shelf, tmp_path)
    assert "headers with a Module.symvers would help" in str(refused.value)


def test_a_kernel_that_cannot_be_booted_cannot_be_proved(shelf: Shelf) -> None:
    own = source(shelf, "\nCONFIG_PCI=y\n")
    assert kernel_files.unprovable(own, shelf.inputs).startswith("cannot be proved: no kernel image to boot")


@pytest.mark.parametrize("image", [b"", b"MZ" * 400, b"\x7fELF" + bytes(60), b"x" * 0x202 + b"HdrS\x0f\x02" + b"y" * 900])
def test_an_image_whose_symbols_cannot_be_read_cannot_be_proved(image: bytes, tmp_path: Path) -> None:
    (tmp_path / "vmlinuz").write_bytes(image)
    with pytest.raises(PairFailed, match="cannot be proved"):
        kernel_image.exports(tmp_path / "vmlinuz")


def test_a_system_map_names_what_is_exported() -> None:
    text = "ffffffff81000000 T _stext\nffffffff82000000 r __ksymtab_printk\nffffffff82000010 r __kstrtab_printk\n"
    assert set(kernel_image.of_system_map(text)) == {"printk"}


@needs_packers
def test_the_tables_and_libraries_of_a_run_file_go_where_the_image_has_them(shelf: Shelf, tmp_path: Path) -> None:
    root = tmp_path / "run"
    members = {
        "libcuda.so.535.261.03": "0755 CUDA_LIB NATIVE / MODULE:gpgpu",
        "libvdpau_nvidia.so.535.261.03": "0755 VDPAU_LIB NATIVE vdpau MODULE:vdpau",
        "32/libcuda.so.535.261.03": "0755 CUDA_LIB COMPAT32 / MODULE:gpgpu",
        "nvidia_drv.so": "0755 XMODULE_SHARED_LIB drivers MODULE:x",
        "nvidia-smi": "0755 UTILITY_BINARY MODULE:nvsmi",
        "nvidia_icd.json": "0644 VULKAN_ICD_JSON icd.d MODULE:vulkan",
        "firmware/gsp_ga10x.bin": "0644 FIRMWARE MODULE:gsp",
        "LICENSE": "0644 DOCUMENTATION MODULE:installer",
        "supported-gpus/supported-gpus.json": "0644 DOCUMENTATION INHERIT_PATH_DEPTH:0 MODULE:installer",
    }
    for name in members:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    chip = '{"devid": "0x2330", "name": "NVIDIA H100", "features": ["kernelopen", "gsp_proprietary_supported"]}'
    (root / "supported-gpus/supported-gpus.json").write_text(f'{{"chips": [{chip}]}}')
    (root / "nvidia-installer").touch()
    lines = [f"{name} {words}" for name, words in members.items()]
    lines.append("libcuda.so.1 0000 CUDA_SYMLINK NATIVE / libcuda.so.535.261.03 MODULE:gpgpu")
    (root / ".manifest").write_text("NVIDIA\n535.261.03\n" + "x\n" * 6 + "\n".join(lines) + "\n")
    run = packing.run_file(root, tmp_path / "NVIDIA-Linux-x86_64-535.261.03.run")
    driver = samples.run_driver(userspace=(shelf.put(run.read_bytes(), run.name),))
    (tree,) = of_driver(driver, "userspace")
    made = tars.lay(tree, tmp_path / "trees", shelf.inputs)
    with tarfile.open(made) as tar:
        names = set(tar.getnames())
        table = tar.extractfile("out/opt/nvidia-driver/gpus")
        assert table is not None
        assert table.read() == b"10de:2330 both\n"
    volume = "out/usr/local/nvidia"
    assert names == {
        f"{volume}/lib64/libcuda.so.535.261.03",
        f"{volume}/lib64/libcuda.so.1",
        f"{volume}/lib64/vdpau/libvdpau_nvidia.so.535.261.03",
        f"{volume}/bin/nvidia-smi",
        f"{volume}/share/vulkan/icd.d/nvidia_icd.json",
        "out/firmware/nvidia/535.261.03/gsp_ga10x.bin",
        "out/opt/nvidia-driver/gpus",
        "out/usr/share/licenses/nvidia-535.261.03/LICENSE",
    }
    assert tars.lay(tree, tmp_path / "trees", shelf.inputs).stat().st_ino == made.stat().st_ino, "made once"


def test_a_tree_that_cannot_be_made_leaves_nothing_behind(shelf: Shelf, tmp_path: Path) -> None:
    own = kernel("rpms", headers=(shelf.put(b"<html>Not found</html>" * 9, "kernel-devel.rpm"),))
    (tree,) = of_kernel(own)
    with pytest.raises(IntegrityError, match=r"kernel-devel\.rpm is not an RPM package"):
        tars.lay(tree, tmp_path / "trees", shelf.inputs)
    assert not list((tmp_path / "trees").iterdir())


def test_a_symbol_that_only_a_module_of_the_kernel_could_export_says_what_would_help(shelf: Shelf) -> None:
    unknown = PairFailed("open: nvidia-drm.ko: unknown symbol drm_dev_alloc")
    said = kernel_files.what_helps(source(shelf, "CONFIG_DRM=m\n"), unknown).message
    assert said.startswith(
        "open: nvidia-drm.ko: unknown symbol drm_dev_alloc: the kernel image does not export it; where one of "
    )
    assert said.endswith("leave that module out (modules of [build]), or build from a headers package")
    assert kernel_files.what_helps(kernel("rpms"), unknown) is unknown
    modpost = PairFailed('open: ERROR: modpost: "drm_dev_alloc" [/build/nvidia/nvidia-drm.ko] undefined!')
    assert "leave that module out" in kernel_files.what_helps(source(shelf, "CONFIG_DRM=m\n"), modpost).message
    other = PairFailed("open: nvidia.ko: vermagic is …")
    assert kernel_files.what_helps(source(shelf, ""), other) is other
