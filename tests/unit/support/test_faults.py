"""The fault harness does what it says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, IncompleteRead

import pytest

from tests.faults import Asked, Fault, FaultyProxy, Killer, at_random
from tests.told_server import Handler, Seen, Told

BODY = b"0123456789" * 10


def echo(seen: Seen, handler: Handler) -> None:
    handler.say(200, seen.body or BODY)


@pytest.fixture
def server() -> Iterator[Told]:
    with Told(echo) as server:
        yield server


def ask(place: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    connection = HTTPConnection(place, timeout=10)
    try:
        connection.request(method, "/v2/x", body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_without_a_fault_it_hands_on_what_it_gets(server: Told) -> None:
    with FaultyProxy(server.place) as proxy:
        assert ask(proxy.place) == (200, BODY)
        assert ask(proxy.place, "PUT", b"data") == (200, b"data")
        assert [(a.method, a.path, a.body) for a in proxy.asked] == [("GET", "/v2/x", 0), ("PUT", "/v2/x", 4)]
    assert [seen.body for seen in server.seen] == [b"", b"data"]


def test_a_refused_request_never_reaches_the_server(server: Told) -> None:
    with FaultyProxy(server.place, lambda asked: Fault("refuse")) as proxy, pytest.raises((HTTPException, OSError)):
        ask(proxy.place)
    assert server.seen == []


def test_an_answer_of_its_own_is_a_status_with_headers(server: Told) -> None:
    with FaultyProxy(server.place, lambda asked: Fault("status", status=429)) as proxy:
        assert ask(proxy.place)[0] == 429
    assert server.seen == []


def test_a_cut_answer_ends_early_and_a_lying_one_looks_whole(server: Told) -> None:
    with FaultyProxy(server.place, lambda asked: Fault("cut answer", after=30)) as proxy, pytest.raises(IncompleteRead):
        ask(proxy.place)
    with FaultyProxy(server.place, lambda asked: Fault("lie about length", after=9)) as proxy:
        assert ask(proxy.place) == (200, BODY[:90])
    with FaultyProxy(server.place, lambda asked: Fault("corrupt", after=3)) as proxy:
        status, body = ask(proxy.place)
        assert (status, len(body)) == (200, 100)
        assert body != BODY


def test_a_cut_request_reaches_the_server_in_part_or_not_at_all(server: Told) -> None:
    with FaultyProxy(server.place, lambda asked: Fault("cut request", after=2)) as proxy, pytest.raises((HTTPException, OSError)):
        ask(proxy.place, "PUT", b"data")
    assert all(seen.body != b"data" for seen in server.seen)


def test_a_server_that_is_gone_is_a_connection_that_ends() -> None:
    with FaultyProxy("127.0.0.1:1") as proxy, pytest.raises((HTTPException, OSError)):
        ask(proxy.place)


def test_the_same_seed_gives_the_same_faults() -> None:
    asked = [Asked(n, "GET", "/", 100) for n in range(200)]
    first, second, other = at_random(1, 0.2), at_random(1, 0.2), at_random(2, 0.2)
    faults = [first(a) for a in asked]
    assert faults == [second(a) for a in asked]
    assert faults != [other(a) for a in asked]
    assert 20 < sum(fault is not None for fault in faults) < 60


def test_the_killer_ends_what_runs_and_says_when_it_came_too_late() -> None:
    def start(script: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)

    killer = Killer(3, events=2, seconds=0.1)
    for _ in range(4):
        assert killer.strike(start("import time\nwhile True: print('{}', flush=True); time.sleep(0.05)"))
    assert len(killer.strikes) == 4
    assert not Killer(3, events=2, seconds=60).strike(start("pass"))
