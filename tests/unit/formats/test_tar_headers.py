"""pipeline/tar_headers.py: what tarfile and GNU tar write is read as they read it, and what is made to do harm costs nothing."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from pipeline.formats import tar_headers
from pipeline.formats.tar_headers import MAX_HEADER, members

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)


def header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info.tobuf(tarfile.GNU_FORMAT)


def extended(data: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header("x", kind, len(data)) + data + bytes(-len(data) % BLOCK)


class Endless(io.RawIOBase):
    """``chunk`` for ever, or until ``limit`` bytes were read."""

    def __init__(self, head: bytes, chunk: bytes, limit: int) -> None:
        self._parts = self._all(head, chunk, limit)
        self._rest = b""

    @staticmethod
    def _all(head: bytes, chunk: bytes, limit: int) -> Iterator[bytes]:
        yield head
        for _ in range(limit // len(chunk)):
            yield chunk

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        self._rest = self._rest or next(self._parts, b"")
        data, self._rest = self._rest[: len(view)], self._rest[len(view) :]
        view[: len(data)] = data
        return len(data)


def found(stream: IO[bytes]) -> list[tuple[str, bytes, int, int, str, bytes]]:
    return [(m.name, m.type, m.mode, m.size, m.linkname, m.data.read() if m.isreg() else b"") for m in members(stream)]


def by_tarfile(data: bytes) -> list[tuple[str, bytes, int, int, str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        read = [(info, tar.extractfile(info) if info.isreg() else None) for info in tar]
        return [(m.name, m.type, m.mode, m.size, m.linkname, file.read() if file else b"") for m, file in read]


LONG = "folder/" * 40 + "file"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tarfile_writes_is_read_as_tarfile_reads_it(form: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, pax_headers={"comment": "of all"}) as tar:
        for name, kind, text, link in [
            ("d", tarfile.DIRTYPE, "", ""),
            ("d/a", tarfile.REGTYPE, "x" * 1025, ""),
            ("d/\udcff\u00e9", tarfile.REGTYPE, "y" * 512, ""),
            ("l", tarfile.SYMTYPE, "", "d/a"),
            ("h", tarfile.LNKTYPE, "", "d/a"),
            *([] if form == tarfile.USTAR_FORMAT else [(LONG, tarfile.REGTYPE, "z", ""), ("m", tarfile.SYMTYPE, "", LONG)]),
            ("empty", tarfile.REGTYPE, "", ""),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname, info.mode = kind, len(text), link, 0o751
            tar.addfile(info, io.BytesIO(text.encode()))
    assert found(io.BytesIO(out.getvalue())) == by_tarfile(out.getvalue())
    assert len(found(io.BytesIO(out.getvalue()))) >= 6
    names = [member.name for member in members(io.BytesIO(out.getvalue()))]  # of a reader that leaves the data where it is
    assert names == [row[0] for row in by_tarfile(out.getvalue())]


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_what_tar_writes_is_read_as_tarfile_reads_it(form: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/a").write_bytes(os.urandom(5000))
    (tree / "link").symlink_to("sub/a")
    os.link(tree / "sub/a", tree / "other")
    if form not in ("v7", "ustar"):
        (tree / ("n" * 200)).write_text("long")
    made = subprocess.run(["tar", "-C", tmp_path, f"--format={form}", "-cf", "-", "tree"], check=True, capture_output=True).stdout
    assert found(io.BytesIO(made)) == by_tarfile(made)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        header("a") + b"\xff" * BLOCK + header("b") + END,
        header("a") + header("b")[:100],
        header("a", size=1000) + b"x" * 900,
        header("a", size=1000) + b"x" * 1000,
        extended(b"9 path=a\n"),
        extended(b"9 path=a\n") + END,
        header("x", tarfile.GNUTYPE_LONGNAME, 4) + b"cut",
        header("x", tarfile.XHDTYPE, MAX_HEADER + 1) + END,
        header("x", tarfile.XHDTYPE, -1) + END,
    ],
)
def test_what_is_no_whole_tar_is_an_error_and_not_its_end(data: bytes) -> None:
    with pytest.raises(tarfile.TarError):
        list(members(io.BytesIO(data)))


@pytest.mark.parametrize(
    "data",
    [
        b"9 path:a\n",
        b"8 path=a\n",
        b"11 path=a\n",
        b"path=a\n",
        b"-9 path=a\n",
        b"0 x=\n",
        b"2 " * 1000 + b"x=\n",
        b"1" * 1000,
        b"99999999999 path=a\n",
        b"10 size=x\n",
        b"10 size= \n",
        b"13 size=1_0\n",
        "11 size=\u0661\n".encode(),
    ],
)
def test_a_record_that_is_none_is_an_error(data: bytes) -> None:
    with pytest.raises(tarfile.TarError):
        list(members(io.BytesIO(extended(data) + header("a") + END)))


def test_records_count_for_the_next_member_or_for_all_and_the_last_one_wins() -> None:
    tar = extended(b"12 path=all\n", tarfile.XGLTYPE) + header("a") + extended(b"9 path=b\n" + b"9 path=c\n") + header("d")
    assert [member.name for member in members(io.BytesIO(tar + header("e") + END))] == ["all", "c", "all"]


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_without_end_before_a_member_are_no_recursion(kind: bytes) -> None:
    (member,) = members(io.BytesIO(extended(b"9 path=a\n", kind) * 3000 + header("b") + END))
    assert member.name in ("a", "9 path=a\n")


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(header("member") * 16, id="members"),
        pytest.param(header("f", tarfile.LNKTYPE, link="f") * 16, id="another name of itself"),
        pytest.param(b"".join(extended(b"".join(b"%07d k%05d=v\n" % (17, n) for n in range(1000))) for _ in range(2)), id="pax"),
        pytest.param(extended(b"a" * (256 << 10), tarfile.GNUTYPE_LONGNAME) + header("x"), id="long names"),
    ],
)
def test_a_tar_without_end_takes_no_memory(chunk: bytes) -> None:
    stream = io.BufferedReader(Endless(b"", chunk, 6 << 20))
    tracemalloc.start()
    try:
        for _ in members(stream):
            pass
    except tarfile.TarError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2 << 20


def test_a_map_of_holes_is_not_read_at_all() -> None:
    old = bytearray(header("old", tarfile.GNUTYPE_SPARSE))
    old[482] = 1  # more of the map follows, and more behind that
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old)
    for head in (bytes(old), extended(b"22 GNU.sparse.major=1\n") + header("new", size=1 << 30)):
        stream = Endless(head, bytes(BLOCK), 1 << 20)
        assert next(members(io.BufferedReader(stream, BLOCK))).has_holes
        assert len(stream._rest) < len(head) + BLOCK


def test_a_size_that_a_record_says_counts() -> None:
    tar = extended(b"13 size=1024\n") + header("a", size=1) + b"x" * 1024 + header("b") + END
    assert [(row[0], row[3], row[5]) for row in found(io.BytesIO(tar))] == [("a", 1024, b"x" * 1024), ("b", 0, b"")]
    assert tar_headers.MAX_HEADER == 1 << 20
