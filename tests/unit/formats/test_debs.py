"""Debian packages in Python: every compression, every kind of file, and nothing outside the tree."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import stat
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import zstandard

from pipeline.core.errors import IntegrityError
from pipeline.formats.debs import members, unpack

Entry = tuple[str, str]
"""A name with its kind before it ('f', 'd', 'l', 'h', 'c'), and the content or the link's target."""
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.compress, ".zst": zstandard.ZstdCompressor().compress, ".gz": gzip.compress, "": bytes,
}  # fmt: skip


KINDS = {"f": tarfile.REGTYPE, "d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE, "c": tarfile.CHRTYPE}


def data_tar(entries: Sequence[Entry]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name[2:])
            info.type, info.mode = KINDS[name[0]], 0o755
            if name[0] == "f":
                info.size, info.mode = len(content), 0o4755 if name.endswith("su") else 0o644
            else:
                info.linkname = content
            tar.addfile(info, io.BytesIO(content.encode()))
    return out.getvalue()


def deb(path: Path, *entries: Entry, suffix: str = ".xz") -> Path:
    packed = PACKERS[suffix](data_tar(entries))
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", f"data.tar{suffix}": packed}
    with path.open("wb") as out:
        out.write(b"!<arch>\n")
        for name, data in parts.items():
            header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n"
            out.write(header.encode() + data + b"\n" * (len(data) % 2))
    return path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return tmp_path / "kmod_30_amd64.deb"


@pytest.mark.parametrize("suffix", PACKERS)
def test_every_compression_is_read(tmp_path: Path, package: Path, suffix: str) -> None:
    deb(package, ("d ./", ""), ("d ./usr/", ""), ("f ./usr/kmod", "kmod" * 30000), suffix=suffix)
    unpack(package, tmp_path / "root")
    assert (tmp_path / "root/usr/kmod").read_text() == "kmod" * 30000


def test_members_come_in_their_order_with_their_content(package: Path) -> None:
    deb(package, ("d ./usr/", ""), ("f ./usr/b", "2"), ("f ./usr/a", "1"))
    seen = [(info.name, data.read() if data else None) for info, data in members(package)]
    assert seen == [("./usr", None), ("./usr/b", b"2"), ("./usr/a", b"1")]


def test_modes_links_and_hard_links_are_kept(tmp_path: Path, package: Path) -> None:
    links = ("l ./bin/sudo", "su"), ("l ./sbin/insmod", "/bin/kmod"), ("h ./bin/su2", "./bin/su")
    deb(package, ("f ./bin/su", "su"), *links)
    unpack(package, tmp_path / "root")
    root = tmp_path / "root"
    assert stat.S_IMODE((root / "bin/su").stat().st_mode) == 0o4755
    assert (root / "bin/sudo").readlink() == Path("su")
    assert (root / "sbin/insmod").readlink() == Path("/bin/kmod")
    assert (root / "bin/su2").samefile(root / "bin/su")


def test_a_merged_usr_is_followed(tmp_path: Path, package: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    files = ("f ./lib/deep/libc.so", "c"), ("h ./lib/again", "./lib/deep/libc.so")
    deb(package, ("d ./lib/", ""), ("d ./lib/deep/", ""), *files)
    unpack(package, root)
    assert (root / "lib").is_symlink()
    assert (root / "usr/lib/deep/libc.so").read_text() == "c"
    assert (root / "usr/lib/again").samefile(root / "usr/lib/deep/libc.so")


def test_a_later_package_replaces_a_file_and_never_writes_through_a_link(tmp_path: Path, package: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.write_text("untouched")
    root.mkdir()
    (root / "file").symlink_to(outside)
    unpack(deb(package, ("f ./file", "new")), root)
    assert (root / "file").read_text() == "new"
    assert not (root / "file").is_symlink()
    assert outside.read_text() == "untouched"


def test_only_what_is_selected_is_written(tmp_path: Path, package: Path) -> None:
    deb(package, ("d ./usr/", ""), ("d ./boot/", ""), ("f ./boot/vmlinuz", "k"), ("f ./usr/doc", "d"))
    written = unpack(package, tmp_path / "root", lambda name: name.startswith("boot/"))
    assert written == [tmp_path / "root/boot/vmlinuz"]
    assert not (tmp_path / "root/usr").exists()


@pytest.mark.parametrize(
    "entries",
    [
        [("f ../evil", "x")],
        [("f ./usr/../../evil", "x")],
        [("f /evil", "x")],
        [("l ./usr", "../outside"), ("f ./usr/evil", "x")],
        [("l ./usr", "/"), ("f ./usr/evil", "x")],
        [("l ./a", "OUTSIDE"), ("f ./a/made/evil", "x")],
        [("l ./a", "OUTSIDE"), ("d ./a/evil", "")],
        [("l ./a/b", "../../outside/evil")],
        [("l ./a", "OUTSIDE"), ("h ./evil", "./a/secret")],
        [("h ./evil", "../outside/secret")],
        [("h ./evil", "./not/there")],
        [("l ./a", "b"), ("l ./b", "a"), ("f ./a/evil", "x")],
        [("c ./dev/evil", "")],
        [("f ./a", "x"), ("f ./a/evil", "x")],
        [("d ./a", ""), ("f ./a", "x")],
    ],
)
def test_what_leaves_the_tree_or_cannot_be_is_refused(tmp_path: Path, package: Path, entries: list[Entry]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    deb(package, *[(name, content.replace("OUTSIDE", str(outside))) for name, content in entries])
    with pytest.raises(IntegrityError, match=r"^kmod_30_amd64\.deb "):
        unpack(package, tmp_path / "root")
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").stat().st_nlink == 1
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_damaged_package_is_one_line(tmp_path: Path, package: Path, suffix: str) -> None:
    whole = deb(package, ("f ./usr/kmod", "kmod" * 1000), suffix=suffix).read_bytes()
    for size in (0, 7, 30, 100, 200, len(whole) // 2, len(whole) - 20):
        package.write_bytes(whole[:size])
        with pytest.raises(IntegrityError, match=r"^kmod_30_amd64\.deb "):
            unpack(package, tmp_path / "root")


def test_a_file_that_is_no_package_is_refused(tmp_path: Path, package: Path) -> None:
    package.write_bytes(b"<html>not found</html>")
    with pytest.raises(IntegrityError, match="is not a Debian package"):
        unpack(package, tmp_path / "root")
    package.write_bytes(b"!<arch>\n")
    with pytest.raises(IntegrityError, match="holds no data archive"):
        unpack(package, tmp_path / "root")
