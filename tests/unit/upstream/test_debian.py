"""Reading a suite: the hash chain from the signed InRelease down to each package, against a real server."""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path

import pytest

from pipeline.core.errors import IntegrityError, NetworkError, PipelineError, UpstreamDataError
from pipeline.fetch.fetcher import Fetcher
from pipeline.upstream.debian import package_index
from pipeline.upstream.debian.package_index import Indices
from tests.signed_archive import COMPONENTS, Served, SignedArchive

MAIN = "bookworm/main/binary-amd64/Packages.xz"


def read(archive: SignedArchive, server: Served, fetcher: Fetcher, **changes: str) -> Indices:
    indices = Indices()
    values = {"base": f"{server.url}/debian", "archive": "debian", "suite": "bookworm", "arch": "amd64", **changes}
    package_index.read_suite(
        indices,
        **values,
        components=COMPONENTS,
        keyring=archive.key.keyring,
        get=lambda url, immutable: fetcher.get(url, immutable=immutable),
        forget=fetcher.forget,
    )
    return indices


def by_hash(archive: SignedArchive) -> Path:
    folder = archive.file("bookworm/main/binary-amd64/by-hash/SHA256")
    (path,) = folder.iterdir()
    return path


def test_every_package_comes_with_the_hash_size_and_path_of_its_file(
    archive: SignedArchive, archive_server: Served, fetcher: Fetcher
) -> None:
    indices = read(archive, archive_server, fetcher)
    assert {"busybox", "libcuda1", "nvidia-open-kernel-source", "firmware-nvidia-gsp"} <= indices.packages.keys()
    for found in indices.packages.values():
        for package in found:
            data = (archive.root / "debian" / package.path).read_bytes()
            assert (package.sha256, package.size) == (hashlib.sha256(data).hexdigest(), len(data))
    (image,) = indices.packages["linux-image-6.1.0-47-cloud-amd64"]
    assert (image.version, image.source, image.depends) == ("6.1.170-3", "linux-signed-amd64", "kmod")
    assert (image.archive, image.suite, image.arch) == ("debian", "bookworm", "amd64")
    assert image.pin().trust == "signed-index"
    assert indices.date == "2026-07-11T10:16:37Z"


def test_only_main_goes_to_the_solver_and_a_second_reading_asks_for_the_inrelease_alone(
    archive: SignedArchive, archive_server: Served, fetcher: Fetcher
) -> None:
    (text,) = read(archive, archive_server, fetcher).texts
    assert b"Package: busybox\n" in text
    assert b"libcuda1" not in text
    archive_server.asked.clear()
    read(archive, archive_server, fetcher)
    assert archive_server.asked == ["/debian/dists/bookworm/InRelease"]


def test_an_archive_without_indices_by_hash_is_read_by_their_names(
    archive: SignedArchive, archive_server: Served, fetcher: Fetcher
) -> None:
    archive.by_hash = False
    archive.publish()
    assert "busybox" in read(archive, archive_server, fetcher).packages
    assert not [path for path in archive_server.asked if "by-hash" in path]


def test_a_mirror_that_lacks_the_copy_by_hash_is_read_by_name(
    archive: SignedArchive, archive_server: Served, fetcher: Fetcher
) -> None:
    by_hash(archive).unlink()
    assert "busybox" in read(archive, archive_server, fetcher).packages
    assert f"/debian/dists/{MAIN}" in archive_server.asked


def test_a_changed_index_is_refused_and_not_kept_once_the_archive_is_right_again(
    archive: SignedArchive, archive_server: Served, fetcher: Fetcher
) -> None:
    right = by_hash(archive).read_bytes()
    evil = lzma.compress(lzma.decompress(right).replace(b"busybox", b"busybix"))
    for path in (by_hash(archive), archive.file(MAIN)):
        path.write_bytes(evil)
    with pytest.raises(IntegrityError, match=r"main/binary-amd64/Packages\.xz has .* bytes and sha256 .*the signed"):
        read(archive, archive_server, fetcher)
    by_hash(archive).write_bytes(right)
    archive.file(MAIN).unlink()
    assert "busybox" in read(archive, archive_server, fetcher).packages


def test_a_wrong_copy_by_hash_does_no_harm_where_the_index_itself_is_right(
    archive: SignedArchive, archive_server: Served, fetcher: Fetcher
) -> None:
    by_hash(archive).write_bytes(b"an error page")
    assert "busybox" in read(archive, archive_server, fetcher).packages


@pytest.mark.parametrize("keep", [0, 1, -1])
def test_an_index_cut_short_is_refused(archive: SignedArchive, archive_server: Served, fetcher: Fetcher, keep: int) -> None:
    cut = archive.file(MAIN).read_bytes()[:keep]
    for path in (by_hash(archive), archive.file(MAIN)):
        path.write_bytes(cut)
    with pytest.raises(IntegrityError, match=f"has {len(cut)} bytes"):
        read(archive, archive_server, fetcher)


def test_a_size_that_the_release_does_not_say_is_refused(
    archive: SignedArchive, archive_server: Served, fetcher: Fetcher
) -> None:
    data = archive.file(MAIN).read_bytes()
    lines = [f" {hashlib.sha256(data).hexdigest()} {len(data) + 1} main/binary-amd64/Packages.xz"]
    archive.file("bookworm/InRelease").write_bytes(archive.key.clearsign(archive.release("bookworm", lines)))
    with pytest.raises(IntegrityError, match=f"the signed Release says {len(data) + 1} and"):
        read(archive, archive_server, fetcher)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no xz at all", "cannot be unpacked"),
        (lzma.compress(b"Package: a\n")[:-4], "is cut short"),
        (lzma.compress(b"") + b"more", "followed by something"),
        (lzma.compress(b"Package: a\nVersion: 1\n\n"), "package a has no field 'Architecture'"),
        (lzma.compress(b"x\n\n"), r"package \? has no field 'Package'"),
    ],
)
def test_a_signed_index_that_is_none_is_refused_in_words(
    archive: SignedArchive, archive_server: Served, fetcher: Fetcher, data: bytes, said: str
) -> None:
    archive.by_hash = False
    archive.publish()
    archive.file(MAIN).write_bytes(data)
    lines = [f" {hashlib.sha256(data).hexdigest()} {len(data)} main/binary-amd64/Packages.xz"]
    archive.file("bookworm/InRelease").write_bytes(archive.key.clearsign(archive.release("bookworm", lines)))
    with pytest.raises(UpstreamDataError, match=said):
        read(archive, archive_server, fetcher)


def test_another_suites_file_is_refused_though_it_is_signed(
    archive: SignedArchive, archive_server: Served, fetcher: Fetcher
) -> None:
    other = archive.file("bookworm-security/InRelease").read_bytes()
    archive.file("bookworm/InRelease").write_bytes(other)
    with pytest.raises(IntegrityError, match="is the index of bookworm-security"):
        read(archive, archive_server, fetcher)


def test_a_suite_may_be_named_by_its_role(archive: SignedArchive, archive_server: Served, fetcher: Fetcher) -> None:
    archive.file("bookworm").rename(archive.file("bookworm").with_name("oldstable"))
    found = read(archive, archive_server, fetcher, suite="oldstable").packages["busybox"]
    assert [package.suite for package in found] == ["bookworm"]


def test_a_tampered_inrelease_is_refused_and_not_kept(archive: SignedArchive, archive_server: Served, fetcher: Fetcher) -> None:
    path = archive.file("bookworm/InRelease")
    right = path.read_bytes()
    path.write_bytes(right.replace(b"Components: main", b"Components: mine"))
    archive_server.stick_to_one_etag()
    with pytest.raises(IntegrityError, match="its signature is wrong"):
        read(archive, archive_server, fetcher)
    path.write_bytes(right)
    assert "busybox" in read(archive, archive_server, fetcher).packages


def test_an_architecture_or_component_that_the_suite_lacks_is_named(
    archive: SignedArchive, archive_server: Served, fetcher: Fetcher
) -> None:
    with pytest.raises(UpstreamDataError, match=r"lists no main/binary-arm64/Packages\.xz: it has contrib, main"):
        read(archive, archive_server, fetcher, arch="arm64")


def test_nothing_of_a_suite_is_taken_in_where_one_index_fails(
    archive: SignedArchive, archive_server: Served, fetcher: Fetcher
) -> None:
    indices = Indices()
    archive.file("bookworm/non-free/binary-amd64/Packages.xz").write_bytes(b"")
    for path in archive.file("bookworm/non-free/binary-amd64/by-hash/SHA256").iterdir():
        path.write_bytes(b"")
    with pytest.raises(PipelineError):
        package_index.read_suite(
            indices,
            base=f"{archive_server.url}/debian",
            archive="debian",
            suite="bookworm",
            components=COMPONENTS,
            arch="amd64",
            keyring=archive.key.keyring,
            get=lambda url, immutable: fetcher.get(url, immutable=immutable),
            forget=fetcher.forget,
        )
    assert indices == Indices()


def test_a_server_that_is_dead_is_a_network_error(archive: SignedArchive, archive_server: Served, fetcher: Fetcher) -> None:
    archive_server.close()
    with pytest.raises(NetworkError):
        read(archive, archive_server, fetcher)


def test_the_newest_is_by_debians_order_and_of_two_suites_the_first() -> None:
    indices = Indices()
    stanza = "Package: a\nVersion: {}\nArchitecture: all\nFilename: pool/a\nSHA256: 0\nSize: 1\n\n"
    for suite, versions in (("one", ("1.9", "1.10", "1.10~rc1")), ("two", ("1.10",))):
        text = "".join(stanza.format(version) for version in versions).encode()
        indices.add(package_index.parse_packages(text, archive="debian", suite=suite, where="here"))
    newest = indices.newest("a")
    assert newest is not None
    assert (newest.version, newest.suite, newest.source) == ("1.10", "one", "a")
    assert indices.newest("a", lambda package: package.version < "1.10") is None
    assert indices.exact("a", "1.9") is not None
    assert indices.exact("a", "2") is None
    assert indices.newest("b") is None
