"""The store of pinned files: got once, checked once, laid into build contexts as hard links."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.records import File
from pipeline.core.errors import BadFileError, DiskError, IntegrityError, NetworkError, NotFoundError
from pipeline.fetch.fetcher import Fetcher
from pipeline.fetch.store import Inputs
from tests.misbehaving_server import MisbehavingServer, cut, file, status

DATA = b"synthetic package " * 1000
SUM = hashlib.sha256(DATA).hexdigest()
PATH = "pool/main/x/x_1.0~deb12u1+b1_amd64.deb"


def inputs(root: Path, *bases: str) -> Inputs:
    def of(archive: str) -> Sequence[str]:
        assert archive == "debian"
        return bases

    return Inputs(root / "store", Fetcher(root / "http", sleep=lambda s: None, log=lambda line: None), of)


def package(**changes: Any) -> File:
    facts = {
        "name": "x",
        "version": "1.0~deb12u1+b1",
        "sha256": SUM,
        "size": len(DATA),
        "trust": "signed-index",
        "archive": "debian",
        "path": PATH,
    }
    return File(**{**facts, **changes})


def vendor(*urls: str) -> File:
    return package(archive=None, path=None, urls=urls, trust="vendor-sum")


def test_a_package_comes_from_its_archive_by_path(server: MisbehavingServer, tmp_path: Path) -> None:
    for base in ("/debian", "/debian/"):
        root = tmp_path / base.replace("/", "_")
        server.says(f"/debian/{PATH}", file(DATA))
        path = inputs(root, server.base + base).path(package())
        assert path == root / "store" / "sha256" / SUM[:2] / SUM
        assert path.read_bytes() == DATA


def test_it_is_asked_for_once_however_often_it_is_wanted(server: MisbehavingServer, tmp_path: Path) -> None:
    server.says(f"/debian/{PATH}", file(DATA))
    store = inputs(tmp_path, server.base + "/debian")
    assert store.path(package()) == store.path(package())
    assert inputs(tmp_path).path(package()).read_bytes() == DATA
    assert len(server.requests) == 1


def test_a_superseded_package_comes_from_the_next_base(server: MisbehavingServer, tmp_path: Path) -> None:
    server.says(f"/snapshot/{PATH}", file(DATA))
    store = inputs(tmp_path, server.base + "/debian", server.base + "/snapshot")
    assert store.path(package()).read_bytes() == DATA
    assert [r.path for r in server.requests] == [f"/debian/{PATH}", f"/snapshot/{PATH}"]


def test_a_package_that_left_every_base_is_said_to_have_left(server: MisbehavingServer, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        inputs(tmp_path, server.base + "/debian", server.base + "/snapshot").path(package())
    text = str(caught.value)
    assert f"x 1.0~deb12u1+b1 left the archive 'debian': no base has {PATH}" in text
    assert "[archives] of versions.toml or DRIVER_ARCHIVES" in text
    assert "snapshot" in text


def test_a_base_that_does_not_answer_is_not_a_package_that_left(server: MisbehavingServer, tmp_path: Path) -> None:
    server.says(f"/snapshot/{PATH}", status(503))
    with pytest.raises(NetworkError) as caught:
        inputs(tmp_path, server.base + "/debian", server.base + "/snapshot").path(package())
    assert not isinstance(caught.value, NotFoundError)
    assert "404" in str(caught.value)
    assert "503" in str(caught.value)


def test_an_archive_without_a_base_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"no base address for the archive 'debian': give one in \[archives\]"):
        inputs(tmp_path).path(package())


def test_a_vendors_file_comes_from_its_addresses_in_order(server: MisbehavingServer, tmp_path: Path) -> None:
    first, second = server.base + "/a/x.run", server.says("/b/x.run", file(DATA))
    assert inputs(tmp_path).path(vendor(first, second)).read_bytes() == DATA
    with pytest.raises(NotFoundError, match="404 Not Found"):
        inputs(tmp_path / "other").path(vendor(first))


def test_other_bytes_never_stand_under_the_name(server: MisbehavingServer, tmp_path: Path) -> None:
    server.says(f"/debian/{PATH}", file(DATA[:-1] + b"x"))
    with pytest.raises(IntegrityError, match=SUM):
        inputs(tmp_path, server.base + "/debian").path(package())
    assert not [p for p in (tmp_path / "store").rglob("*") if p.is_file()]


def test_a_file_of_another_size_in_the_store_is_got_again(server: MisbehavingServer, tmp_path: Path) -> None:
    server.says(f"/debian/{PATH}", file(DATA))
    store = inputs(tmp_path, server.base + "/debian")
    path = store.path(package())
    path.unlink()
    path.write_bytes(DATA[:-5])
    assert store.path(package()).read_bytes() == DATA


def test_a_download_cut_short_goes_on_in_the_next_run(server: MisbehavingServer, tmp_path: Path) -> None:
    server.says(f"/debian/{PATH}", cut(DATA, 500), status(503))
    with pytest.raises(NetworkError):
        inputs(tmp_path, server.base + "/debian").path(package())
    server.says(f"/debian/{PATH}", file(DATA))
    assert inputs(tmp_path, server.base + "/debian").path(package()).read_bytes() == DATA
    assert server.requests[-1].headers["range"] == "bytes=500-"


def test_a_file_is_laid_under_its_own_name_as_a_hard_link(server: MisbehavingServer, tmp_path: Path) -> None:
    server.says(f"/debian/{PATH}", file(DATA))
    store = inputs(tmp_path, server.base + "/debian")
    for _ in range(2):
        laid = store.lay(package(), tmp_path / "context")
        assert laid == tmp_path / "context" / "x_1.0~deb12u1+b1_amd64.deb"
        assert laid.samefile(store.path(package()))
    assert os.listdir(tmp_path / "context") == [laid.name]
    assert laid.stat().st_mode & 0o222 == 0


def test_what_lay_there_under_that_name_is_replaced(server: MisbehavingServer, tmp_path: Path) -> None:
    server.says(f"/debian/{PATH}", file(DATA))
    store = inputs(tmp_path, server.base + "/debian")
    old = tmp_path / package().file_name
    for make in (lambda: old.write_bytes(b"old"), lambda: old.symlink_to("nowhere")):
        make()
        assert store.lay(package(), tmp_path).read_bytes() == DATA
        assert not old.is_symlink()
        old.unlink()


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_where_there_can_be_no_link_a_copy_does(
    server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(source: object, dest: object) -> None:
        raise OSError(number, os.strerror(number))

    server.says(f"/debian/{PATH}", file(DATA))
    store = inputs(tmp_path, server.base + "/debian")
    monkeypatch.setattr(os, "link", refuse)
    laid = store.lay(package(), tmp_path / "context")
    assert laid.read_bytes() == DATA
    assert not laid.samefile(store.path(package()))


def test_a_link_refused_for_another_reason_is_a_disk_error(
    server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, dest: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    server.says(f"/debian/{PATH}", file(DATA))
    store = inputs(tmp_path, server.base + "/debian")
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(DiskError, match="No space left"):
        store.lay(package(), tmp_path / "context")
    assert os.listdir(tmp_path / "context") == []


def test_an_address_without_a_file_name_cannot_be_laid(server: MisbehavingServer, tmp_path: Path) -> None:
    for end in ("/", "/..", "/."):
        with pytest.raises(BadFileError, match="no file name"):
            inputs(tmp_path).lay(vendor(server.base + end), tmp_path / "context")
    assert server.requests == []


def test_many_that_want_one_file_get_the_one(server: MisbehavingServer, tmp_path: Path) -> None:
    server.says(f"/debian/{PATH}", file(DATA))
    failures: list[BaseException] = []

    def want() -> None:  # each with a store of its own, as processes have
        try:
            inputs(tmp_path, server.base + "/debian").lay(package(), tmp_path / "context")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(server.requests) == 1
    assert os.listdir(tmp_path / "context") == [package().file_name]
    assert [p.name for p in (tmp_path / "store").rglob("*") if p.is_file()] == [SUM]
