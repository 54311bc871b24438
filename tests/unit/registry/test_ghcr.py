"""GitHub's packages API, spoken to a server on loopback that speaks it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.core.errors import RegistryError, UsageError
from pipeline.registry.ghcr import Packages, token
from tests.github_packages import TOKEN, GitHub, digest
from tests.told_server import Asleep, Told


def packages(server: Told, given: str = TOKEN) -> Packages:
    environ = {"GITHUB_TOKEN": given, "GITHUB_API_URL": f"http://{server.place}"}
    return Packages("acme/driver", environ, sleep=Asleep(), timeout=5)


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


def test_a_package_whose_name_has_a_slash_is_one_segment_of_the_address() -> None:
    with Told(GitHub(2, package="coreos%2Fdriver")) as server:
        environ = {"GITHUB_TOKEN": TOKEN, "GITHUB_API_URL": f"http://{server.place}"}
        assert len(Packages("acme/coreos/driver", environ, sleep=Asleep()).versions()) == 2


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
