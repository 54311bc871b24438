"""Fetching: what is tried again, what is refused, how large, over a real server that misbehaves."""

from __future__ import annotations

import gzip
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import NotFoundError
from pipeline.fetch import response_headers
from pipeline.fetch.fetcher import Fetcher
from pipeline.fetch.http import retry_after
from tests.http_samples import DATA, JSON, refusal
from tests.misbehaving_server import (
    MisbehavingServer,
    cut,
    cut_chunked,
    drip,
    file,
    hangs_up,
    html_page,
    raw,
    status,
    zeros,
)
from tests.unit.conftest import Waits

# What is tried again.


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_an_answer_that_may_pass_is_asked_for_again(server: MisbehavingServer, fetcher: Fetcher, waits: Waits, code: int) -> None:
    url = server.says("/feed", status(code), status(code), file(JSON))
    assert fetcher.get(url) == JSON
    assert fetcher.requests == len(server.requests) == 3
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2


@pytest.mark.parametrize(
    "bad",
    [
        cut(JSON, 5),
        cut(JSON, 0),
        cut_chunked(JSON),
        hangs_up(),
        raw(200, {"Content-Encoding": "gzip", "Connection": "close"}, gzip.compress(JSON)[:-4]),
        raw(200, {"Content-Encoding": "gzip", "Connection": "close"}, JSON),
        raw(200, {"Content-Encoding": "br", "Connection": "close"}, JSON),
        raw(200, {"Content-Length": str(len(JSON) + 9)}, JSON),
    ],
    ids=["cut", "cut at once", "cut chunked", "hung up", "cut gzip", "no gzip", "unasked coding", "wrong length"],
)
def test_a_body_that_is_not_whole_is_asked_for_again(server: MisbehavingServer, fetcher: Fetcher, bad: object) -> None:
    url = server.says("/feed", bad, file(JSON))  # type: ignore[arg-type]
    assert fetcher.get(url) == JSON
    assert fetcher.requests == 2


def test_it_is_given_up_after_four_attempts_with_the_reason(server: MisbehavingServer, fetcher: Fetcher, waits: Waits) -> None:
    url = server.says("/feed", status(503))
    text = refusal(lambda: fetcher.get(url))
    assert url in text
    assert "503 Service Unavailable (4 attempts)" in text
    assert len(server.requests) == 4
    assert len(waits) == 3


def test_each_wait_is_told(server: MisbehavingServer, tmp_path: Path) -> None:
    lines: list[str] = []
    url = server.says("/feed", status(500), file(JSON))
    Fetcher(tmp_path, sleep=lambda s: None, log=lines.append).get(url)
    assert len(lines) == 1
    assert lines[0].startswith(f"{url}: 500 Internal Server Error; again in ")


def test_a_port_where_nobody_listens_is_said_in_plain_words(fetcher: Fetcher) -> None:
    with MisbehavingServer() as gone:
        url = gone.base + "/x"
    text = refusal(lambda: fetcher.get(url))
    assert "Connection refused (4 attempts)" in text
    assert "object at 0x" not in text
    assert fetcher.requests == 4


def test_a_server_that_never_answers_is_given_up(tmp_path: Path, waits: Waits, server: MisbehavingServer) -> None:
    release = threading.Event()

    def silent(handler: object) -> None:
        release.wait(10)

    url = server.says("/x", silent)
    fetcher = Fetcher(tmp_path, sleep=waits, attempts=2, timeout=(1, 0.05), log=lambda line: None)
    try:
        assert "timed out" in refusal(lambda: fetcher.get(url))
    finally:
        release.set()


def test_a_server_that_drips_is_given_up(server: MisbehavingServer, tmp_path: Path, waits: Waits) -> None:
    url = server.says("/x", drip(bytes(200), 0.02))
    fetcher = Fetcher(tmp_path, sleep=waits, attempts=2, timeout=(1, 0.2), log=lambda line: None)
    assert "stalled after" in refusal(lambda: fetcher.get(url))


@pytest.mark.parametrize("code", [400, 401, 403, 405, 418, 451, 501])
def test_any_other_refusal_is_final(server: MisbehavingServer, fetcher: Fetcher, waits: Waits, code: int) -> None:
    url = server.says("/x", status(code))
    assert f"{url}: {code}" in refusal(lambda: fetcher.get(url))
    assert len(server.requests) == 1
    assert not waits


@pytest.mark.parametrize("code", [404, 410])
def test_what_is_not_there_is_a_kind_of_its_own(server: MisbehavingServer, fetcher: Fetcher, code: int) -> None:
    url = server.says("/x", status(code))
    assert str(code) in refusal(lambda: fetcher.get(url), NotFoundError)
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [201, 204, 206, 304, 302])
def test_an_answer_nobody_asked_for_is_refused(server: MisbehavingServer, fetcher: Fetcher, code: int) -> None:
    url = server.says("/x", raw(code, {"Connection": "close"}))
    assert str(code) in refusal(lambda: fetcher.get(url))


# Retry-After.


@pytest.mark.parametrize(("asked", "least", "most"), [("7", 7, 7), ("0", 0.5, 1), ("86400", 120, 120), ("soon", 0.5, 1)])
def test_retry_after_in_seconds_is_kept_up_to_two_minutes(
    server: MisbehavingServer, fetcher: Fetcher, waits: Waits, asked: str, least: float, most: float
) -> None:
    fetcher.get(server.says("/x", status(429, {"Retry-After": asked}), file(JSON)))
    assert least <= waits[0] <= most


def test_retry_after_may_be_a_date(server: MisbehavingServer, fetcher: Fetcher, waits: Waits) -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    fetcher.get(server.says("/x", status(503, {"Retry-After": when}), file(JSON)))
    assert 30 < waits[0] <= 60


@given(st.text(max_size=40))
def test_any_retry_after_is_seconds_or_nothing(text: str) -> None:
    seconds = retry_after(text)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize("text", ["Thu, 01 Jan 2015 00:00:00 GMT", "Thursday, 01-Jan-15 00:00:00 GMT"])
def test_a_date_that_is_past_asks_for_no_wait(text: str) -> None:
    assert retry_after(text) == 0


# Limits.


def test_ten_megabytes_of_zeros_are_not_taken_in(server: MisbehavingServer, fetcher: Fetcher) -> None:
    for announced in (True, False):
        url = server.says("/z", zeros(10 << 20, announced=announced))
        assert "more than 1048576 bytes" in refusal(lambda: fetcher.get(url, max_bytes=1 << 20))  # noqa: B023


def test_a_gzip_bomb_is_measured_unpacked(server: MisbehavingServer, fetcher: Fetcher) -> None:
    url = server.says("/bomb", file(bytes(10 << 20), zipped=True))
    assert "more than 1048576 bytes" in refusal(lambda: fetcher.get(url, max_bytes=1 << 20))


def test_a_gzip_bomb_is_never_unpacked_beyond_the_limit() -> None:
    bomb = gzip.compress(bytes(10 << 20))
    assert sum(map(len, response_headers.decoded(iter([bomb]), "gzip", 1000))) == 1001


def test_a_body_of_exactly_the_limit_is_taken(server: MisbehavingServer, fetcher: Fetcher) -> None:
    for zipped in (False, True):
        url = server.says("/x", file(JSON, zipped=zipped))
        assert fetcher.get(url, max_bytes=len(JSON)) == JSON
        refusal(lambda: fetcher.get(url, max_bytes=len(JSON) - 1))  # noqa: B023


def test_a_gzip_answer_is_unpacked(server: MisbehavingServer, fetcher: Fetcher) -> None:
    url = server.says("/feed.json", file(JSON * 100, zipped=True))
    assert fetcher.get(url) == JSON * 100
    assert server.requests[0].headers["accept-encoding"] == "gzip"


def test_a_gz_file_stays_as_it_is_whatever_the_server_calls_it(server: MisbehavingServer, fetcher: Fetcher) -> None:
    packed = gzip.compress(JSON)
    url = server.says("/Packages.gz", raw(200, {"Content-Encoding": "gzip", "Content-Length": str(len(packed))}, packed))
    assert fetcher.get(url) == packed
    assert server.requests[0].headers["accept-encoding"] == "identity"


# exists.


@pytest.mark.parametrize("code", [404, 410])
def test_what_is_gone_does_not_exist(server: MisbehavingServer, fetcher: Fetcher, code: int) -> None:
    assert fetcher.exists(server.says("/x", status(code))) is False


def test_one_head_request_tells_that_a_file_exists(server: MisbehavingServer, fetcher: Fetcher) -> None:
    assert fetcher.exists(server.says("/x.run", file(DATA))) is True
    assert [r.method for r in server.requests] == ["HEAD"]


@pytest.mark.parametrize("code", [400, 403, 405, 501])
@pytest.mark.parametrize(("then", "there"), [(file(DATA), True), (file(b""), True), (status(404), False)])
def test_where_head_is_refused_one_byte_is_asked_for(
    server: MisbehavingServer, fetcher: Fetcher, code: int, then: object, there: bool
) -> None:
    assert fetcher.exists(server.says("/x", status(code), then)) is there  # type: ignore[arg-type]
    assert [r.method for r in server.requests] == ["HEAD", "GET"]
    assert server.requests[1].headers["range"] == "bytes=0-0"


@pytest.mark.parametrize("code", [403, 500, 503])
def test_no_answer_is_not_no(server: MisbehavingServer, fetcher: Fetcher, code: int) -> None:
    url = server.says("/x", status(code))
    assert str(code) in refusal(lambda: fetcher.exists(url))


def test_a_web_page_in_place_of_a_file_is_not_yes(server: MisbehavingServer, fetcher: Fetcher) -> None:
    url = server.says("/NVIDIA-Linux-x86_64-580.run", html_page())
    assert "web page" in refusal(lambda: fetcher.exists(url))
    assert fetcher.exists(server.says("/index.html", html_page()))
    assert fetcher.exists(server.says("/dir/", html_page()))
