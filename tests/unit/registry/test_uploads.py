"""A blob arrives whole: wherever the registry wants it, and though an attempt breaks half way."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import DiskError
from tests.told_server import Handler, Seen, Told, client, in_turn, refusal, says, sha256

ALICE = {"DRIVER_REGISTRY_USER": "alice", "DRIVER_REGISTRY_PASSWORD": "wonderland"}


class Uploads:
    """A registry that takes uploads at an address with a query of its own, absolute or relative."""

    def __init__(self, location: str) -> None:
        self.location = location
        self.server = Told(self.answer)
        self.held: dict[str, bytes] = {}
        self.refuse_once: list[tuple[int, dict[str, Any]]] = []

    def answer(self, seen: Seen, handler: Handler) -> None:
        if seen.method == "HEAD":
            handler.say(200 if seen.path.rpartition("/")[2] in self.held else 404)
        elif seen.method == "POST":
            handler.say(202, Location=self.location.format(self.server.place))
        elif self.refuse_once:
            status, body = self.refuse_once.pop()
            handler.say(status, json.dumps(body).encode())
        else:
            self.held[seen.query["digest"][0]] = seen.body
            handler.say(201)


UPLOAD = "/v2/driver/blobs/uploads/u1"


@pytest.mark.parametrize("location", [f"http://{{}}{UPLOAD}?state=a%2Fb", f"{UPLOAD}?state=a%2Fb", "u1?state=a%2Fb"])
def test_the_digest_is_added_to_whatever_upload_address_was_given(location: str) -> None:
    uploads = Uploads(location)
    with uploads.server as server:
        assert client(server.place).push_blob(b"data", sha256(b"data"), 4) is True
        put = server.asked("PUT")[0]
    assert (put.path, put.query) == (UPLOAD, {"state": ["a/b"], "digest": [sha256(b"data")]})
    assert put.headers["content-type"] == "application/octet-stream"
    assert put.headers["content-length"] == "4"
    assert uploads.held == {sha256(b"data"): b"data"}


def test_an_empty_file_is_sent_with_its_length_not_in_chunks(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    uploads = Uploads(UPLOAD)
    with uploads.server as server:
        client(server.place).push_blob(tmp_path / "empty", sha256(b""), 0)
        assert server.asked("PUT")[0].headers["content-length"] == "0"
        assert "transfer-encoding" not in server.asked("PUT")[0].headers


def test_an_upload_that_breaks_half_way_is_begun_again(tmp_path: Path) -> None:
    layer = os.urandom(5 << 20)
    (tmp_path / "layer").write_bytes(layer)
    uploads = Uploads(UPLOAD)
    with uploads.server as server:
        server.read_only["PUT", UPLOAD] = 100_000
        assert client(server.place).push_blob(tmp_path / "layer", sha256(layer), len(layer)) is True
        assert len(server.asked("POST")) == 2
    assert uploads.held == {sha256(layer): layer}


@pytest.mark.parametrize("status", [404, 500])
def test_an_upload_whose_session_was_lost_is_begun_again(status: int) -> None:
    uploads = Uploads(UPLOAD)
    uploads.refuse_once.append((status, refusal("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")))
    with uploads.server as server:
        assert client(server.place).push_blob(b"data", sha256(b"data"), 4) is True
        assert [len(server.asked(method)) for method in ("HEAD", "POST", "PUT")] == [2, 2, 2]


def test_an_upload_that_arrived_though_its_answer_was_lost_counts_as_sent() -> None:
    uploads = Uploads(UPLOAD)
    uploads.refuse_once.append((502, {}))
    with uploads.server as server:

        def keep_then_refuse(seen: Seen, handler: Handler) -> None:
            if seen.method == "PUT":
                uploads.held[sha256(b"data")] = seen.body
            uploads.answer(seen, handler)

        server.answer = keep_then_refuse
        assert client(server.place).push_blob(b"data", sha256(b"data"), 4) is True
        assert len(server.asked("PUT")) == 1


def test_an_upload_to_another_host_goes_there_without_the_login() -> None:
    with Told(in_turn(says(201))) as storage:

        def answer(seen: Seen, handler: Handler) -> None:
            if "authorization" not in seen.headers:
                handler.say(401, WWW_Authenticate="Basic realm=r")
            elif seen.method == "HEAD":
                handler.say(404)
            else:
                handler.say(202, Location=f"http://{storage.place}/put?signed=1")

        with Told(answer) as server:
            assert client(server.place, ALICE).push_blob(b"data", sha256(b"data"), 4) is True
        assert [seen.body for seen in storage.seen] == [b"data"]
        assert "authorization" not in storage.seen[0].headers


def test_a_file_that_is_not_what_was_announced_is_not_sent(tmp_path: Path) -> None:
    with Told(in_turn(says(404))) as server:
        with pytest.raises(DiskError, match="No such file"):
            client(server.place).push_blob(tmp_path / "absent", sha256(b"x"), 1)
        (tmp_path / "short").write_bytes(b"x")
        with pytest.raises(DiskError, match="has 1 bytes here, not 2"):
            client(server.place).push_blob(tmp_path / "short", sha256(b"xx"), 2)
        assert server.seen == []
