"""The static proof: what may be pushed, and in which words the rest is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import PairFailed
from pipeline.formats.kernels.kernel_module import Export
from pipeline.proof.static import parse_symvers, prove_modules, prove_userspace
from tests.kernel_modules import DRIVER, KERNEL, LAYOUT, MAGIC, arch, compile_module, needs_gcc

SYMVERS = parse_symvers(
    f"{LAYOUT:#010x}\tmodule_layout\tvmlinux\tEXPORT_SYMBOL\t\n"
    "0x00000001\tkmalloc\tvmlinux\tEXPORT_SYMBOL\t\n"
    "0x00000002\trcu_lock\tvmlinux\tEXPORT_SYMBOL_GPL\t\n"
    "0x00000003\tdma_buf_get\tvmlinux\tEXPORT_SYMBOL\tDMA_BUF\n"
    "0x00000000\tmemcpy\tvmlinux\tEXPORT_SYMBOL\t\n"
    "0x00000004\tkvm_only\tvmlinux\tEXPORT_SYMBOL_GPL\tmodule:kvm,nvidia-*\n"
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory of the modules."""
    directory = tmp_path / KERNEL
    directory.mkdir()
    return directory


def prove(directory: Path, expected: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "kernel": KERNEL, "driver": DRIVER, "kind": "open", "arch": arch(), "symvers": SYMVERS, "modversions": True,
        "expected": expected or [path.name for path in directory.glob("*.ko")], **changes,
    }  # fmt: skip
    return prove_modules(directory, **values)


def refused(message: str, directory: Path, expected: list[str] | None = None, **changes: Any) -> None:
    with pytest.raises(PairFailed) as caught:
        prove(directory, expected, **changes)
    assert str(caught.value) == message


@needs_gcc
class TestModules:
    def test_a_module_that_fits_is_proved(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", wants={"kmalloc": 1, "rcu_lock": 2})
        found = {"version": DRIVER, "srcversion": "ABC123", "symbols": 2}
        assert prove(place) == {"modules": {"nvidia": found}}

    def test_what_depmod_wrote_beside_the_modules_does_not_matter(self, place: Path) -> None:
        compile_module(place / "nvidia.ko")
        (place / "modules.dep.bin").write_bytes(b"\0")
        (place / "host").symlink_to("/nowhere")
        assert list(prove(place)["modules"]) == ["nvidia"]

    def test_a_module_that_was_not_built_is_missed(self, place: Path) -> None:
        compile_module(place / "nvidia.ko")
        refused("open: nvidia-uvm.ko was not built", place, ["nvidia.ko", "nvidia-uvm.ko"])
        refused("open: nvidia.ko was not built", place / "nowhere", ["nvidia.ko"])

    @pytest.mark.parametrize("extra", ["nouveau.ko", "deep/down/nouveau.ko", "nouveau.ko.xz"])
    def test_a_module_that_nobody_asked_for_is_refused(self, place: Path, extra: str) -> None:
        compile_module(place / "nvidia.ko")
        (place / extra).parent.mkdir(parents=True, exist_ok=True)
        (place / extra).write_bytes(b"")
        refused(f"open: {Path(extra).name} is in the image and was not asked for", place, ["nvidia.ko"])

    def test_a_module_of_another_kernel_is_refused(self, place: Path) -> None:
        magic = "6.1.0-50-cloud-amd64 SMP mod_unload modversions "
        compile_module(place / "nvidia.ko", info={"vermagic": magic})
        refused(f"open: nvidia.ko: vermagic is '{magic.strip()}', the kernel is {KERNEL}", place)

    def test_a_kernel_whose_name_merely_begins_alike_is_another_kernel(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", info={"vermagic": MAGIC.replace(KERNEL, KERNEL + "-rt")})
        with pytest.raises(PairFailed, match="vermagic is"):
            prove(place)

    def test_all_modules_of_an_image_have_one_vermagic(self, place: Path) -> None:
        compile_module(place / "nvidia.ko")
        compile_module(place / "nvidia-uvm.ko", info={"vermagic": MAGIC.replace("preempt ", "")})
        with pytest.raises(PairFailed, match=r"vermagic is '.* mod_unload modversions', that of another module '"):
            prove(place)

    def test_a_module_without_modversions_does_not_fit_a_kernel_with_them(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", info={"vermagic": f"{KERNEL} SMP mod_unload "})
        refused(f"open: nvidia.ko: vermagic is '{KERNEL} SMP mod_unload', the kernel uses modversions", place)

    def test_a_module_of_another_driver_is_refused(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", info={"version": "535.309.01"})
        refused("open: nvidia.ko is version 535.309.01, the driver is 535.261.03", place)

    def test_only_nvidia_itself_must_name_its_version_and_no_module_another(self, place: Path) -> None:
        """nvidia-uvm of 470 names none: with it every pair of that branch was refused."""
        compile_module(place / "nvidia.ko")
        compile_module(place / "nvidia-uvm.ko", info={"version": ""})
        assert prove(place)["modules"]["nvidia-uvm"]["version"] == ""
        compile_module(place / "nvidia-uvm.ko", info={"version": "535.309.01"})
        refused("open: nvidia-uvm.ko is version 535.309.01, the driver is 535.261.03", place)
        (place / "nvidia-uvm.ko").unlink()
        compile_module(place / "nvidia.ko", info={"version": ""})
        refused("open: nvidia.ko is version unknown, the driver is 535.261.03", place)

    def test_a_module_for_another_machine_is_refused(self, place: Path) -> None:
        compile_module(place / "nvidia.ko")
        refused(f"open: nvidia.ko is for {arch()}, the kernel is riscv64", place, arch="riscv64")

    def test_a_module_with_debug_information_is_refused(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", flags=["-g"])
        refused("open: nvidia.ko carries debug information", place)

    def test_the_kinds_are_told_apart_by_their_license(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", info={"license": "NVIDIA"})
        refused("open: nvidia.ko: license is 'NVIDIA', which is not that of the open modules", place)
        assert prove(place, kind="proprietary")
        compile_module(place / "nvidia.ko")
        with pytest.raises(PairFailed, match="not that of the proprietary modules"):
            prove(place, kind="proprietary")


@needs_gcc
class TestSymbols:
    def test_a_kernel_with_another_layout_disagrees(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", layout=0x82164FBB)
        text = "disagrees about version of symbol module_layout (0x82164fbb, the kernel has 0xca916cb2)"
        refused(f"open: nvidia.ko: {text}", place)

    def test_a_module_without_the_version_of_the_layout_is_refused(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", layout=None)
        refused("open: nvidia.ko: no symbol version for module_layout", place)

    def test_a_symbol_with_another_crc_disagrees(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", wants={"kmalloc": 0xBAD})
        refused("open: nvidia.ko: disagrees about version of symbol kmalloc", place)

    def test_crcs_do_not_matter_on_a_kernel_without_modversions(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", wants={"kmalloc": None}, layout=None)
        assert prove(place, modversions=False)

    def test_a_symbol_without_crc_is_refused_where_the_kernel_has_one(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", wants={"kmalloc": None})
        refused("open: nvidia.ko: no symbol version for kmalloc", place)

    def test_a_symbol_whose_crc_the_kernel_does_not_know_needs_none(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", wants={"memcpy": None})
        assert prove(place)

    def test_an_unknown_symbol_is_named(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", wants={"kmalloc": 1, "gone_in_6_18": 5})
        refused("open: nvidia.ko: unknown symbol gone_in_6_18", place)

    def test_a_weak_symbol_may_be_unknown(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", weak=["maybe"])
        assert prove(place)

    def test_a_symbol_may_come_from_a_sibling(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", offers={"nvUvmInterface": (7, False)})
        compile_module(place / "nvidia-uvm.ko", wants={"nvUvmInterface": 7})
        assert sorted(prove(place)["modules"]) == ["nvidia", "nvidia-uvm"]

    def test_a_sibling_of_another_build_disagrees(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", offers={"nvUvmInterface": (8, False)})
        compile_module(place / "nvidia-uvm.ko", wants={"nvUvmInterface": 7})
        refused("open: nvidia-uvm.ko: disagrees about version of symbol nvUvmInterface", place)

    def test_a_symbol_that_the_kernel_has_already_cannot_be_exported(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", offers={"kmalloc": (1, False)})
        refused("open: nvidia.ko: exports duplicate symbol kmalloc (owned by kernel)", place)

    @pytest.mark.parametrize("license", ["NVIDIA", "MIT", "Linux-OpenIB", "GPLv2"])
    def test_a_proprietary_module_takes_no_gpl_only_symbol(self, place: Path, license: str) -> None:  # noqa: A002
        compile_module(place / "nvidia-peermem.ko", wants={"rcu_lock": 2}, info={"license": license})
        refused(f"open: nvidia-peermem.ko: uses GPL-only symbol rcu_lock, its license is '{license}'", place)

    def test_gpl_only_holds_for_symbols_of_a_sibling_too(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", offers={"nvidia_p2p": (7, True)})
        compile_module(place / "nvidia-peermem.ko", wants={"nvidia_p2p": 7}, info={"license": "Linux-OpenIB"})
        with pytest.raises(PairFailed, match=r"nvidia-peermem\.ko: uses GPL-only symbol nvidia_p2p"):
            prove(place)

    def test_since_5_9_a_module_cannot_pass_gpl_only_symbols_on_to_a_proprietary_one(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", offers={"nvUvmInterface": (7, False)}, info={"license": "NVIDIA"})
        compile_module(place / "nvidia-uvm.ko", wants={"nvUvmInterface": 7, "rcu_lock": 2})
        text = "uses GPL-only symbol rcu_lock and symbol nvUvmInterface of a proprietary module"
        refused(f"proprietary: nvidia-uvm.ko: {text}", place, kind="proprietary")

    def test_before_5_9_it_could(self, place: Path) -> None:
        info = {"vermagic": MAGIC.replace(KERNEL, "4.14.11-coreos")}
        compile_module(place / "nvidia.ko", offers={"nvUvmInterface": (7, False)}, info={"license": "NVIDIA", **info})
        compile_module(place / "nvidia-uvm.ko", wants={"nvUvmInterface": 7, "rcu_lock": 2}, info=info)
        assert prove(place, kind="proprietary", kernel="4.14.11-coreos")

    def test_a_namespace_must_be_imported(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", wants={"dma_buf_get": 3})
        refused("open: nvidia.ko: uses symbol dma_buf_get from namespace DMA_BUF, but does not import it", place)
        compile_module(place / "nvidia.ko", wants={"dma_buf_get": 3}, info={"import_ns": "DMA_BUF"})
        assert prove(place)

    def test_a_symbol_for_named_modules_is_for_them_alone(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", wants={"kvm_only": 4}, info={"import_ns": "module:kvm"})
        with pytest.raises(PairFailed, match="from namespace module:kvm,nvidia-"):
            prove(place)
        ours = {"kvm_only": Export(4, "vmlinux", True, "module:kvm,nvidia*"), "module_layout": SYMVERS["module_layout"]}
        assert prove(place, symvers=ours)

    def test_without_symvers_the_names_are_proved(self, place: Path) -> None:
        compile_module(place / "nvidia.ko", wants={"kmalloc": 0xBAD})
        assert prove(place, symvers=None, kernel_symbols={"kmalloc"})
        refused("open: nvidia.ko: unknown symbol kmalloc", place, symvers=None, kernel_symbols={"kfree"})

    def test_without_any_table_nothing_is_proved(self, place: Path) -> None:
        compile_module(place / "nvidia.ko")
        text = "cannot be proved: neither Module.symvers nor a symbol table of the kernel is there"
        refused(text, place, symvers=None)


class TestSymvers:
    def test_the_columns_of_all_kernels_are_understood(self) -> None:
        lines = (
            "0x4c9d28b0\tnow\tvmlinux\tEXPORT_SYMBOL_GPL\tDMA_BUF",
            "0x4c9d28b0\tplain\tdrivers/gpu/drm/drm\tEXPORT_SYMBOL\t",
            "0x4c9d28b0\tin_5_4\tDMA_BUF\tvmlinux\tEXPORT_SYMBOL_GPL",
            "0x4c9d28b0\tin_4_14\tvmlinux\tEXPORT_SYMBOL",
            "0x4c9d28b0\tlater\tvmlinux\tEXPORT_SYMBOL_GPL_FUTURE",
        )
        assert parse_symvers("\n".join(lines)) == {
            "now": Export(0x4C9D28B0, "vmlinux", True, "DMA_BUF"),
            "plain": Export(0x4C9D28B0, "drivers/gpu/drm/drm", False),
            "in_5_4": Export(0x4C9D28B0, "vmlinux", True, "DMA_BUF"),
            "in_4_14": Export(0x4C9D28B0, "vmlinux", False),
            "later": Export(0x4C9D28B0, "vmlinux", False),
        }

    def test_a_crc_of_zero_is_not_known(self) -> None:
        assert parse_symvers("0x00000000\tmemcpy\tvmlinux\tEXPORT_SYMBOL\t")["memcpy"].crc is None

    @pytest.mark.parametrize("line", ["", "<html>", "0x1\tkmalloc\tvmlinux", "kmalloc\t0x1\tvmlinux\tEXPORT_SYMBOL\t"])
    def test_a_table_that_is_none_is_refused(self, line: str) -> None:
        with pytest.raises(PairFailed, match=r"^cannot be proved: line 2 of Module\.symvers is '"):
            parse_symvers(f"0x1\tkmalloc\tvmlinux\tEXPORT_SYMBOL\t\n{line}\n")


LIB = "usr/local/nvidia/lib64"
LIBRARIES = [f"{LIB}/{name}.so.{DRIVER}" for name in ("libcuda", "libnvidia-ml", "libnvidia-ptxjitcompiler")]
FIRMWARE = f"firmware/nvidia/{DRIVER}/gsp_ga10x.bin"
NAMES = [*LIBRARIES, FIRMWARE, f"{LIB}/libnvidia-egl-gbm.so.1.1.0", "usr/lib/x86_64-linux-gnu/libfoo.so.123.45"]
Read = Callable[[str], bytes]


class TestUserspace:
    def userspace_refused(self, message: str, names: list[str], read: Read | None = None, driver: str = DRIVER) -> None:
        with pytest.raises(PairFailed) as caught:
            prove_userspace(iter(names), driver=driver, read=read)
        assert str(caught.value) == message

    def test_a_userspace_of_the_driver_is_proved(self) -> None:
        assert prove_userspace(NAMES, driver=DRIVER) == {"libraries": 3, "firmware": ["gsp_ga10x.bin"]}
        dotted = (f"./{name}" for name in NAMES)
        assert prove_userspace(dotted, driver=DRIVER)["libraries"] == 3

    @pytest.mark.parametrize("version", ["535.309.01", "535.261", "580.95.05"])
    def test_a_library_of_another_driver_is_named(self, version: str) -> None:
        odd = f"libnvidia-glcore.so.{version}"
        self.userspace_refused(f"userspace is {version}, the modules are {DRIVER}: {odd}", [*NAMES, f"{LIB}/{odd}"])
        deep = [*NAMES, f"{LIB}/vdpau/{odd}"]
        self.userspace_refused(f"userspace is {version}, the modules are {DRIVER}: {odd}", deep)

    @pytest.mark.parametrize("name", ["libcuda", "libnvidia-ml", "libnvidia-ptxjitcompiler"])
    def test_what_every_program_needs_must_be_there(self, name: str) -> None:
        names = [n for n in NAMES if name not in n] + [f"usr/lib64/{name}.so.{DRIVER}"]
        self.userspace_refused(f"userspace of {DRIVER} has no {name}.so.{DRIVER}", names)

    def test_firmware_of_another_driver_is_named(self) -> None:
        odd = "firmware/nvidia/535.309.01/gsp_tu10x.bin"
        self.userspace_refused(f"firmware is 535.309.01, the modules are {DRIVER}: gsp_tu10x.bin", [*NAMES, odd])

    def test_open_modules_need_firmware(self) -> None:
        text = f"userspace of {DRIVER} has no firmware/nvidia/{DRIVER}/gsp*.bin for its open modules"
        self.userspace_refused(text, LIBRARIES)
        self.userspace_refused(text, [*LIBRARIES, f"firmware/nvidia/{DRIVER}"])

    def test_branches_without_open_modules_need_none(self) -> None:
        names = [name.replace(DRIVER, "470.256.02") for name in LIBRARIES]
        assert prove_userspace(names, driver="470.256.02")["firmware"] == []

    @needs_gcc
    def test_the_content_must_carry_the_version_too(self, tmp_path: Path) -> None:
        contents = self.contents(tmp_path)
        assert prove_userspace(NAMES, driver=DRIVER, read=contents.__getitem__)
        dotted = {f"./{name}": data for name, data in contents.items()}
        assert prove_userspace([f"./{name}" for name in NAMES], driver=DRIVER, read=dotted.__getitem__)

    @needs_gcc
    @pytest.mark.parametrize("library", LIBRARIES[:2])
    def test_a_renamed_library_is_found_out(self, tmp_path: Path, library: str) -> None:
        contents = self.contents(tmp_path) | {library: b"\x7fELF\0" + b"525.65.01\0" + b"535.309.01\0"}
        file = library.rpartition("/")[2]
        text = f"userspace is 535.309.01, the modules are {DRIVER}: {file} by its content"
        self.userspace_refused(text, NAMES, contents.__getitem__)

    @needs_gcc
    def test_the_version_as_part_of_another_text_does_not_count(self, tmp_path: Path) -> None:
        contents = self.contents(tmp_path) | {LIBRARIES[0]: f"\0libcuda.so.{DRIVER}\0".encode()}
        text = f"libcuda.so.{DRIVER} does not carry the version {DRIVER} in it"
        self.userspace_refused(text, NAMES, contents.__getitem__)

    @needs_gcc
    def test_firmware_in_the_wrong_place_is_found_out(self, tmp_path: Path) -> None:
        contents = self.contents(tmp_path)
        other = contents | {FIRMWARE: self.firmware(tmp_path, "535.309.01")}
        text = f"firmware is 535.309.01, the modules are {DRIVER}: gsp_ga10x.bin"
        self.userspace_refused(text, NAMES, other.__getitem__)
        torn = contents | {FIRMWARE: contents[FIRMWARE][:100]}
        text = f"firmware is of unknown version, the modules are {DRIVER}: gsp_ga10x.bin"
        self.userspace_refused(text, NAMES, torn.__getitem__)

    def contents(self, tmp_path: Path) -> dict[str, bytes]:
        library = b"\x7fELF\0525.65\0" + DRIVER.encode() + b"\0"
        return dict.fromkeys(LIBRARIES, library) | {FIRMWARE: self.firmware(tmp_path, DRIVER)}

    def firmware(self, tmp_path: Path, version: str) -> bytes:
        extra = f'static const char v[] __attribute__((section(".fwversion"),used)) = "{version}";'
        return compile_module(tmp_path / "gsp.bin", extra=extra).read_bytes()
