"""The tree that a build adds of kernel.org's tarball and a configuration: what lies below its own directory, nothing else."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

import pytest

from pipeline.core.errors import IntegrityError
from pipeline.formats.unpacking import to_tar
from pipeline.trees import tars
from pipeline.trees.spec import Tree

OWN, KERNEL = "linux-6.1.176", "6.1.176-mine"
LIMIT = 64 << 20


def packed(*members: tuple[str, bytes, str], size: int = 0) -> bytes:
    """A tarball of (name, type, link target), each file of ``size`` zeros."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, target, size if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(bytes(size)))
    return lzma.compress(out.getvalue(), preset=0)


def names(tarball: bytes, work: Path, config: bytes = b"CONFIG_PCI=y\n") -> dict[str, str]:
    """Names of the tree that is made, each link with its target."""
    (work / f"{OWN}.tar.xz").write_bytes(tarball)
    (work / "config").write_bytes(config)
    paths = [work / f"{OWN}.tar.xz", work / "config"]
    scratch = work / "scratch"
    scratch.mkdir()
    try:
        to_tar(tars.entries("source", paths, KERNEL, scratch, LIMIT), scratch / "out.tar")
        with tarfile.open(scratch / "out.tar") as tar:
            return {info.name: info.linkname for info in tar}
    finally:
        (scratch / "out.tar").unlink(missing_ok=True)
        assert not list(scratch.iterdir()), "nothing is left behind"


def test_the_source_lies_where_a_build_looks_for_it_with_the_configuration_in_it(tmp_path: Path) -> None:
    good = packed(
        (f"{OWN}/", tarfile.DIRTYPE, ""),
        (f"{OWN}/Makefile", tarfile.REGTYPE, ""),
        (f"{OWN}/scripts/dtc/include-prefixes/arm", tarfile.SYMTYPE, "../../../arch/arm/boot/dts"),
        (f"{OWN}/COPYING", tarfile.LNKTYPE, f"{OWN}/Makefile"),
        (f"{OWN}/Makefile", tarfile.LNKTYPE, f"{OWN}/Makefile"),  # as tar writes a file that it was told twice
    )
    place = f"usr/src/kernels/{KERNEL}"
    assert names(good, tmp_path) == {
        f"{place}/Makefile": "",
        f"{place}/scripts/dtc/include-prefixes/arm": "../../../arch/arm/boot/dts",
        f"{place}/COPYING": f"{place}/Makefile",
        f"{place}/.config": "",
    }


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (("../x", tarfile.REGTYPE, ""), "holds the name '../x', which leaves the tree"),
        ((f"{OWN}/../../x", tarfile.REGTYPE, ""), "which leaves the tree"),
        (("/etc/passwd", tarfile.REGTYPE, ""), "holds the name '/etc/passwd', which leaves the tree"),
        (("linux-6.1.175/Makefile", tarfile.REGTYPE, ""), f"holds 'linux-6.1.175/Makefile' outside {OWN}"),
        ((f"{OWN}x/Makefile", tarfile.REGTYPE, ""), f"outside {OWN}"),
        ((f"{OWN}/a", tarfile.SYMTYPE, "../../x"), "outside the tree"),
        ((f"{OWN}/a", tarfile.SYMTYPE, "../x"), "links 'a' to '../x', outside the tree"),
        ((f"{OWN}/a", tarfile.SYMTYPE, "/etc/passwd"), "outside the tree"),
        ((f"{OWN}/a", tarfile.LNKTYPE, "etc/passwd"), f"holds 'etc/passwd' outside {OWN}"),
        ((f"{OWN}/a", tarfile.LNKTYPE, "../x"), "leaves the tree"),
        ((f"{OWN}/sda", tarfile.BLKTYPE, ""), "a device or a pipe"),
    ],
)
def test_a_tarball_that_would_leave_its_own_directory_is_refused(
    member: tuple[str, bytes, str], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(IntegrityError, match=rf"^{OWN}\.tar\.xz ") as caught:
        names(packed((f"{OWN}/Makefile", tarfile.REGTYPE, ""), member), tmp_path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tarball_that_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    bomb = packed((f"{OWN}/Makefile", tarfile.REGTYPE, ""), size=80 << 20)
    with pytest.raises(IntegrityError, match=f"unpacks to more than {LIMIT} bytes: raise max_unpacked"):
        names(bomb, tmp_path)


def test_a_configuration_that_unpacks_to_more_than_any_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="config unpacks to more than 16777216 bytes"):
        names(packed((f"{OWN}/Makefile", tarfile.REGTYPE, "")), tmp_path, lzma.compress(bytes(17 << 20), preset=0))


@pytest.mark.parametrize("cut", [60, 2000, 2400])
def test_a_tarball_that_is_cut_short_is_refused(cut: int, tmp_path: Path) -> None:
    whole = packed(*((f"{OWN}/{number}{'x' * 80}{number * 7919}", tarfile.REGTYPE, "") for number in range(800)))
    assert len(whole) > 2500
    with pytest.raises(IntegrityError, match=f"{OWN}"):
        names(whole[:cut], tmp_path)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="cannot be read as an archive"):
        names(b"<html>not found</html>" * 100, tmp_path)


def test_another_kernel_is_another_tree() -> None:
    made = Tree("headers.tar", "source", (), KERNEL)
    assert made.key != Tree("headers.tar", "source", (), "6.1.176-next").key
