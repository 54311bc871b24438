"""The cache of answers: conditional requests, bodies that never change, entries that were damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.errors import DiskError
from pipeline.fetch.fetcher import Fetcher
from pipeline.fetch.mirrors import Mirrors
from tests.http_samples import JSON, refusal
from tests.misbehaving_server import (
    MisbehavingServer,
    cut,
    file,
)

# The cache.


@pytest.mark.parametrize("validator", [{"etag": '"v1"'}, {"last_modified": "Thu, 01 Jan 2026 00:00:00 GMT"}])
def test_an_unchanged_body_is_not_sent_twice(server: MisbehavingServer, tmp_path: Path, validator: dict[str, str]) -> None:
    url = server.says("/feed", file(JSON, **validator))  # type: ignore[arg-type]
    assert Fetcher(tmp_path).get(url) == JSON
    second = Fetcher(tmp_path)
    assert second.get(url) == JSON
    assert second.requests == 1
    asked = server.requests[-1].headers
    assert "if-none-match" in asked or "if-modified-since" in asked


def test_a_changed_body_replaces_the_kept_one(server: MisbehavingServer, fetcher: Fetcher) -> None:
    url = server.says("/feed", file(b"old", etag='"1"'), file(b"new", etag='"2"'))
    assert [fetcher.get(url) for _ in range(3)] == [b"old", b"new", b"new"]
    assert [r.headers.get("if-none-match") for r in server.requests] == [None, '"1"', '"2"']


def test_what_never_changes_is_asked_for_once(server: MisbehavingServer, tmp_path: Path) -> None:
    url = server.says("/build/41", file(JSON))
    assert Fetcher(tmp_path).get(url, immutable=True) == JSON
    again = Fetcher(tmp_path)
    assert again.get(url, immutable=True) == JSON
    assert again.requests == 0
    again.forget(url)
    assert again.get(url, immutable=True) == JSON
    assert again.requests == 1


def test_the_limit_holds_for_a_kept_body_too(server: MisbehavingServer, fetcher: Fetcher) -> None:
    url = server.says("/feed", file(JSON, etag='"1"'))
    fetcher.get(url)
    for immutable in (False, True):
        text = refusal(lambda: fetcher.get(url, max_bytes=5, immutable=immutable))  # noqa: B023
        assert "more than 5 bytes" in text


def test_a_damaged_entry_is_dropped_not_served(server: MisbehavingServer, tmp_path: Path) -> None:
    url = server.says("/feed", file(JSON, etag='"1"'))
    Fetcher(tmp_path).get(url)
    (entry,) = (p for p in tmp_path.rglob("*") if p.is_file())
    whole = entry.read_bytes()
    for damage in (
        whole[:-1],
        whole + b"x",
        whole.replace(b"releases", b"RELEASES"),
        b"",
        b"{}\n",
        b"\xff\n",
        whole[3:],
    ):
        entry.write_bytes(damage)
        fetcher = Fetcher(tmp_path)
        assert fetcher.get(url, immutable=True) == JSON
        assert fetcher.requests == 1
        assert "if-none-match" not in server.requests[-1].headers
        assert entry.read_bytes() == whole


def test_another_mirrors_etag_says_nothing_about_this_mirror(server: MisbehavingServer, tmp_path: Path) -> None:
    server.says("/one/x", file(b"one", etag='"same"'))
    server.says("/two/x", file(b"two", etag='"same"'))
    for name in ("one", "two"):
        mirrors = Mirrors({"https://up.example/": f"{server.base}/{name}/"})
        assert Fetcher(tmp_path, mirrors=mirrors).get("https://up.example/x") == name.encode()


def test_what_never_changes_at_one_mirror_is_asked_of_another(server: MisbehavingServer, tmp_path: Path) -> None:
    server.says("/one/x.sig", file(b"one"))
    server.says("/two/x.sig", file(b"two"))
    for name in ("one", "two", "two"):
        mirrors = Mirrors({"https://up.example/": f"{server.base}/{name}/"})
        assert Fetcher(tmp_path, mirrors=mirrors).get("https://up.example/x.sig", immutable=True) == name.encode()
    assert [r.path for r in server.requests] == ["/one/x.sig", "/two/x.sig"]


def test_a_body_that_failed_leaves_no_entry(server: MisbehavingServer, tmp_path: Path) -> None:
    url = server.says("/x", cut(JSON, 3))
    fetcher = Fetcher(tmp_path / "cache", sleep=lambda s: None, log=lambda line: None)
    refusal(lambda: fetcher.get(url))
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_cache_that_cannot_be_written_is_a_disk_error(server: MisbehavingServer, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the directory should be")
    url = server.says("/x", file(JSON))
    text = refusal(lambda: Fetcher(tmp_path / "cache").get(url), DiskError)
    assert str(tmp_path / "cache") in text
