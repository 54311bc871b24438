"""What a module's file says of itself, read from real ELF files."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from pipeline.core.errors import PairFailed
from pipeline.formats.kernels.kernel_module import Export, fwversion, read_module
from tests.kernel_modules import MAGIC, TRAILER, arch, compile_module, needs_gcc, sign

pytestmark = needs_gcc


def test_modinfo_keeps_every_value_of_a_key(tmp_path: Path) -> None:
    info = {"import_ns": ["DMA_BUF", "CRYPTO"], "depends": ""}
    module = read_module(compile_module(tmp_path / "nvidia.ko", info=info))
    assert module.info["import_ns"] == ("DMA_BUF", "CRYPTO")
    assert module.info["vermagic"] == (MAGIC,)
    assert module.first("depends") == ""
    assert module.first("no such key") == ""
    assert (module.name, module.machine) == ("nvidia.ko", arch())


def test_wanted_symbols_come_with_the_crc_they_were_compiled_with(tmp_path: Path) -> None:
    path = compile_module(tmp_path / "nvidia.ko", wants={"kmalloc": 0x89ABCDEF, "mystery": None})
    assert read_module(path).undefined == {"kmalloc": 0x89ABCDEF, "mystery": None}


def test_the_version_of_module_layout_is_read_though_no_symbol_has_that_name(tmp_path: Path) -> None:
    module = read_module(compile_module(tmp_path / "nvidia.ko", wants={"kmalloc": 1}, layout=0xFFFFFFFF))
    assert module.versions == {"module_layout": 0xFFFFFFFF, "kmalloc": 1}


def test_versions_of_long_names_stand_in_a_table_of_their_own(tmp_path: Path) -> None:
    extra = (
        'static const unsigned e[] __attribute__((section("__version_ext_crcs"),used)) = {7, 9};\n'
        'static const char n[] __attribute__((section("__version_ext_names"),used)) = "short_one\\0a_very_long_one";'
    )
    module = read_module(compile_module(tmp_path / "nvidia.ko", wants={"a_very_long_one": None}, extra=extra))
    assert module.undefined == {"a_very_long_one": 9}


def test_what_the_loader_does_without_is_not_wanted(tmp_path: Path) -> None:
    module = read_module(compile_module(tmp_path / "nvidia.ko", weak=["maybe"], wants={"_GLOBAL_OFFSET_TABLE_": None}))
    assert module.undefined == {}


def test_exports_say_their_crc_and_whether_they_are_gpl_only(tmp_path: Path) -> None:
    module = read_module(compile_module(tmp_path / "nvidia-uvm.ko", offers={"free": (5, False), "bound": (6, True)}))
    assert module.exports == {"free": Export(5, "nvidia_uvm", False), "bound": Export(6, "nvidia_uvm", True)}


def test_exports_of_old_kernels_hold_the_crc_as_an_absolute_symbol(tmp_path: Path) -> None:
    entry = '.section __ksymtab,\\"a\\"\\n__ksymtab_old: .quad 0\\n.previous'
    extra = f'void old(void) {{}}\nasm("{entry}\\n__crc_old = 0x12345678");'
    module = read_module(compile_module(tmp_path / "nvidia.ko", extra=extra))
    assert module.exports == {"old": Export(0x12345678, "nvidia", False)}


def test_exports_of_new_kernels_are_gpl_only_by_a_flag(tmp_path: Path) -> None:
    extra = "".join(
        f'void {name}(void) {{}}\nasm(".section __ksymtab,\\"a\\"\\n__ksymtab_{name}: .long 0\\n.previous\\n'
        f'.section __kflagstab,\\"a\\"\\n__flags_{name}: .byte {flag}\\n.previous");\n'
        for name, flag in (("anyone", 0), ("bound", 1))
    )
    module = read_module(compile_module(tmp_path / "nvidia.ko", extra=extra))
    assert {name: export.gpl_only for name, export in module.exports.items()} == {"anyone": False, "bound": True}


def test_debug_information_is_noticed(tmp_path: Path) -> None:
    assert read_module(compile_module(tmp_path / "a.ko", flags=["-g"])).debug
    assert not read_module(compile_module(tmp_path / "b.ko")).debug


def test_a_section_that_merely_speaks_of_debugging_is_not_debug_information(tmp_path: Path) -> None:
    path = compile_module(tmp_path / "nvidia.ko", flags=["-ffunction-sections"], extra="void debug_info(void) {}")
    assert not read_module(path).debug


def test_an_appended_signature_changes_nothing_of_what_is_read(tmp_path: Path) -> None:
    path = compile_module(tmp_path / "nvidia.ko", wants={"kmalloc": 3})
    before = read_module(path)
    after = read_module(sign(path))
    assert (before.signed, after.signed) == (False, True)
    assert (after.info, after.undefined, after.versions) == (before.info, before.undefined, before.versions)


@pytest.mark.parametrize("changes", [{"id_type": 1}, {"algo": 1}, {"hash": 4}, {"sig_len": 1 << 30}, {"sig_len": 0}])
def test_a_signature_trailer_that_the_kernel_refuses_is_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    path = sign(compile_module(tmp_path / "nvidia.ko"), changes=changes)
    with pytest.raises(PairFailed, match=r"^nvidia\.ko: the signature at its end is damaged$"):
        read_module(path)


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".xz", lzma.compress), (".zst", zstandard.ZstdCompressor().compress), (".gz", gzip.compress)]
)
def test_compressed_modules_are_read_like_plain_ones(tmp_path: Path, suffix: str, pack: object) -> None:
    plain = compile_module(tmp_path / "nvidia.ko", wants={"kmalloc": 3})
    packed = tmp_path / f"nvidia.ko{suffix}"
    assert callable(pack)
    packed.write_bytes(pack(plain.read_bytes()))
    assert read_module(packed).undefined == read_module(plain).undefined
    packed.write_bytes(packed.read_bytes()[:40])
    with pytest.raises(PairFailed, match=f"^nvidia.ko{suffix}"):
        read_module(packed)


def test_every_truncation_is_one_line_and_never_a_crash(tmp_path: Path) -> None:
    whole = compile_module(tmp_path / "whole.ko", offers={"free": (5, False)}, wants={"kmalloc": 3}).read_bytes()
    cut = tmp_path / "nvidia.ko"
    for size in range(0, len(whole), 97):
        cut.write_bytes(whole[:size])
        with pytest.raises(PairFailed, match=r"^nvidia\.ko is not a kernel module: "):
            read_module(cut)


def test_other_files_are_no_modules(tmp_path: Path) -> None:
    path = tmp_path / "nvidia.ko"
    for data in (b"", b"#!/bin/sh\n", b"\x7fELF", TRAILER, b"\x7fELF" + TRAILER):
        path.write_bytes(data)
        with pytest.raises(PairFailed, match=r"^nvidia\.ko"):
            read_module(path)
    path.write_bytes(Path("/bin/sh").read_bytes())
    with pytest.raises(PairFailed, match="it has no section"):
        read_module(path)
    with pytest.raises(PairFailed, match=r"^gone\.ko cannot be read: No such file"):
        read_module(tmp_path / "gone.ko")


def test_firmware_says_its_driver(tmp_path: Path) -> None:
    extra = 'static const char v[] __attribute__((section(".fwversion"),used)) = "535.261.03";'
    path = compile_module(tmp_path / "gsp_ga10x.bin", extra=extra)
    assert fwversion(path.read_bytes()) == "535.261.03"
    assert fwversion(compile_module(tmp_path / "other.bin").read_bytes()) == ""
    assert fwversion(b"no ELF file") == ""


def test_a_section_that_reaches_beyond_the_file_is_noticed(tmp_path: Path) -> None:
    path = compile_module(tmp_path / "nvidia.ko")
    data = bytearray(path.read_bytes())
    headers, first = int.from_bytes(data[0x28:0x30], "little"), 64
    data[headers + first + 0x20 : headers + first + 0x28] = (1 << 40).to_bytes(8, "little")  # sh_size of section 1
    path.write_bytes(data)
    with pytest.raises(PairFailed, match=r"^nvidia\.ko is not a kernel module: it is cut off$"):
        read_module(path)
