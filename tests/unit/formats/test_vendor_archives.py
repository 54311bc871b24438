"""RPMs, disk images and run files: read without running, mounting or trusting anything in them.

Made here by the vendors' own programs (rpmbuild, mke2fs and sfdisk, makeself) around a small tree.
"""

from __future__ import annotations

import io
import lzma
import os
import random
import shutil
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.core.errors import IntegrityError, PipelineError
from pipeline.formats import gpt, makeself, rpms, unpacking
from pipeline.formats.ext4 import Ext4, _Inode
from pipeline.formats.openpgp import Keys, dearmour
from pipeline.formats.unpacking import Entry, from_tar, to_directory, to_tar
from pipeline.trees import userspace
from tests.signed_archive import Key
from tests.standins import packing

MIB = 1 << 20
LIMIT = 64 * MIB
HEADER = "NVIDIA stand-in\n535.261.03\n" + "x\n" * 6
pytestmark = pytest.mark.skipif(
    not packing.have("rpmbuild", "mke2fs", "sfdisk", "bzip2", "makeself"),
    reason="rpm, e2fsprogs, fdisk, bzip2 or makeself is not installed (./doit.sh test installs them)",
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vendor")


@pytest.fixture(scope="module")
def tree(work: Path) -> Path:
    """A tree with what kernels' packages hold: files, an empty one, two names of one, links, a large file with holes."""
    root = work / "tree"
    kernel = root / "usr/src/kernels/K"
    (kernel / "include/many").mkdir(parents=True)
    for number in range(300):
        (kernel / f"include/many/header-{number:03}.h").write_text(f"#define N {number}\n")
    (kernel / "Module.symvers").write_text("0x00000000\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n")
    os.link(kernel / "Module.symvers", kernel / "same")
    (kernel / "empty").touch()
    (kernel / "large").write_bytes(os.urandom(200_000) + bytes(3 * MIB) + b"the end")
    (root / "usr/lib/modules/K").mkdir(parents=True)
    (root / "usr/lib/modules/K/build").symlink_to("/usr/src/kernels/K")
    (root / "usr/lib/modules/K/source").symlink_to("build")
    (root / "usr/lib/modules/K/far").symlink_to("../" * 2 + "x" * 90)
    return root


@pytest.fixture(scope="module")
def rpm(tree: Path, work: Path) -> Path:
    return packing.rpm(tree, "kernel-devel", "6.1.176", "200.fc44", work / "rpm")


@pytest.fixture(scope="module")
def image(tree: Path, work: Path) -> Path:
    return packing.disk_image(tree, work / "flatcar_developer_container.bin.x", megabytes=16)


@pytest.fixture(scope="module")
def run(tree: Path, work: Path) -> Path:
    root = work / "run"
    shutil.copytree(tree, root, symlinks=True)
    (root / "kernel").mkdir()
    (root / "kernel/Kbuild").write_text("obj-m := nvidia.o\n")
    (root / "libcuda.so.535.261.03").write_text("library")
    (root / "nvidia-installer").write_text("#!/bin/sh\nexit 1\n")
    listed = "nvidia-installer 0755 INSTALLER_BINARY\nlibcuda.so.535.261.03 0755 CUDA_LIB NATIVE / MODULE:gpgpu\n"
    listed += "kernel/Kbuild 0644 KERNEL_MODULE_SRC INHERIT_PATH_DEPTH:1 MODULE:resman\n"
    (root / ".manifest").write_text(HEADER + listed)
    return packing.run_file(root, work / "NVIDIA-Linux-x86_64-535.261.03.run")


def held(entries: Iterator[Entry]) -> dict[str, bytes | str]:
    """Files with their bytes, links with their target."""
    content: dict[str, bytes | str] = {}
    for entry in entries:
        if entry.kind == "file":
            assert entry.data is not None
            content[entry.name] = entry.data.read()
        elif entry.kind == "hardlink":
            content[entry.name] = content[entry.target]
        elif entry.kind == "link":
            content[entry.name] = "-> " + entry.target
    return content


def on_disk(root: Path, name: Callable[[str], str] = str) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(root)): "-> " + unpacking.relative(str(path.relative_to(root)), str(path.readlink()), "")
        if path.is_symlink()
        else path.read_bytes()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


READERS: dict[str, Callable[[Path, Path, int], Iterator[Entry]]] = {
    "rpm": lambda path, scratch, limit: rpms.entries(path, limit),
    "image": lambda path, scratch, limit: gpt.entries(path, ["usr"], scratch, limit),
    "run": lambda path, scratch, limit: makeself.entries(path, limit),
}


@pytest.mark.parametrize("packed", ["zstd", "xz", "gzip"])
def test_an_rpm_gives_the_tree_it_was_made_of(packed: str, tree: Path, work: Path) -> None:
    path = packing.rpm(tree, "kernel-devel", "6.1.176", "200.fc44", work / packed, packing=packed)
    assert rpms.verify(path, None).nvra == "kernel-devel-6.1.176-200.fc44.x86_64"
    assert held(rpms.entries(path)) == on_disk(tree)


def test_a_disk_image_gives_the_tree_it_was_made_of(image: Path, tree: Path, work: Path) -> None:
    assert held(gpt.entries(image, ["usr"], work)) == on_disk(tree)


def test_a_disk_image_follows_links_inside_its_own_root(image: Path, work: Path) -> None:
    with gpt.opened(image, work) as root:
        assert root.resolve("usr/lib/modules/K/source/Module.symvers") is not None
        assert root.names("/usr/lib/modules") == ["K"]
        assert root.resolve("usr/lib/nothing") is None
        names = {entry.name for entry in root.walk("usr/lib/modules/K/build")}
    assert "usr/src/kernels/K/large" in names, "entries carry the names they have, not those they were asked by"


@pytest.mark.parametrize("packed", ["--xz", "--zstd", "--gzip", "--bzip2"])
def test_a_run_file_gives_its_files_without_being_run(packed: str, tree: Path, work: Path) -> None:
    root = work / f"run{packed}"
    shutil.copytree(tree, root, symlinks=True)
    (root / "nvidia-installer").write_text("#!/bin/sh\ntouch /tmp/was-run\n")
    path = packing.run_file(root, work / f"{packed}.run", packing=packed)
    assert held(makeself.entries(path)) == on_disk(root)


def test_a_run_file_says_by_its_manifest_what_each_file_is(run: Path) -> None:
    manifest, files = makeself.read(run)
    assert manifest.version == "535.261.03"
    by_name = {listed.name: listed for listed in manifest.listed}
    assert by_name["libcuda.so.535.261.03"].type == "CUDA_LIB"
    assert by_name["libcuda.so.535.261.03"].free_words == ("/",)
    assert by_name["kernel/Kbuild"].type == makeself.KERNEL_SOURCE
    assert files["kernel/Kbuild"][1] == len("obj-m := nvidia.o\n")


MANIFEST_LIES = {
    "a file that is not there": ("libgone.so 0755 CUDA_LIB NATIVE / MODULE:x\n", "names 'libgone.so', which it does not hold"),
    "a name that climbs": ("../../etc/passwd 0644 DOCUMENTATION\n", "leaves the tree"),
    "an absolute name": ("/etc/passwd 0644 DOCUMENTATION\n", "leaves the tree"),
    "a place that climbs": (
        "icd.json 0755 VULKAN_ICD_JSON ../../../../../usr/bin MODULE:x\n",
        "puts 'icd.json' into '../../../../../usr/bin', which leaves the tree",
    ),
    "a line of another form": ("what is this\n", "line 9 of its .manifest"),
    "module sources left out": (
        "nvidia-installer 0755 INSTALLER_BINARY\n",
        "holds 'kernel/Kbuild', which its .manifest does not",
    ),
}


@pytest.mark.parametrize("lie", MANIFEST_LIES)
def test_a_manifest_that_lies_is_refused(lie: str, work: Path) -> None:
    root = work / f"lie-{lie}"
    (root / "kernel").mkdir(parents=True)
    (root / "kernel/Kbuild").touch()
    (root / "nvidia-installer").touch()
    (root / ".manifest").write_text(HEADER + MANIFEST_LIES[lie][0])
    path = packing.run_file(root, work / f"{lie.replace(' ', '-')}.run")
    with pytest.raises(IntegrityError) as refused:
        makeself.read(path)
    assert MANIFEST_LIES[lie][1] in str(refused.value)


def test_a_manifest_reads_links_that_the_installer_would_make() -> None:
    text = (
        HEADER
        + "libcuda.so.1 0000 CUDA_SYMLINK NATIVE / libcuda.so.595.84 MODULE:gpgpu\n./32/libcuda.so 0755 CUDA_LIB COMPAT32 /\n"
    )
    link, old = makeself.parse_manifest(text, "x").listed
    assert link.is_link
    assert link.free_words == ("/", "libcuda.so.595.84")
    assert (old.name, old.compat32) == ("32/libcuda.so", True)


@pytest.mark.parametrize("kind", READERS)
def test_what_is_cut_short_is_one_line_and_leaves_nothing(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    whole = request.getfixturevalue(kind).read_bytes()
    for part in (0, 1, 50, 100, 2000, len(whole) // 3, len(whole) - 20_000, len(whole) - 1):
        cut = tmp_path / "cut"
        cut.write_bytes(whole[:part])
        with pytest.raises(IntegrityError) as refused:
            to_tar(READERS[kind](cut, tmp_path, LIMIT), tmp_path / "out.tar")
        assert "\n" not in str(refused.value)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["cut"]


@pytest.mark.parametrize("kind", READERS)
def test_damaged_bytes_are_refused_or_harmless_and_never_a_traceback(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Anywhere in the first bytes, where the structures are; a flipped byte of content is what pinned hashes are for."""
    whole = request.getfixturevalue(kind).read_bytes()
    chance = random.Random(6)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(min(len(data), 6000))] = chance.randrange(256)
        path = tmp_path / "odd"
        path.write_bytes(data)
        try:
            for entry in READERS[kind](path, tmp_path, LIMIT):
                assert not entry.name.startswith(("/", "../"))
        except PipelineError as error:
            assert "\n" not in str(error)
        assert [p.name for p in tmp_path.iterdir()] == ["odd"]


def test_a_damaged_file_system_is_refused_or_harmless_and_never_a_traceback(image: Path, tmp_path: Path) -> None:
    import bz2

    disk = bytearray(bz2.decompress(image.read_bytes()))
    chance = random.Random(7)
    start = 2 * MIB
    for _ in range(30):
        data = bytearray(disk)
        for _ in range(chance.randint(1, 200)):
            data[start + 1024 + chance.randrange(1 * MIB)] = chance.randrange(256)
        path = tmp_path / "odd"
        path.write_bytes(data)
        try:
            for entry in gpt.entries(path, ["usr"], tmp_path, LIMIT):
                assert ".." not in entry.name.split("/")
                if entry.data:
                    entry.data.read(MIB)
        except PipelineError as error:
            assert "\n" not in str(error)


def test_names_without_a_byte_count_as_the_heads_that_a_tar_gives_them() -> None:
    entries = [Entry(f"etc/{number}", 0o644, "file", 0) for number in range(100)]
    assert len(list(unpacking.within(entries, 100 * 512, "here"))) == 100
    with pytest.raises(IntegrityError, match="here unpacks to more than 51199 bytes"):
        list(unpacking.within(entries, 100 * 512 - 1, "here"))


@pytest.mark.parametrize("kind", READERS)
def test_a_bomb_is_refused_at_the_limit(kind: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr").mkdir(parents=True)
    with (root / "usr/zeros").open("wb") as file:
        file.truncate(80 * MIB)
    (root / "nvidia-installer").touch()
    if kind == "rpm":
        path = packing.rpm(root, "bomb", "1", "1", tmp_path / "rpm", packing="gzip")
    elif kind == "image":
        path = packing.disk_image(root, tmp_path / "bomb.bin.x", megabytes=96)
    else:
        path = packing.run_file(root, tmp_path / "bomb.run", packing="--gzip")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(IntegrityError, match=f"unpacks to more than {LIMIT} bytes: raise max_unpacked"):
        to_tar(READERS[kind](path, scratch, LIMIT), scratch / "out.tar")
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_a_file_with_holes_in_a_run_file_is_refused(form: str, run: Path, tmp_path: Path) -> None:
    """Ten kilobytes of tar that would be 80 MiB on the disk; a map of holes may be of any size, too. Nobody packs a driver so."""
    with (tmp_path / "zeros").open("wb") as file:
        file.truncate(80 * MIB)
    packing.run("tar", "-C", tmp_path, "--sparse", f"--format={form}", "-cf", tmp_path / "holes.tar", "zeros")
    (tmp_path / "zeros").unlink()
    holes = (tmp_path / "holes.tar").read_bytes()
    assert len(holes) < MIB
    path = tmp_path / "holes.run"
    path.write_bytes(run.read_bytes()[: makeself.payload_at(run)] + lzma.compress(holes))
    with pytest.raises(IntegrityError, match=r"holes\.run holds '.*zeros' with holes in it, which is not read"):
        to_tar(makeself.entries(path, LIMIT), tmp_path / "out.tar")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["holes.run", "holes.tar"]


def test_a_size_below_zero_makes_no_room_for_more(tmp_path: Path) -> None:
    """A size may be written in base 256, and be a negative number there."""
    info = tarfile.TarInfo("a")
    info.size = -LIMIT
    archive = io.BytesIO(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(IntegrityError, match=f"holds 'a' with a size of -{LIMIT}"):
        to_tar(unpacking.within(from_tar(archive, "x.tar"), LIMIT, "x.tar"), tmp_path / "out.tar")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cut", [600, 2000, 20_000])
def test_a_tar_that_was_cut_short_before_it_was_packed_is_refused(cut: int, run: Path, tmp_path: Path) -> None:
    """Its packing is whole, so no decoder says anything; the manifest is cut, or a file behind it."""
    listed = f"{HEADER}kernel/Kbuild 0644 KERNEL_MODULE_SRC MODULE:resman\n".encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in ((".manifest", listed), ("kernel/Kbuild", bytes(40_000))):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    path = tmp_path / "x.run"
    path.write_bytes(run.read_bytes()[: makeself.payload_at(run)] + lzma.compress(out.getvalue()[:cut]))
    for read in (makeself.read, lambda path: to_tar(makeself.entries(path), tmp_path / "out.tar")):
        with pytest.raises(IntegrityError, match=r"x\.run (is damaged or cut off|cannot be read as an archive)"):
            read(path)
    assert list(tmp_path.iterdir()) == [path]


def test_another_name_of_what_is_left_out_is_refused(tmp_path: Path) -> None:
    archive = tar_of(("a", tarfile.REGTYPE, ""), ("kernel/a", tarfile.LNKTYPE, "a"))
    entries = unpacking.renamed(from_tar(archive, "x.tar"), lambda name: name if name.startswith("kernel/") else "")
    with pytest.raises(IntegrityError, match="'kernel/a' is another name of 'a', which is not taken"):
        to_tar(entries, tmp_path / "out.tar")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("members", [("b",), ("b", "a"), ("a -> /etc/passwd", "b"), ("a", "a -> /etc/passwd", "b")])
def test_another_name_of_what_is_no_file_before_it_is_refused(members: tuple[str, ...], tmp_path: Path) -> None:
    """``b`` is another name of ``a``: where the archive has no such file, a toolchain's own might be what it means."""
    kinds = {"a": ("a", tarfile.REGTYPE, ""), "b": ("b", tarfile.LNKTYPE, "a")}
    archive = tar_of(*(kinds.get(name, ("a", tarfile.SYMTYPE, name.rpartition(" ")[2])) for name in members))
    with pytest.raises(IntegrityError, match=r"out\.tar is made of is damaged: 'b' is another name of 'a', which does not"):
        to_tar(from_tar(archive, "x.tar"), tmp_path / "out.tar")
    assert not list(tmp_path.iterdir())


def test_a_library_that_is_another_name_of_one_is_in_the_image_too(tmp_path: Path) -> None:
    """tar packs a file's second name as a hard link: both stand in the manifest, and both are wanted."""
    root = tmp_path / "root"
    (root / "kernel").mkdir(parents=True)
    (root / "kernel/Kbuild").touch()
    (root / "libcuda.so.1").write_text("library")
    os.link(root / "libcuda.so.1", root / "libnvcuvid.so.1")
    listed = "".join(f"{name} 0755 CUDA_LIB NATIVE / MODULE:gpgpu\n" for name in ("libcuda.so.1", "libnvcuvid.so.1"))
    (root / ".manifest").write_text(f"{HEADER}kernel/Kbuild 0644 KERNEL_MODULE_SRC MODULE:resman\n{listed}")
    (root / "nvidia-installer").touch()
    path = packing.run_file(root, tmp_path / "NVIDIA-Linux-x86_64-535.261.03.run")
    found = held(userspace.of_run(path, LIMIT))
    lib = "out/usr/local/nvidia/lib64"
    assert found == {f"{lib}/libcuda.so.1": b"library", f"{lib}/libnvcuvid.so.1": b"library"}


class Counted(io.BytesIO):
    """A file that loses patience."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        assert self.reads < 1000, "there is no end of it"
        return super().read(size)


@pytest.mark.parametrize("form", ["map", "extents", "nothing"])
def test_tables_of_blocks_that_lead_to_nothing_have_an_end(form: str, tmp_path: Path) -> None:
    """Five levels of tables that are all one: in a file of one block it would be read for years."""
    (tmp_path / "root").mkdir()
    packing.run("mke2fs", "-q", "-b", "1024", "-d", tmp_path / "root", tmp_path / "system", "2M")
    data = bytearray((tmp_path / "system").read_bytes())
    if form == "map":
        data[1900 << 10 : 1901 << 10] = struct.pack("<256I", *[1901] * 256)
        data[1901 << 10 : 1902 << 10] = struct.pack("<256I", *[1902] * 256)
        data[1902 << 10 : 1903 << 10] = bytes(1024)
        inode = _Inode(0o100644, 13 << 10, 0, struct.pack("<15I", *[0] * 12, 1902, 1901, 1900))
        assert list(Ext4(Counted(data), 0, "fs")._runs(inode)) == [(0, 13, 0)]
        return
    root = struct.pack("<HHHHI", 0xF30A, 4, 4, 4, 0) + struct.pack("<IIHH", 0, 1900, 0, 0) * 4
    for level, at in ((3, 1900), (2, 1901), (1, 1902)):
        node = struct.pack("<HHHHI", 0xF30A, 84, 84, level, 0) + struct.pack("<IIHH", 0, at + 1, 0, 0) * 84
        data[at << 10 : (at << 10) + len(node)] = node
    leaf = struct.pack("<HHHHI", 0xF30A, 0 if form == "nothing" else 84, 84, 0, 0) + bytes(84 * 12)
    data[1903 << 10 : (1903 << 10) + len(leaf)] = leaf
    with pytest.raises(IntegrityError, match="extents cannot be read"):
        list(Ext4(Counted(data), 0, "fs")._runs(_Inode(0o100644, 13 << 10, 0x80000, root)))


def test_holes_in_a_file_system_count_as_what_they_unpack_to(tmp_path: Path) -> None:
    (tmp_path / "root/usr").mkdir(parents=True)
    with (tmp_path / "root/usr/zeros").open("wb") as file:
        file.truncate(80 * MIB)
    path = packing.disk_image(tmp_path / "root", tmp_path / "holes.bin.x", megabytes=16)
    with pytest.raises(IntegrityError, match=f"unpacks to more than {LIMIT} bytes"):
        to_tar(gpt.entries(path, ["usr"], tmp_path, LIMIT), tmp_path / "out.tar")
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, "root"]


def test_a_directory_with_two_places_is_refused_not_walked_twice(tmp_path: Path) -> None:
    """Two in each of sixty-four, and there is no end of them."""
    from pipeline.formats.ext4 import Ext4

    (tmp_path / "root/usr/a").mkdir(parents=True)
    system = tmp_path / "ext4"
    packing.run("mke2fs", "-q", "-t", "ext4", "-d", tmp_path / "root", system, "4M")
    packing.run("debugfs", "-w", "-R", "link /usr/a /usr/b", system)
    with system.open("rb") as file, pytest.raises(IntegrityError, match="directory 'usr/b' has another place too"):
        list(Ext4(file, 0, "ext4").walk("usr"))


def test_an_rpm_with_another_payload_is_refused(rpm: Path, tmp_path: Path) -> None:
    data = bytearray(rpm.read_bytes())
    data[-100] ^= 1
    (tmp_path / "odd.rpm").write_bytes(data)
    with pytest.raises(IntegrityError, match="its payload is not the one its header names"):
        rpms.verify(tmp_path / "odd.rpm", None)


def test_an_rpm_with_another_header_is_refused(rpm: Path, tmp_path: Path) -> None:
    data = rpm.read_bytes().replace(b"A stand-in of the tests", b"A stand-up of the tests")
    (tmp_path / "odd.rpm").write_bytes(data)
    with pytest.raises(IntegrityError, match="its header is not the one its digest is of"):
        rpms.read(tmp_path / "odd.rpm")


def keys_of(key: Key) -> Keys:
    return Keys(dearmour(key.keyring.read_bytes(), "key"), "key")


def test_an_rpm_that_nobody_signed_is_refused_where_keys_are_given(rpm: Path, signing_key: Key) -> None:
    with pytest.raises(IntegrityError, match="is not signed"):
        rpms.verify(rpm, keys_of(signing_key))


def test_an_rpm_signed_by_a_known_key_passes_and_by_another_does_not(rpm: Path, signing_key: Key, tmp_path: Path) -> None:
    signed = packing.signed_rpm(rpm, signing_key.home, tmp_path / "signed")
    assert rpms.verify(signed, keys_of(signing_key)).name == "kernel-devel"
    assert held(rpms.entries(signed)) == held(rpms.entries(rpm))
    with Key() as stranger, pytest.raises(IntegrityError, match="no key of ours signed it"):
        rpms.verify(signed, keys_of(stranger))


def test_what_is_no_rpm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.rpm").write_bytes(b"<html>Not found</html>" * 100)
    with pytest.raises(IntegrityError, match=r"x\.rpm is not an RPM package"):
        rpms.read(tmp_path / "x.rpm")


def cpio(name: str, mode: int = 0o100644, data: bytes = b"x") -> bytes:
    """One cpio entry and the trailer."""

    def entry(text: str, bits: int, body: bytes) -> bytes:
        raw = text.encode() + b"\0"
        fields = (1, bits, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(raw), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + raw
        return head + bytes(-len(head) % 4) + body + bytes(-len(body) % 4)

    return entry(name, mode, data) + entry("TRAILER!!!", 0, b"")


def odd_rpm(payload: bytes, path: Path) -> Path:
    """An RPM by hand, for what rpmbuild would not pack."""

    def header(tags: dict[int, str]) -> bytes:
        store, index = b"", b""
        for tag, text in tags.items():
            index += struct.pack(">IIII", tag, 6, len(store), 1)
            store += text.encode() + b"\0"
        return b"\x8e\xad\xe8\x01\0\0\0\0" + struct.pack(">II", len(tags), len(store)) + index + store

    signatures = header({})
    lead = b"\xed\xab\xee\xdb" + bytes(92)
    path.write_bytes(lead + signatures + header({1000: "x", 1001: "1", 1002: "1", 1022: "x86_64"}) + payload)
    return path


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (cpio("./../../etc/passwd"), "leaves the tree"),
        (cpio("/etc/passwd"), "leaves the tree"),
        (cpio("./link", 0o120777, b"../outside"), "links 'link' to '../outside', outside the tree"),
        (cpio("./sda", 0o60600), "a device or a pipe"),
        (cpio("./x")[:-200], "cut off"),
        (b"070707" + bytes(200), "not cpio newc"),
        (b"07070X" + bytes(200), "files of 4 GB and more"),
        (b"070701" + b"zzzzzzzz" * 13, "damaged"),
        (cpio("./x").replace(b"00000001", b"-0000001"), "an entry of its archive cannot be read"),
    ],
)
def test_an_rpm_that_would_leave_its_tree_is_refused(payload: bytes, reason: str, tmp_path: Path) -> None:
    path = odd_rpm(payload, tmp_path / "odd.rpm")
    with pytest.raises(IntegrityError, match=reason):
        to_directory(rpms.entries(path), tmp_path / "out", "odd.rpm")
    assert [p.name for p in tmp_path.iterdir()] == ["odd.rpm"]


def tar_of(*members: tuple[str, bytes, str]) -> io.BytesIO:
    """(name, type, link target) of each member."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    out.seek(0)
    return out


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("../x", tarfile.REGTYPE, "")], "leaves the tree"),
        ([("/x", tarfile.REGTYPE, "")], "leaves the tree"),
        ([("a", tarfile.SYMTYPE, "../../x")], "outside the tree"),
        ([("a", tarfile.LNKTYPE, "../x")], "leaves the tree"),
        ([("a", tarfile.LNKTYPE, "b")], "which it does not hold"),
        ([("a", tarfile.SYMTYPE, "b"), ("a/x", tarfile.REGTYPE, "")], "below something that is no directory"),
        ([("a", tarfile.REGTYPE, ""), ("a/x", tarfile.REGTYPE, "")], "below something that is no directory"),
        ([("a", tarfile.CHRTYPE, "")], "a device or a pipe"),
        ([("a", tarfile.DIRTYPE, ""), ("a", tarfile.REGTYPE, "")], "twice"),
    ],
)
def test_an_archive_that_would_leave_its_tree_is_refused(
    members: list[tuple[str, bytes, str]], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(IntegrityError, match=reason):
        to_directory(from_tar(tar_of(*members), "x.tar"), tmp_path / "out", "x.tar")
    assert not list(tmp_path.iterdir())


def test_an_absolute_link_is_one_inside_the_archives_own_root(tmp_path: Path) -> None:
    archive = tar_of(("lib/modules/K/build", tarfile.SYMTYPE, "/usr/src/kernels/K"), ("usr/src/kernels/K/x", tarfile.REGTYPE, ""))
    root = to_directory(from_tar(archive, "x.tar"), tmp_path / "out", "x.tar")
    assert (root / "lib/modules/K/build").readlink() == Path("../../../usr/src/kernels/K")
    assert (root / "lib/modules/K/build/x").is_file()


def test_the_same_archive_gives_the_same_tar(rpm: Path, tmp_path: Path) -> None:
    one, two = (to_tar(rpms.entries(rpm), tmp_path / name).read_bytes() for name in ("one", "two"))
    assert one == two
    with tarfile.open(tmp_path / "one") as tar:
        assert {(m.uid, m.gid, m.mtime, m.uname) for m in tar} == {(0, 0, 0, "")}
        assert not any(m.isdir() for m in tar)


def test_a_disk_with_two_roots_is_refused(tree: Path, tmp_path: Path) -> None:
    import bz2
    import subprocess

    image = packing.disk_image(tree, tmp_path / "d.bin.x", megabytes=16, label="OEM")
    disk = tmp_path / "two"
    one = bz2.decompress(image.read_bytes())
    system = one[2 * MIB : 18 * MIB]
    disk.write_bytes(bytes(2 * MIB) + system + system + bytes(4 * MIB))
    table = f"label: gpt\nfirst-lba: 4096\nstart=4096, size={16 * 2048}\nstart={4096 + 16 * 2048}, size={16 * 2048}\n"
    subprocess.run(["sfdisk", "--quiet", disk], input=table, text=True, check=True, capture_output=True)
    with pytest.raises(IntegrityError, match="has 2 ext4 partitions that may be its root"), gpt.opened(disk, tmp_path):
        pass
    with gpt.opened(image, tmp_path) as root:
        assert root.label == "OEM", "the only file system is the root, whatever its name"


def test_an_old_file_system_with_a_block_map_is_read(tree: Path, tmp_path: Path) -> None:
    from pipeline.formats.ext4 import Ext4

    system = tmp_path / "ext2"
    packing.run("mke2fs", "-q", "-t", "ext2", "-b", "1024", "-d", tree, system, "16M")
    with system.open("rb") as file:
        assert held(Ext4(file, 0, "ext2").walk("usr")) == on_disk(tree)


def test_a_run_file_that_names_its_beginning_in_every_line_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "NVIDIA-Linux-x86_64-1.run"
    path.write_bytes(b"#!/bin/sh\n" + b"SKIP=80000\n" * 90_000)
    with pytest.raises(IntegrityError, match="does not say where its archive begins"):
        makeself.payload_at(path)


@pytest.mark.parametrize("repeated", [None, 1000])
def test_of_an_rpm_whose_every_tag_is_its_whole_store_only_what_is_asked_for_is_read(
    repeated: int | None, tmp_path: Path
) -> None:
    """65,535 tags of 16 MiB each would be a terabyte, also where they are one tag over and over."""
    says = "does not say which package it is" if repeated else "its header is not the one its digest is of"
    store = bytes([65]) * (16 << 20)
    index = b"".join(struct.pack(">IIII", tag if repeated is None else repeated, 6, 0, 1) for tag in range(0xFFFF))
    header = b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", 0xFFFF, len(store)) + index + store
    path = tmp_path / "kernel-devel.rpm"
    path.write_bytes(b"\xed\xab\xee\xdb" + bytes(92) + header + bytes(-(96 + len(header)) % 8) + header)
    with pytest.raises(IntegrityError, match=says):
        rpms.read(path)
