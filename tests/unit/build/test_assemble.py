"""The same files give the same bytes, and the bytes are an image that others read."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from pipeline.build.assemble import Layer, Store, assemble, exported, merged, tree
from pipeline.core.errors import DiskError, IntegrityError

FILES = {"opt/b/two.ko": (0o644, b"2" * 5000), "opt/a": (0o755, b"one")}


def archive(entries: list[tuple[str, dict[str, object], bytes]]) -> tarfile.TarFile:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        for name, values, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in values.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    held.seek(0)
    return tarfile.open(fileobj=held)


def layer(tmp_path: Path, files: dict[str, tuple[int, bytes]] = FILES) -> Layer:
    return Store(tmp_path).add(tree(files), 1_700_000_000)


def test_a_layer_is_the_same_to_the_byte_whenever_it_is_made(tmp_path: Path) -> None:
    assert layer(tmp_path / "a") == layer(tmp_path / "b", dict(reversed(FILES.items())))


def test_digests_are_those_of_the_gzip_and_of_the_tar_in_it(tmp_path: Path) -> None:
    made = layer(tmp_path)
    data = Store(tmp_path).blob(made.digest).read_bytes()
    tar = gzip.decompress(data)
    assert made.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert made.diff_id == f"sha256:{hashlib.sha256(tar).hexdigest()}"
    assert (made.size, made.tar_size) == (len(data), len(tar))
    assert data[4:8] == b"\0\0\0\0", "the gzip header holds no time"


def test_entries_are_sorted_owned_by_root_and_as_old_as_the_image(tmp_path: Path) -> None:
    with Store(tmp_path).open(layer(tmp_path)) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == ["opt", "opt/a", "opt/b", "opt/b/two.ko"]
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", 1_700_000_000)}
    assert [oct(m.mode) for m in members] == ["0o755", "0o755", "0o755", "0o644"]


def test_owner_time_and_order_of_the_engines_export_do_not_matter(tmp_path: Path) -> None:
    one = archive([("out/b", {"uid": 5, "mtime": 7}, b"b"), ("out/a", {"uname": "me"}, b"a")])
    two = archive([("out/a", {"mtime": 9.5}, b"a"), ("out/b", {"gid": 4}, b"b")])
    assert Store(tmp_path).add(exported(one, "out"), 1) == Store(tmp_path).add(exported(two, "out"), 1)


def test_links_survive_and_a_hard_link_becomes_a_file(tmp_path: Path) -> None:
    entries: list[tuple[str, dict[str, object], bytes]] = [
        ("out/z", {}, b"data"),
        ("out/a", {"type": tarfile.LNKTYPE, "linkname": "out/z"}, b""),
        ("out/s", {"type": tarfile.SYMTYPE, "linkname": "z"}, b""),
    ]
    store = Store(tmp_path)
    with store.open(store.add(exported(archive(entries), "out"), 1)) as tar:
        assert tar.extractfile("a").read() == b"data"  # type: ignore[union-attr]
        assert tar.getmember("s").linkname == "z"


@pytest.mark.parametrize("name", ["other/x", "out/../x", "/etc/passwd"])
def test_a_name_that_leaves_the_tree_is_refused(name: str) -> None:
    with pytest.raises(IntegrityError):
        list(exported(archive([(name, {}, b"")]), "out"))


def test_streams_merge_sorted_and_one_file_from_two_places_is_a_fault(tmp_path: Path) -> None:
    both = list(merged([tree({"opt/a": (0o644, b"")}), tree({"opt/b": (0o644, b"")})]))
    assert [info.name for info, _ in both] == ["opt", "opt/a", "opt/b"]
    with pytest.raises(IntegrityError):
        list(merged([tree({"x": (0o644, b"1")}), tree({"x": (0o644, b"2")})]))


def test_an_image_names_its_layers_by_digest_and_its_bytes_are_stable(tmp_path: Path) -> None:
    made = layer(tmp_path)
    images = [
        assemble([made], arch="arm64", epoch=0, labels={"b": "2", "a": "1"}, names=["modules"], program=True),
        assemble([made], arch="arm64", epoch=0, labels={"a": "1", "b": "2"}, names=["modules"], program=True),
    ]
    assert images[0].manifest == images[1].manifest
    manifest, config = json.loads(images[0].manifest), json.loads(images[0].config)
    assert manifest["layers"][0]["digest"] == made.digest
    assert manifest["config"]["digest"] == f"sha256:{hashlib.sha256(images[0].config).hexdigest()}"
    assert config["rootfs"]["diff_ids"] == [made.diff_id]
    assert (config["architecture"], config["created"]) == ("arm64", "1970-01-01T00:00:00Z")
    assert config["config"]["Entrypoint"] == ["/usr/bin/nvidia-driver"]


def test_a_store_finds_what_a_recipe_made_unless_the_blob_is_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = store.remember("abc", layer(tmp_path))
    assert store.find("abc") == made
    assert store.find("abd") is None
    store.blob(made.digest).write_bytes(b"short")
    assert store.find("abc") is None


def test_a_place_that_cannot_be_written_is_a_disk_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "sha256").write_text("a file where a directory should be")
    with pytest.raises(DiskError):
        layer(tmp_path)
