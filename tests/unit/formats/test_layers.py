"""A layer's files: what whoever can push to a registry may put there, and what must not come of it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pipeline.build.assemble import MANIFEST_TYPE, Layer, Store, exported, tree
from pipeline.build.pair import unpack_layer
from pipeline.build.shared_layers import Workshop
from pipeline.core.errors import DiskError, IntegrityError, PairFailed
from pipeline.fetch.store import Inputs
from pipeline.formats.layers import entries, unpack
from pipeline.outcomes import index as indexes
from pipeline.outcomes.index import Index
from pipeline.publish.index_image import Published
from pipeline.registry.client import Manifest
from tests import samples

FILE, LINK, HARD, FOLDER = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
Member = tuple[str, bytes, str]
"""Name, type, and a link's target or a file's text."""


def tar_of(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o7777
            if kind == FILE:
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
            else:
                info.linkname = text
                tar.addfile(info)
    return out.getvalue()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where an attacker's layer is unpacked: beside a folder that is none of its business."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/victim").write_text("the builder's own")
    (tmp_path / "outside/victim").chmod(0o600)
    return tmp_path / "work/root"


def of(members: Sequence[Member], place: Path) -> Path:
    blob = place.parent.with_name("blob")
    blob.write_bytes(gzip.compress(tar_of(*members)))
    return blob


def nothing_happened(place: Path) -> None:
    outside = place.parent.with_name("outside")
    assert [path.name for path in outside.iterdir()] == ["victim"]
    assert (outside / "victim").read_text() == "the builder's own"
    assert ((outside / "victim").stat().st_mode & 0o7777, (outside / "victim").stat().st_nlink) == (0o600, 1)


UP = "../../outside/victim"


@pytest.mark.parametrize(
    ("members", "named"),
    [
        pytest.param([("x", HARD, UP), ("x", FILE, "mine")], UP, id="a hard link out, then a file through it"),
        pytest.param([("usr/bin/x", HARD, f"../../{UP}")], f"../../{UP}", id="a hard link out"),
        pytest.param([("x", HARD, "/etc/passwd")], "/etc/passwd", id="an absolute hard link"),
        pytest.param([("x", LINK, UP), ("x", FILE, "mine")], "'x'", id="a link out, then a file through it"),
        pytest.param([("d", LINK, "../../outside"), ("d/victim", FILE, "mine")], "'d'", id="a linked folder out"),
        pytest.param([("d", LINK, "/"), ("d/victim", FILE, "mine")], "'d/victim'", id="through an absolute link"),
        pytest.param([("a/", FOLDER, ""), ("d", LINK, "a"), ("d/x", FILE, "mine")], "'d/x'", id="through a link within"),
        pytest.param([("d", LINK, "a"), ("d/e", FOLDER, "")], "'d/e'", id="a folder through a link"),
        pytest.param([("d", LINK, "a"), ("d", FOLDER, "")], "'d'", id="a folder over a link"),
        pytest.param([("d", LINK, "."), ("v", FILE, "a"), ("x", HARD, "d/v")], "'d/v'", id="a hard link through a link"),
        pytest.param([("v", LINK, "a"), ("x", HARD, "v"), ("x", FILE, "mine")], "'x' to 'v'", id="a hard link to a link"),
        pytest.param([("x", HARD, "y"), ("y", FILE, "mine")], "'x' to 'y'", id="a hard link to what comes later"),
        pytest.param([("/etc/victim", FILE, "mine")], "'/etc/victim'", id="an absolute name"),
        pytest.param([("//etc/victim", FILE, "mine")], "'//etc/victim'", id="an absolute name of two slashes"),
        pytest.param([(UP, FILE, "mine")], UP, id="a name that climbs"),
        pytest.param([("a/../../x", FILE, "mine")], "'a/../../x'", id="a name that climbs later"),
        pytest.param([("../root", FOLDER, "")], "'../root'", id="a folder's name that climbs"),
        pytest.param([("sda", tarfile.BLKTYPE, "")], "'sda'", id="a block device"),
        pytest.param([("null", tarfile.CHRTYPE, "")], "'null'", id="a character device"),
        pytest.param([("pipe", tarfile.FIFOTYPE, "")], "'pipe'", id="a pipe"),
        pytest.param([("x", FILE, "a"), ("x", FILE, "b")], "'x' twice", id="a file twice"),
        pytest.param([("x", FILE, "a"), ("./x", LINK, "b")], "'x' twice", id="a name twice in two forms"),
        pytest.param([("x", FOLDER, ""), ("x/", FOLDER, "")], "'x' twice", id="a folder twice"),
        pytest.param([("x", FILE, "a"), ("x/y", FILE, "b")], "'x/y'", id="a file below a file"),
        pytest.param([("x/y", FILE, "a"), ("x", FILE, "b")], "'x' twice", id="a file over a folder"),
        pytest.param([("d/" * 101, FOLDER, "")], "'d/d/", id="a name that is too deep"),
        pytest.param([("x", HARD, "d/" * 1500 + "x")], "'d/d/", id="a hard link's name that is too deep"),
        pytest.param([("x", LINK, "")], "'x' to ''", id="a link to nothing"),
    ],
)
def test_a_layer_writes_nothing_outside_and_is_refused_by_the_entrys_name(
    members: Sequence[Member], named: str, place: Path
) -> None:
    with pytest.raises(IntegrityError) as raised:
        unpack(of(members, place), place, "layer sha256:0")
    message = str(raised.value)
    assert message.startswith("layer sha256:0 ")
    assert named in message
    assert "delete" in message
    assert "\n" not in message
    nothing_happened(place)


@pytest.mark.parametrize(
    ("kind", "header", "said"),
    [
        (FILE, {"path": "x\0y"}, r"holds the name 'x y', which leaves the tree"),
        (LINK, {"path": "x", "linkpath": "a\0b"}, r"links 'x' to 'a b', which is no name"),
        (HARD, {"path": "x", "linkpath": "a\0b"}, r"holds the name 'a b', which leaves the tree"),
        (FILE, {"path": "../outside/victim"}, r"holds the name '../outside/victim', which leaves the tree"),
        (FILE, {"size": "-1"}, r"with a size of -1"),
        (FILE, {"size": "99999999"}, r"unpacks to more than 2097152 bytes"),
    ],
)
def test_what_a_pax_header_says_is_held_against_the_same_rules(
    kind: bytes, header: dict[str, str], said: str, place: Path
) -> None:
    info = tarfile.TarInfo("innocent")
    info.type, info.pax_headers = kind, header
    blob = place.parent.with_name("blob")
    blob.write_bytes(gzip.compress(info.tobuf(tarfile.PAX_FORMAT) + bytes(10240)))
    with pytest.raises(IntegrityError, match=said) as raised:
        unpack(blob, place, "a layer", 2 << 20)
    assert "\n" not in str(raised.value)
    nothing_happened(place)


def test_what_a_layer_below_has_linked_is_not_written_through(place: Path) -> None:
    """Two honest layers cannot be told from two that work together: each is held against what lies there."""
    unpack(of([("d", LINK, "/a"), ("f", LINK, "a/x"), ("a/x", FILE, "below")], place), place, "below")
    with pytest.raises(IntegrityError, match=r"above holds 'd/x' below something that is no directory"):
        unpack(of([("d/x", FILE, "above")], place), place, "above")
    unpack(of([("f", FILE, "above")], place), place, "above")
    assert ((place / "f").read_text(), (place / "a/x").read_text()) == ("above", "below")
    with pytest.raises(IntegrityError, match=r"above links 'g' to 'a/x', which it does not hold"):
        unpack(of([("g", HARD, "a/x")], place), place, "above")


def test_a_file_of_a_layer_above_does_not_change_another_name_of_the_one_below(place: Path) -> None:
    unpack(of([("a", FILE, "below"), ("b", HARD, "a")], place), place, "below")
    assert (place / "a").samefile(place / "b")
    unpack(of([("b", FILE, "above")], place), place, "above")
    assert ((place / "a").read_text(), (place / "b").read_text()) == ("below", "above")


def test_links_stay_inside_the_layers_own_root_wherever_that_lies(place: Path) -> None:
    members = [
        ("lib64/ld.so", LINK, "/lib/x/ld.so"),
        ("lib/x/ld.so", FILE, "ld"),
        ("etc/up", LINK, "/"),
        ("in/b/up", LINK, "../.."),
    ]
    members += [("out", LINK, "in/b/up/../../outside/victim"), ("lib/y", LINK, "x"), ("lib/z", LINK, "y/../y/ld.so")]
    unpack(of(members, place), place, "a layer")
    assert (place / "lib64/ld.so").readlink() == Path("../lib/x/ld.so")
    assert ((place / "lib64/ld.so").read_text(), (place / "lib/z").read_text()) == ("ld", "ld")
    assert (place / "etc/up").resolve() == place.resolve()
    links = [path for path in place.rglob("*") if path.is_symlink()]
    assert len(links) == 6
    assert all(link.resolve().is_relative_to(place.resolve()) for link in links)


def test_an_honest_layer_is_unpacked_with_its_modes_and_nobody_else_may_write_to_it(place: Path) -> None:
    store = Store(place.parent.parent / "store")
    files = {"bin/sh": (0o4777, b"sh"), "etc/secret": (0o400, b"s"), "usr/lib/x": (0o644, b"x")}
    unpack(store.blob(store.add(tree(files), 1).digest), place, "a layer")
    modes = {str(path.relative_to(place)): path.stat().st_mode & 0o7777 for path in place.rglob("*")}
    folders = dict.fromkeys(("bin", "etc", "usr", "usr/lib"), 0o755)
    assert modes == {**folders, "bin/sh": 0o755, "etc/secret": 0o600, "usr/lib/x": 0o644}
    assert (place / "usr/lib/x").read_bytes() == b"x"


def test_what_an_engine_exports_with_hard_links_is_a_layer(place: Path) -> None:
    store = Store(place.parent.parent / "store")
    with tarfile.open(fileobj=io.BytesIO(tar_of(("out", FOLDER, ""), ("out/a", FILE, "a"), ("out/b", HARD, "out/a")))) as tar:
        layer = store.add(exported(tar, "out"), 1)
    unpack(store.blob(layer.digest), place, "a layer")
    assert ((place / "a").read_text(), (place / "b").read_text()) == ("a", "a")


def a_bomb() -> bytes:
    return gzip.compress(tar_of(("big", FILE, "0" * (3 << 20))))


def many_files() -> bytes:
    return gzip.compress(tar_of(*((f"f{number}", FILE, "") for number in range(5000))))


@pytest.mark.parametrize("made", [a_bomb, many_files])
def test_a_layer_that_unpacks_to_more_than_the_limit_is_refused(made: Callable[[], bytes], place: Path) -> None:
    blob = place.parent.with_name("blob")
    blob.write_bytes(made())
    with pytest.raises(IntegrityError, match=r"^a layer unpacks to more than 2097152 bytes: raise max_unpacked"):
        unpack(blob, place, "a layer", 2 << 20)
    assert sum(path.stat().st_size for path in place.rglob("*")) <= 2 << 20


def test_names_without_end_are_refused_since_readers_keep_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.formats.unpacking.MAX_NAMES", 64 << 10)
    blob = place.parent.with_name("blob")
    blob.write_bytes(many_files())
    with pytest.raises(IntegrityError, match=r"^a layer holds more names than 65536 bytes have room for: delete "):
        list(entries(blob, "a layer"))


@pytest.mark.parametrize(("pack", "kind"), [(lzma.compress, "xz"), (bz2.compress, "bz2"), (zstandard.compress, "zst")])
def test_a_layer_is_packed_by_gzip_since_others_ask_for_gigabytes(pack: Callable[[bytes], bytes], kind: str, place: Path) -> None:
    blob = place.parent.with_name("blob")
    blob.write_bytes(pack(tar_of(("x", FILE, ""))))
    with pytest.raises(IntegrityError, match=rf"^a layer is packed by {kind}: a layer here is gzip: delete "):
        unpack(blob, place, "a layer")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_is_not_read_into_memory_whatever_its_size(kind: bytes, place: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 4 << 20
    blob = place.parent.with_name("blob")
    first = tar_of(("before", FILE, ""))[:512]
    blob.write_bytes(gzip.compress(first + info.tobuf(tarfile.GNU_FORMAT) + bytes(5 << 20)))
    with pytest.raises(IntegrityError, match=r"^a layer cannot be read as an archive \(a header of 4194304 bytes\)"):
        unpack(blob, place, "a layer")


@pytest.mark.parametrize("cut", [3, 40, -9, -200])
def test_a_layer_that_is_cut_off_is_refused_in_one_line(cut: int, place: Path) -> None:
    whole = gzip.compress(tar_of(("x", FILE, os.urandom(3000).hex())))
    blob = place.parent.with_name("blob")
    blob.write_bytes(whole[:cut])
    with pytest.raises(IntegrityError, match=r"^a layer (is damaged or cut off|cannot be read as an archive|is cut off)"):
        unpack(blob, place, "a layer")


@pytest.mark.parametrize(
    "data", [b"", b"no archive", gzip.compress(b"no archive" * 100, mtime=0), gzip.compress(b"\xff" * 2048, mtime=0)]
)
def test_what_is_no_layer_is_refused_in_one_line(data: bytes, place: Path) -> None:
    blob = place.parent.with_name("blob")
    blob.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"^a layer cannot be read as an archive .*delete .*blob"):
        unpack(blob, place, "a layer")


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (("n" * 300, FILE, ""), "holds 'n+…', too long a name"),
        (("n" * 5000, FILE, ""), "holds 'n+…', too long a name"),
        (("n", LINK, "t/" * 2100), "links 'n' to '(t/)+', which is no name"),
    ],
)
def test_a_name_that_no_disk_takes_is_said_in_one_line(member: Member, said: str, place: Path) -> None:
    with pytest.raises(IntegrityError, match=rf"^a layer {said}: delete "):
        unpack(of([member], place), place, "a layer")


def test_a_disk_that_does_not_take_a_file_is_no_fault_of_the_layer(place: Path) -> None:
    place.parent.write_text("in the way")
    with pytest.raises(DiskError, match="free some disk space"):
        unpack(of([("x", FILE, "")], place), place, "a layer")


def shop_in(root: Path, data: bytes) -> tuple[Workshop, Layer]:
    """A workshop whose store has a layer that somebody else made."""
    nobody: Any = None  # neither registry nor engine is asked
    store = Store(root)
    shop = Workshop(root, nobody, nobody, Inputs(root, nobody, nobody), store, nobody, nobody)
    layer = Layer("sha256:" + "0" * 64, len(data), "", 0)
    store.blob(layer.digest).parent.mkdir()
    store.blob(layer.digest).write_bytes(data)
    return shop, layer


def test_the_builder_unpacks_what_a_registry_gave_it_by_that_reader(tmp_path: Path) -> None:
    shop, layer = shop_in(tmp_path, gzip.compress(tar_of(("x", HARD, "../../victim"), ("x", FILE, "mine"))))
    (tmp_path / "victim").write_text("the builder's own")
    with pytest.raises(IntegrityError, match=r"^layer sha256:000000000000 holds the name '../../victim', which leaves the tree"):
        unpack_layer(shop, layer, tmp_path / "work/root")
    assert (tmp_path / "victim").read_text() == "the builder's own"


EMPTY: list[Member] = [
    ("usr/local/nvidia/lib64/libcuda.so.535.261.03", LINK, "x"),
    ("usr/local/nvidia/lib64/libnvidia-ml.so.535.261.03", LINK, "x"),
    ("usr/local/nvidia/lib64/libnvidia-ptxjitcompiler.so.535.261.03", LINK, "x"),
    ("firmware/nvidia/535.261.03/gsp_ga10x.bin", LINK, "x"),
]
"""All names of a userspace, and nothing behind them."""


@pytest.mark.parametrize(
    ("members", "kind", "said"),
    [
        ([("usr/local/nvidia/lib64/libcuda.so.535.261.03", LINK, "/etc/x")], PairFailed, "has no libnvidia-ml.so"),
        (EMPTY, PairFailed, "libcuda.so.535.261.03 does not carry"),
        ([("../libcuda.so.1", FILE, "")], IntegrityError, "holds the name '../libcuda.so.1'"),
        ([("libcuda.so.1", FILE, "x" * 5000)], IntegrityError, "has no room for 'libcuda.so.1' of 5000 bytes"),
    ],
)
def test_a_userspace_of_somebody_else_is_refused_in_one_line(
    members: Sequence[Member], kind: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.build.shared_layers.MAX_SPEAKING", 4096)
    shop, layer = shop_in(tmp_path, gzip.compress(tar_of(*members)))
    with pytest.raises(kind, match=said):
        shop.prove_userspace(layer, samples.driver("535.261.03"))


def test_entries_of_a_layer_come_with_their_bytes(place: Path) -> None:
    found = {
        entry.name: entry.data.read() if entry.data else None
        for entry in entries(of([("a", FILE, "x"), ("b", LINK, "a")], place), "l")
    }
    assert found == {"a": b"x", "b": None}


class Held:
    """A registry that has one index image, with the layer that it was given."""

    def __init__(self, layer: bytes) -> None:
        self.layer = layer

    def manifest(self, ref: str) -> Manifest:
        return Manifest(b'{"layers": [{"digest": "the layer"}]}', MANIFEST_TYPE, "sha256:0")

    def blob(self, digest: str, max_bytes: int = 0) -> bytes:
        return self.layer

    def reference(self, ref: str) -> str:
        return f"localhost:1/driver:{ref}"


def index_in(layer: bytes) -> Index:
    registry: Any = Held(layer)
    return Published(registry, present=True).index


def test_the_index_of_a_registry_is_read_by_the_same_reader() -> None:
    document = indexes.dump(Index(generated="2026-11-29T00:00:00Z"))
    packed = gzip.compress(tar_of(("a", FILE, "before"), ("index.json", FILE, document.decode())))
    assert index_in(packed).generated == "2026-11-29T00:00:00Z"


@pytest.mark.parametrize("cut", [1, 50, -20])
def test_an_index_that_is_cut_off_or_no_archive_is_an_empty_one(cut: int) -> None:
    packed = gzip.compress(tar_of(("index.json", FILE, os.urandom(2000).hex())))
    assert index_in(packed[:cut]) == Index()
    assert index_in(b"\x1f\x8b\x08" + os.urandom(100)) == Index()
    assert index_in(gzip.compress(tar_of(("index.json", LINK, "/etc/passwd")))) == Index()


def test_an_index_that_unpacks_to_gigabytes_is_an_empty_one_and_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.publish.index_image.MAX_BYTES", 1 << 20)
    info = tarfile.TarInfo("index.json")
    info.size = 64 << 20
    packed = gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(64 << 20))
    tracemalloc.start()
    try:
        assert index_in(packed) == Index()
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
