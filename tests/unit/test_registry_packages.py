"""GitHub's packages API, spoken to a server on loopback that speaks it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from pipeline.errors import RegistryError, UsageError
from pipeline.registry_packages import Packages, token
from tests.told_server import Asleep, Handler, Seen, Told

TOKEN = "ghp_synthetic"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


class GitHub:
    """An account with one container package of so many versions."""

    def __init__(self, versions: int, *, kind: str = "Organization", fails: int = 0) -> None:
        self.versions = {number: digest(number) for number in range(versions)}
        self.kind, self.fails = kind, fails

    def __call__(self, seen: Seen, handler: Handler) -> None:
        if seen.headers.get("authorization") != f"Bearer {TOKEN}":
            return self.say(handler, 401, {"message": "Bad credentials"})
        if self.fails:
            self.fails -= 1
            return handler.say(502, b"<html>bad gateway</html>", Content_Type="text/html")
        base = f"/{'orgs' if self.kind == 'Organization' else 'users'}/acme/packages/container/coreos%2Fdriver/versions"
        if seen.path == "/users/acme":
            return self.say(handler, 200, {"login": "acme", "type": self.kind})
        if seen.method == "GET" and seen.path == base:
            size, page = int(seen.query["per_page"][0]), int(seen.query["page"][0])
            rows = [{"id": i, "name": d, "metadata": {"container": {"tags": []}}} for i, d in self.versions.items()]
            return self.say(handler, 200, rows[size * (page - 1) : size * page])
        number = int(seen.path.rpartition("/")[2]) if seen.path.startswith(f"{base}/") else -1
        if seen.method != "DELETE" or number not in self.versions:
            return self.say(handler, 404, {"message": "Not Found"})
        if len(self.versions) == 1:
            return self.say(handler, 400, {"message": "You cannot delete the last tagged version of a package."})
        del self.versions[number]
        return handler.say(204)

    @staticmethod
    def say(handler: Handler, status: int, body: object) -> None:
        handler.say(status, json.dumps(body).encode(), Content_Type="application/json")


def packages(server: Told, given: str = TOKEN) -> Packages:
    environ = {"GITHUB_TOKEN": given, "GITHUB_API_URL": f"http://{server.place}"}
    return Packages("acme/coreos/driver", environ, sleep=Asleep(), timeout=5)


@pytest.mark.parametrize("kind", ["Organization", "User"])
def test_versions_are_listed_page_by_page_and_deleted_by_id(kind: str) -> None:
    github = GitHub(205, kind=kind)
    with Told(github) as server:
        api = packages(server)
        versions = api.versions()
        assert len(versions) == 205
        api.delete(versions[digest(7)])
        assert 7 not in github.versions
        api.delete(7)  # gone already
        assert len(github.versions) == 204


def test_a_full_last_page_is_followed_by_an_empty_one() -> None:
    with Told(GitHub(100)) as server:
        assert len(packages(server).versions()) == 100


def test_what_may_pass_is_tried_again() -> None:
    with Told(GitHub(3, fails=2)) as server:
        assert len(packages(server).versions()) == 3


def test_a_server_that_stays_broken_is_an_error_of_one_line() -> None:
    with Told(GitHub(3, fails=99)) as server, pytest.raises(RegistryError, match=r"502 .*\(5 attempts\)"):
        packages(server).versions()


def test_a_refusal_is_said_in_github_s_words_without_the_token() -> None:
    with Told(GitHub(3)) as server, pytest.raises(RegistryError, match="401 Bad credentials") as caught:
        packages(server, "wrong-token").versions()
    assert "wrong-token" not in str(caught.value)


def test_the_last_version_of_a_package_cannot_be_deleted_and_that_is_said() -> None:
    with Told(GitHub(1)) as server, pytest.raises(RegistryError, match="You cannot delete the last tagged version"):
        packages(server).delete(0)


@pytest.mark.parametrize("api", ["http://api.example.com", "ftp://127.0.0.1/"])
def test_the_token_goes_nowhere_in_the_clear(api: str) -> None:
    with pytest.raises(UsageError, match="GITHUB_API_URL"):
        Packages("acme/driver", {"GITHUB_API_URL": api, "GITHUB_TOKEN": TOKEN})


def test_either_name_of_the_token_will_do() -> None:
    read: Callable[[dict[str, str]], str] = token
    assert read({"GITHUB_TOKEN": "a", "GH_TOKEN": "b"}) == "a"
    assert read({"GH_TOKEN": "b"}) == "b"
    assert read({}) == ""
