"""What a kernel image of arm64 exports, found in bytes that name no section; and what is said where it cannot be told.

The images are made up here; tests/e2e/test_arm64.py reads real ones.
"""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from string import ascii_letters, digits

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import PairFailed
from pipeline.formats.kernels import arm64_image, kernel_image
from tests import flat_images

PLAIN = sorted([*(f"plain_{number}" for number in range(arm64_image.FEWEST)), "mempool_kfree", "kfree", "_printk"])
GPL = sorted(["__SCK__call", "dma_buf_get", "printk", "cxl_map"])
SPACES = {"dma_buf_get": "DMA_BUF", "cxl_map": "module:kvm,nvidia-*"}
CRCS = struct.pack(f"<{len(PLAIN) + len(GPL)}I", *(hash((1, n)) & 0xFFFFFFFF for n in range(len(PLAIN) + len(GPL))))
IMAGE = flat_images.flat_image(PLAIN, GPL, namespaces=SPACES)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def alone(data: bytes) -> bytes:
    return lzma.compress(data, format=lzma.FORMAT_ALONE)


def read(data: bytes, folder: Path) -> dict[str, tuple[bool, str]]:
    (folder / "vmlinuz").write_bytes(data)
    return {name: (e.gpl_only, e.namespace) for name, e in kernel_image.exports(folder / "vmlinuz").items()}


def refused(data: bytes, folder: Path, why: str) -> None:
    with pytest.raises(PairFailed) as error:
        read(data, folder)
    said = str(error.value)
    assert said.startswith("cannot be proved: the symbols of vmlinuz cannot be read (")
    assert why in said
    assert "\n" not in said


EXPECTED = {**dict.fromkeys(PLAIN, (False, "")), **{name: (True, SPACES.get(name, "")) for name in GPL}}


@pytest.mark.parametrize(
    "wrap",
    [bytes, gzip.compress, lzma.compress, zstd, flat_images.zboot, lambda d: flat_images.zboot(d, zstd, b"zstd22"),
     lambda d: flat_images.zboot(d, lzma.compress, b"xzkern"), lambda d: flat_images.zboot(d, alone, b"lzma")],
    ids=["Image", "Image.gz", "Image.xz", "Image.zst", "zboot", "zboot of zstd", "zboot of xz", "zboot of lzma"],
)  # fmt: skip
def test_names_marks_and_namespaces_are_read_however_the_image_is_packed(wrap: Callable[[bytes], bytes], tmp_path: Path) -> None:
    made = wrap(IMAGE)
    assert read(made, tmp_path) == EXPECTED
    assert kernel_image.release(tmp_path / "vmlinuz") == "6.12.102-flatcar"


def test_a_kernel_from_before_namespaces_is_read(tmp_path: Path) -> None:
    made = flat_images.flat_image(PLAIN, GPL, before_5_4=True)
    assert read(made, tmp_path) == {name: (gpl, "") for name, (gpl, _) in EXPECTED.items()}


@pytest.mark.parametrize("at", range(4))
def test_tables_are_found_at_any_place_among_whatever_else(at: int, tmp_path: Path) -> None:
    """Empty memory, offsets to one text each (as __bug_table has), small numbers (as kallsyms has), bytes like text."""
    here = b"mm/slub.c\0".ljust(12, b"\0") + b"".join(struct.pack("<iiI", -9, -4 - 12 * n - 12, 7) for n in range(900))
    numbers = struct.pack("<3000I", *range(0, 60000, 20))
    same = b"".join(struct.pack("<iii", -9, 12 * (900 - n) - 4, 12 * (900 - n) - 8) for n in range(900)) + b"name\0\0\0\0"
    before = b"\1\2\3\4" * at + bytes(100_000) + here + numbers + same + b"a_name\0another\0" * 400
    assert read(flat_images.flat_image(PLAIN, GPL, namespaces=SPACES, before=before), tmp_path) == EXPECTED


def test_crcs_behind_the_tables_change_nothing(tmp_path: Path) -> None:
    assert read(flat_images.flat_image(PLAIN, GPL, namespaces=SPACES, behind=CRCS), tmp_path) == EXPECTED


def test_a_name_that_stands_twice_is_one_symbol(tmp_path: Path) -> None:
    assert read(flat_images.flat_image(sorted([*PLAIN, "kfree"]), GPL, namespaces=SPACES), tmp_path) == EXPECTED


@pytest.mark.parametrize("crcs", [False, True])
def test_a_newer_kernel_has_one_table_and_marks_behind_it(crcs: bool, tmp_path: Path) -> None:
    names = sorted([*PLAIN, *GPL])
    behind = (CRCS if crcs else b"") + bytes(name in GPL for name in names)
    assert read(flat_images.flat_image(names, namespaces=SPACES, behind=behind), tmp_path) == EXPECTED


@given(st.integers(0, 1 << 32), st.integers(1, 200), st.binary(max_size=99))
@settings(max_examples=25, deadline=None)
def test_whatever_a_kernel_exports_is_what_is_read(seed: int, gpl: int, before: bytes) -> None:
    random, letters = Random(seed), ascii_letters + digits + "_"
    ordered = sorted({f"_{''.join(random.choices(letters, k=random.randint(1, 40)))}" for _ in range(arm64_image.FEWEST + 60)})
    marked = set(ordered[:gpl])  # the smallest, so that names begin anew where the second table does
    plain = [name for name in ordered if name not in marked]
    spaces = {name: name.upper() for name in ordered[::7]}
    made = flat_images.flat_image(plain, sorted(marked), namespaces=spaces, before=before)
    found = {(s.name, s.namespace, s.gpl_only) for s in arm64_image.symbols(made)}
    assert found == {(name, spaces.get(name, ""), name in marked) for name in ordered}


def test_an_image_without_a_table_says_so(tmp_path: Path) -> None:
    refused(flat_images.flat_image(), tmp_path, "no table of exported symbols was found in it")
    refused(flat_images.flat_image(PLAIN[:20], GPL), tmp_path, "no table of exported symbols was found in it")


def test_two_places_that_look_like_the_table_are_no_answer(tmp_path: Path) -> None:
    other = flat_images.flat_image(PLAIN, GPL)[64 + len(flat_images.BANNER) + 3 & ~3 :]
    made = flat_images.flat_image(PLAIN, GPL, before=b"\0" * (-len(flat_images.BANNER) % 4) + other)
    refused(made, tmp_path, "2 places in it look like the table of exported symbols")


def test_a_table_that_does_not_say_what_is_gpl_only_is_no_answer(tmp_path: Path) -> None:
    why = "which of its exported symbols are for GPL modules only cannot be told"
    refused(flat_images.flat_image(PLAIN), tmp_path, why)
    refused(flat_images.flat_image(PLAIN, behind=bytes(len(PLAIN))), tmp_path, why)
    refused(flat_images.flat_image(PLAIN, behind=b"\1\0" * 50), tmp_path, why)


def test_more_tables_than_are_known_are_no_answer(tmp_path: Path) -> None:
    refused(flat_images.flat_image(PLAIN, GPL, GPL[:2]), tmp_path, "its exported symbols are in 3 tables, of which two are known")


def test_an_image_for_big_endian_machines_is_refused(tmp_path: Path) -> None:
    refused(flat_images.flat_image(PLAIN, GPL, flags=0b1011), tmp_path, "it is for big-endian machines")


def test_an_image_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    refused(IMAGE[: len(IMAGE) // 2], tmp_path, "no table of exported symbols was found in it")
    refused(flat_images.zboot(IMAGE)[:600], tmp_path, "the image in its EFI program is cut off")
    refused(gzip.compress(IMAGE)[:-900], tmp_path, "vmlinuz is damaged or cut off")
    refused(flat_images.zboot(IMAGE, size=1000), tmp_path, "vmlinuz is damaged or cut off")


def test_what_is_packed_in_a_way_that_is_not_read_is_named(tmp_path: Path) -> None:
    made = flat_images.zboot(IMAGE, lambda data: b"\x02!L\x18" + data, b"lz4")
    refused(made, tmp_path, "its payload is packed in a way that is not read here (02214c18)")
    assert kernel_image.release(tmp_path / "vmlinuz") is None


def test_what_unpacks_to_more_than_any_kernel_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_image, "_MAX", 1 << 20)
    for pack in (gzip.compress, lzma.compress, alone):
        refused(flat_images.zboot(bytes(2 << 20), pack), tmp_path, "unpacks to more than 1048576 bytes")


def test_an_efi_program_of_another_kind_is_no_kernel(tmp_path: Path) -> None:
    refused(b"MZ" + bytes(500), tmp_path, "it is neither a bzImage nor an Image of arm64 nor an ELF file")
    refused(gzip.compress(b"MZ" + bytes(500)), tmp_path, "it is neither a bzImage nor an Image of arm64 nor an ELF file")


@given(st.binary(max_size=400), st.integers(0, len(IMAGE)))
@settings(max_examples=60, deadline=None)
def test_damage_anywhere_is_an_answer_or_one_line(noise: bytes, at: int) -> None:
    made = IMAGE[:at] + noise + IMAGE[at + len(noise) :]
    try:
        arm64_image.symbols(made)
    except ValueError as error:
        assert "\n" not in str(error)
