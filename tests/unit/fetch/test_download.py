"""Downloads: resumed, checked while they stream, from the first address with the right bytes, whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.errors import DiskError, IntegrityError, NotFoundError
from pipeline.fetch import response_headers
from pipeline.fetch.fetcher import Fetcher
from pipeline.fetch.partial_file import PartFile
from tests.http_samples import DATA, SUM, refusal
from tests.misbehaving_server import (
    MisbehavingServer,
    cut,
    file,
    html_page,
    raw,
    status,
    zeros,
)

# download.


def test_a_download_is_whole_and_its_part_is_gone(server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path) -> None:
    url = server.says("/a.run", file(DATA))
    dest = tmp_path / "deep" / "er" / "a.run"
    assert fetcher.download([url], dest, sha256=SUM, size=len(DATA)) == url
    assert dest.read_bytes() == DATA
    assert os.listdir(dest.parent) == ["a.run"]
    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_a_cut_download_goes_on_where_it_was_cut(server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path) -> None:
    url = server.says("/a", cut(DATA, 100_000), file(DATA))
    assert fetcher.download([url], tmp_path / "a", sha256=SUM, size=len(DATA)) == url
    assert (tmp_path / "a").read_bytes() == DATA
    assert server.requests[1].headers["range"] == "bytes=100000-"


def test_what_an_earlier_run_left_is_taken_up(server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(DATA[:200_000])
    fetcher.download([server.says("/a", file(DATA))], tmp_path / "a", sha256=SUM, size=len(DATA))
    assert (tmp_path / "a").read_bytes() == DATA
    assert [r.headers.get("range") for r in server.requests] == ["bytes=200000-"]


@pytest.mark.parametrize("left", [b"x" * 1000, DATA[:999] + b"x", DATA[:-1] + b"x", DATA + b"x", b"x" * 400_000], ids=range(5))
def test_what_an_earlier_run_left_may_be_wrong(server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "a.part").write_bytes(left)
    fetcher.download([server.says("/a", file(DATA))], tmp_path / "a", sha256=SUM, size=len(DATA))
    assert (tmp_path / "a").read_bytes() == DATA
    assert not (tmp_path / "a.part").exists()


def test_a_whole_part_with_other_bytes_is_not_gone_on_with(server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(DATA[:-1] + b"x")
    fetcher.download([server.says("/a", file(DATA))], tmp_path / "a", sha256=SUM, size=len(DATA))
    assert [r.headers.get("range") for r in server.requests] == [None]


def test_whoever_waited_for_a_part_that_was_removed_begins_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "a"
    first = PartFile(dest, SUM, len(DATA))
    locked = fcntl.flock
    removals = [first.path]

    def flock(opened: IO[bytes], operation: int) -> None:
        locked(opened, operation)
        if removals:  # what the other did just before it let go
            removals.pop().unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    with first as part:
        part.write(DATA)
        part.finish()
    assert dest.read_bytes() == DATA


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("bytes 10-19/20", True),
        ("bytes 10-19/*", True),
        ("bytes 10-19/21", False),
        ("bytes 9-19/20", False),
        ("bytes 100-19/20", False),
        ("bytes */20", False),
        ("items 10-19/20", False),
        ("", False),
    ],
)
def test_a_content_range_must_be_the_one_asked_for(text: str, fits: bool) -> None:
    assert response_headers.continues({"Content-Range": text}, 10, 20) is fits


def test_a_part_that_is_whole_needs_no_server(fetcher: Fetcher, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(DATA)
    fetcher.download(["http://127.0.0.1:1/a"], tmp_path / "a", sha256=SUM, size=len(DATA))
    assert (tmp_path / "a").read_bytes() == DATA
    assert fetcher.requests == 0


@pytest.mark.parametrize(
    "on",
    [
        file(DATA, ranges=False),
        raw(206, {"Content-Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}", "Content-Length": str(len(DATA))}, DATA),
        raw(206, {"Content-Range": "bytes 1000-1999/2000", "Content-Length": "1000"}, DATA[1000:2000]),
        raw(206, {"Content-Length": "299000"}, DATA[1000:]),
        status(416),
    ],
    ids=["ignores Range", "another range", "another size", "no Content-Range", "416"],
)
def test_a_server_that_cannot_go_on_begins_again(server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path, on: object) -> None:
    (tmp_path / "a.part").write_bytes(DATA[:1000])
    url = server.says("/a", on, file(DATA, ranges=False))  # type: ignore[arg-type]
    fetcher.download([url], tmp_path / "a", sha256=SUM, size=len(DATA))
    assert (tmp_path / "a").read_bytes() == DATA


def test_other_bytes_are_an_integrity_error_with_both_hashes(server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path) -> None:
    other = DATA[:-1] + b"x"
    url = server.says("/a", file(other))
    text = refusal(lambda: fetcher.download([url], tmp_path / "a", sha256=SUM, size=len(DATA)), IntegrityError)
    assert url in text
    assert SUM in text
    assert hashlib.sha256(other).hexdigest() in text
    assert os.listdir(tmp_path) == []
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (html_page(), "not the pinned 300000"),
        (file(DATA + b"x"), "has 300001 bytes, not the pinned 300000"),
        (file(DATA[:-1]), "has 299999 bytes, not the pinned 300000"),
        (zeros(10 << 20, announced=False), "has more than the pinned 300000 bytes"),
        (status(200), "has 0 bytes"),
    ],
    ids=["web page", "one more", "one less", "endless zeros", "empty"],
)
def test_another_size_stops_at_once(server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path, bad: object, says: str) -> None:
    url = server.says("/a", bad)  # type: ignore[arg-type]
    text = refusal(lambda: fetcher.download([url], tmp_path / "a", sha256=SUM, size=len(DATA)), IntegrityError)
    assert says in text
    assert os.listdir(tmp_path) == []
    assert len(server.requests) == 1


def test_the_next_address_is_tried_after_404_a_refusal_and_wrong_bytes(
    server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path
) -> None:
    urls = [
        server.says("/404", status(404)),
        server.says("/403", status(403)),
        server.says("/wrong", file(bytes(len(DATA)))),
        server.says("/cut", cut(DATA, 1000)),
        server.says("/good", file(DATA)),
    ]
    assert fetcher.download(urls, tmp_path / "a", sha256=SUM, size=len(DATA)) == urls[-1]
    assert (tmp_path / "a").read_bytes() == DATA


def test_where_all_fail_each_answer_is_named(server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path) -> None:
    urls = [server.says("/1", status(404)), server.says("/2", status(403)), server.says("/3", status(503))]
    text = refusal(lambda: fetcher.download(urls, tmp_path / "a", sha256=SUM, size=len(DATA)))
    for url, answer in zip(urls, ("404 Not Found", "403 Forbidden", "503 Service Unavailable"), strict=True):
        assert f"{url}: {answer}" in text
    assert os.listdir(tmp_path) == []


def test_where_all_say_404_it_is_not_there(server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path) -> None:
    urls = [server.base + "/1", server.says("/2", status(410))]
    text = refusal(lambda: fetcher.download(urls, tmp_path / "a", sha256=SUM, size=1), NotFoundError)
    assert "404 Not Found" in text
    assert "410 Gone" in text


def test_a_half_that_could_not_be_finished_waits_for_the_next_run(
    server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path
) -> None:
    url = server.says("/a", cut(DATA, 1000), status(503))
    refusal(lambda: fetcher.download([url], tmp_path / "a", sha256=SUM, size=len(DATA)))
    assert os.listdir(tmp_path) == ["a.part"]
    server.says("/a", file(DATA))
    fetcher.download([url], tmp_path / "a", sha256=SUM, size=len(DATA))
    assert server.requests[-1].headers["range"] == "bytes=1000-"
    assert os.listdir(tmp_path) == ["a"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 5000), max_size=3), start=st.integers(0, 6000), honest=st.booleans())
def test_however_it_is_cut_the_bytes_are_right(
    server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path, cuts: list[int], start: int, honest: bool
) -> None:
    data = DATA[:5000]
    (tmp_path / "a").unlink(missing_ok=True)
    (tmp_path / "a.part").write_bytes((data + bytes(1000))[:start])
    url = server.says("/a", *(cut(data, at) for at in cuts if at < 5000), file(data, ranges=honest))
    fetcher.download([url], tmp_path / "a", sha256=hashlib.sha256(data).hexdigest(), size=5000)
    assert (tmp_path / "a").read_bytes() == data


def test_many_threads_that_want_one_file_get_it_once(server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path) -> None:
    url = server.says("/a", file(DATA))
    failures: list[BaseException] = []

    def want() -> None:
        try:
            fetcher.download([url], tmp_path / "a", sha256=SUM, size=len(DATA))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(server.requests) == 1
    assert os.listdir(tmp_path) == ["a"]


def test_two_processes_that_want_one_file_get_it_once(server: MisbehavingServer, tmp_path: Path) -> None:
    url = server.says("/a", file(DATA))
    code = (
        "import sys; from pathlib import Path; from pipeline.fetch.fetcher import Fetcher\n"
        "Fetcher(Path(sys.argv[1]) / 'cache').download([sys.argv[2]], Path(sys.argv[1]) / 'a',"
        f" sha256='{SUM}', size={len(DATA)})"
    )
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", code, str(tmp_path), url]
    both = [subprocess.Popen(command, cwd=root) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(server.requests) == 1
    assert os.listdir(tmp_path) == ["a"]


# The disk.


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    where = tmp_path / "tiny"
    where.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a tmpfs of 64 kB")
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", where], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mount.stderr.strip()}")
    yield where
    subprocess.run(["umount", where], check=True)


def test_a_full_disk_is_said_and_gets_its_space_back(server: MisbehavingServer, fetcher: Fetcher, tiny_disk: Path) -> None:
    url = server.says("/a", file(DATA))
    text = refusal(lambda: fetcher.download([url], tiny_disk / "a", sha256=SUM, size=len(DATA)), DiskError)
    assert f"{tiny_disk / 'a.part'}: {os.strerror(errno.ENOSPC)}" in text
    assert os.listdir(tiny_disk) == []
    assert len(server.requests) == 1


def test_a_full_disk_under_the_cache_leaves_no_entry(server: MisbehavingServer, tiny_disk: Path) -> None:
    url = server.says("/a", file(DATA))
    assert os.strerror(errno.ENOSPC) in refusal(lambda: Fetcher(tiny_disk).get(url), DiskError)
    assert not [p for p in tiny_disk.rglob("*") if p.is_file()]


def test_a_place_that_cannot_be_written_is_a_disk_error(server: MisbehavingServer, fetcher: Fetcher, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dir").mkdir()
    url = server.says("/a", file(DATA))
    for dest in (tmp_path / "file" / "a", tmp_path / "dir"):
        refusal(lambda: fetcher.download([url], dest, sha256=SUM, size=len(DATA)), DiskError)  # noqa: B023
