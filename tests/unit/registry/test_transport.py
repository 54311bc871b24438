"""What may pass is tried again, what will not is said at once; the login goes nowhere else."""

from __future__ import annotations

import base64
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import RegistryError
from pipeline.registry import transport
from pipeline.registry.transport import Call, RegistryHttp
from tests.told_server import TAGS, Asleep, Handler, Seen, Told, client, in_turn, refusal, says, sha256

ALICE = {"DRIVER_REGISTRY_USER": "alice", "DRIVER_REGISTRY_PASSWORD": "wonderland"}


# What may pass, and what will not.


def test_a_429_waits_as_long_as_the_registry_asks() -> None:
    sleep = Asleep()
    with Told(in_turn(says(429, Retry_After="7"), says(200, TAGS))) as server:
        assert client(server.place, sleep=sleep).tags() == ["a", "b"]
    assert sleep.waits == [7.0]


def test_no_registry_makes_us_wait_for_ever() -> None:
    sleep = Asleep()
    with Told(in_turn(says(429, Retry_After="86400"), says(200, TAGS))) as server:
        client(server.place, sleep=sleep).tags()
    assert sleep.waits == [120.0]


def test_a_500_is_asked_again_with_growing_pauses() -> None:
    sleep = Asleep()
    with Told(in_turn(says(500), says(502), says(200, TAGS))) as server:
        assert client(server.place, sleep=sleep).tags() == ["a", "b"]
    assert len(sleep.waits) == 2
    assert 0.5 <= sleep.waits[0] <= 1 <= sleep.waits[1] <= 2


@pytest.mark.parametrize("method", ["tags", "manifest", "digest", "has_blob", "blob"])
@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_refusal_never_reads_as_absent(method: str, status: int) -> None:
    argument = {"tags": (), "manifest": ("t",), "digest": ("t",)}.get(method, (sha256(b"x"),))
    with Told(in_turn(says(status, WWW_Authenticate='Basic realm="r"'))) as server:
        with pytest.raises(RegistryError, match=f"^{server.place}/driver: .* {status}"):
            getattr(client(server.place), method)(*argument)
        assert len(server.seen) == (1 if status in (401, 403) else 3)


def test_what_is_only_read_waits_a_minute_where_an_upload_may_wait_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_SILENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        port = silent.getsockname()[1]
        http = RegistryHttp(f"127.0.0.1:{port}", "driver", {}, Asleep(), 2, (5, 1))
        for method, at_least, below in (("GET", 0.1, 1), ("POST", 2, 10)):
            began = time.monotonic()
            with pytest.raises(RegistryError, match=r"a thing: .*2 attempts"):
                http.request(Call("a thing", method, f"{http.base}tags/list"))
            assert at_least <= time.monotonic() - began < below


def test_a_dead_registry_is_named_with_what_to_do() -> None:
    with Told(in_turn(says(200))) as server:
        place = server.place
    with pytest.raises(RegistryError, match=f"{place}/driver: tag list: .*refused.*3 attempts.*DRIVER_REGISTRY"):
        client(place).tags()


def test_a_body_cut_short_is_asked_for_again() -> None:
    with Told(in_turn(says(200, b"whole blob", cut=4), says(200, b"whole blob"))) as server:
        assert client(server.place).blob(sha256(b"whole blob")) == b"whole blob"


def test_a_body_that_is_always_cut_short_is_an_error() -> None:
    with Told(in_turn(says(200, b"whole blob", cut=4))) as server, pytest.raises(RegistryError, match="cut off"):
        client(server.place).blob(sha256(b"whole blob"))


@pytest.mark.parametrize("status", [403, 507])
def test_a_full_disk_or_quota_is_said_once_in_the_registrys_words(status: int) -> None:
    def answer(seen: Seen, handler: Handler) -> None:
        handler.say(404 if seen.method == "HEAD" else status, json.dumps(refusal("DENIED", "quota exceeded")).encode())

    with Told(answer) as server:
        with pytest.raises(RegistryError, match=f"push of blob sha256:.*: {status} DENIED: quota exceeded"):
            client(server.place).push_blob(b"x", sha256(b"x"), 1)
        assert len(server.asked("POST")) == 1


# Redirects.


def test_a_redirect_to_a_storage_host_does_not_take_the_login_along(tmp_path: Path) -> None:
    with Told(in_turn(says(200, b"from storage"))) as storage:

        def answer(seen: Seen, handler: Handler) -> None:
            if "authorization" not in seen.headers:
                handler.say(401, WWW_Authenticate='Basic realm="r"')
            else:
                handler.say(307, Location=f"http://{storage.place}/bucket/x?signature=s")

        with Told(answer) as server:
            registry = client(server.place, ALICE)
            registry.download_blob(sha256(b"from storage"), 12, tmp_path / "blob")
            assert registry.blob(sha256(b"from storage")) == b"from storage"
        assert all("authorization" not in seen.headers for seen in storage.seen)
        assert len(storage.seen) == 2
        assert len(server.seen) == 3  # the 401 came once


def test_no_login_is_taken_from_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login alice password wonderland\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Told(in_turn(says(200, TAGS))) as server:
        client(server.place).tags()
        assert "authorization" not in server.seen[0].headers


def test_a_registry_on_this_machine_is_not_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with Told(in_turn(says(200, TAGS))) as server:
        assert client(server.place).tags() == ["a", "b"]


def test_redirects_end() -> None:
    with Told(in_turn(says(307, Location="/v2/again"))) as server, pytest.raises(RegistryError, match="5 redirects"):
        client(server.place).blob(sha256(b"x"))


# TLS.


def https_client(**environ: str) -> RegistryHttp:
    return RegistryHttp("reg.example", "acme/driver", environ, Asleep(), 3, (5, 5))


def test_only_this_machine_is_spoken_to_in_the_clear_unless_allowed() -> None:
    assert https_client().base == "https://reg.example/v2/acme/driver/"
    assert https_client(DRIVER_INSECURE="1").base == "http://reg.example/v2/acme/driver/"
    for near in ("localhost:5000", "127.1.2.3", "[::1]:5000"):
        assert RegistryHttp(near, "driver", {}, Asleep(), 3, (5, 5)).base == f"http://{near}/v2/driver/"


def test_a_registry_without_tls_is_said_at_once() -> None:
    with (
        Told(in_turn(says(200))) as server,
        pytest.raises(RegistryError, match="does not speak TLS: DRIVER_INSECURE=1"),
    ):
        https_client().request(Call("tag list", "GET", f"https://{server.place}/"))


@pytest.mark.parametrize("location", ["http://reg.example/x", "file:///etc/passwd", "http://[/", "https://h:99999/"])
def test_we_are_not_sent_on_to_where_we_must_not_go(location: str) -> None:
    with pytest.raises(RegistryError, match="sent on"):
        https_client().followed("blob", "https://reg.example/", location)


# Tokens.


class TokenRegistry:
    """A registry that asks for Bearer tokens; ``expire`` makes those given so far worthless."""

    def __init__(self, **grants: Any) -> None:
        self.server = Told(self.answer)
        self.generation = 0
        self.extra = grants

    def expire(self) -> None:
        self.generation += 1

    def answer(self, seen: Seen, handler: Handler) -> None:
        if seen.path == "/token":
            handler.say(200, json.dumps({"token": f"t{self.generation}", **self.extra}).encode())
        elif seen.headers.get("authorization") != f"Bearer t{self.generation}":
            realm = f'Bearer realm="http://{self.server.place}/token?x=1",service="reg, one",scope="repository:d:pull,push"'
            handler.say(401, WWW_Authenticate=realm)
        elif seen.method == "POST":
            handler.say(201)
        else:
            handler.say(404 if "blobs" in seen.path else 200, json.dumps(TAGS).encode())

    def tokens(self) -> list[Seen]:
        return self.server.asked("GET", "/token")


def test_a_token_is_fetched_once_with_the_login_and_sent_from_then_on() -> None:
    registry = TokenRegistry(expires_in=300)
    with registry.server as server:
        one = client(server.place, ALICE)
        assert one.tags() == one.tags() == ["a", "b"]
        assert len(server.seen) == 4  # refused, token, two lists
        asked = registry.tokens()[0]
    assert asked.query == {"x": ["1"], "service": ["reg, one"], "scope": ["repository:driver:pull,push"]}
    assert base64.b64decode(asked.headers["authorization"].removeprefix("Basic ")) == b"alice:wonderland"


def test_a_token_that_expires_mid_run_is_fetched_anew() -> None:
    registry = TokenRegistry()
    with registry.server as server:
        one = client(server.place, ALICE)
        one.tags()
        registry.expire()
        assert one.tags() == ["a", "b"]
        assert len(registry.tokens()) == 2


def test_a_token_known_to_be_old_is_not_sent() -> None:
    registry = TokenRegistry(expires_in=0.000001)
    with registry.server as server:
        one = client(server.place, ALICE)
        one.tags()
        before = len(server.seen)
        one.tags()
        assert [seen.path for seen in server.seen[before:]] == ["/token", "/v2/driver/tags/list"]


def test_a_stranger_asks_for_no_more_than_he_needs() -> None:
    registry = TokenRegistry()
    with registry.server as server:
        client(server.place).tags()
        assert registry.tokens()[0].query["scope"] == ["repository:driver:pull"]
        assert "authorization" not in registry.tokens()[0].headers


def test_a_mount_asks_for_the_other_repository_in_a_second_scope() -> None:
    registry = TokenRegistry()
    with registry.server as server:
        one = client(server.place, ALICE)
        assert one.push_blob(b"x", sha256(b"x"), 1, mount_from="acme/base") is True
        mount = server.asked("POST")[-1].query
    scopes = registry.tokens()[-1].query["scope"]
    assert scopes == ["repository:driver:pull,push", "repository:acme/base:pull"]
    assert mount == {"mount": [sha256(b"x")], "from": ["acme/base"]}


def test_threads_that_start_at_once_ask_for_one_token() -> None:
    registry = TokenRegistry()
    with registry.server as server:
        one = client(server.place, ALICE)
        with ThreadPoolExecutor(8) as pool:
            assert all(names == ["a", "b"] for names in pool.map(lambda _: one.tags(), range(16)))
        assert len(registry.tokens()) == 1


def test_a_login_is_not_sent_to_a_token_server_in_the_clear() -> None:
    challenge = 'Bearer realm="http://tokens.example/token",service="s"'
    with (
        Told(in_turn(says(401, WWW_Authenticate=challenge))) as server,
        pytest.raises(RegistryError, match="no https token server"),
    ):
        client(server.place, ALICE).tags()


def test_a_token_server_that_refuses_the_login_says_how_to_log_in() -> None:
    def answer(seen: Seen, handler: Handler) -> None:
        handler.say(401, WWW_Authenticate=f'Bearer realm="http://{server.place}/token"')

    with Told(answer) as server, pytest.raises(RegistryError, match=r"token for tag list: 401.*docker login"):
        client(server.place, ALICE).tags()


def test_fewer_rights_than_asked_is_a_denial_not_a_loop() -> None:
    def answer(seen: Seen, handler: Handler) -> None:
        if seen.path == "/token":
            handler.say(200, b'{"access_token": "weak"}')
        else:
            challenge = f'Bearer realm="http://{server.place}/token",error="insufficient_scope"'
            handler.say(401, json.dumps(refusal("UNAUTHORIZED", "weak is not enough")).encode(), WWW_Authenticate=challenge)

    with Told(answer) as server:
        with pytest.raises(RegistryError, match=r"401 UNAUTHORIZED: \*\*\* is not enough"):
            client(server.place, ALICE).tags()
        assert len(server.seen) == 3
