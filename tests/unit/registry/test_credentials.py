"""The login comes from where people already put it; what a file or helper says is never shown."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import BadFileError, RegistryError, UsageError
from tests.told_server import TAGS, Told, client, in_turn, says

# Where the login comes from.


def logged_in_as(**environ: str) -> str:
    """What a registry that wants Basic gets to see: user:password. PLACE in a file stands for its address."""
    answer = in_turn(says(401, WWW_Authenticate='Basic realm="r"'), says(200, TAGS))
    with Told(answer) as server:
        files = Path(environ.get("DOCKER_CONFIG", ""), "config.json"), Path(environ.get("REGISTRY_AUTH_FILE", ""))
        for path in files:
            if path.is_file():
                path.write_text(path.read_text().replace("PLACE", server.place))
        client(server.place, environ).tags()
        return base64.b64decode(server.seen[-1].headers["authorization"].removeprefix("Basic ")).decode()


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize("key", ["PLACE", "https://PLACE", "https://PLACE/v1/", "PLACE/driver"])
def test_dockers_login_is_used(key: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"other.example": auth("x:y"), key: auth("bob:b:c")}}))
    assert logged_in_as(DOCKER_CONFIG=str(tmp_path)) == "bob:b:c"


def test_podmans_login_is_used_where_docker_has_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"auths": {"PLACE": {}}}')
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {"PLACE": auth("bob:b")}}))
    assert logged_in_as(DOCKER_CONFIG=str(tmp_path), REGISTRY_AUTH_FILE=str(tmp_path / "auth.json")) == "bob:b"


def helper(folder: Path, script: str) -> dict[str, str]:
    program = folder / "docker-credential-test"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {"DOCKER_CONFIG": str(folder), "PATH": f"{folder}:/usr/bin:/bin"}


@pytest.mark.parametrize("config", [{"credsStore": "test"}, {"credHelpers": {"PLACE": "test"}, "credsStore": "absent"}])
def test_a_credential_helper_is_asked_for_the_host(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    environ = helper(tmp_path, 'read host; test "$1" = get; printf \'{"Username": "carol", "Secret": "%s"}\' "$host"')
    assert logged_in_as(**environ).startswith("carol:127.0.0.1:")


def test_a_helper_that_knows_nothing_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": "test", "auths": {"PLACE": auth("bob:b")}}))
    environ = helper(tmp_path, "echo credentials not found in native keychain; exit 1")
    assert logged_in_as(**environ) == "bob:b"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo hunter2; exit 1", "failed"),
        ("echo hunter2", "nonsense"),
        ('echo \'{"Username": "<token>", "Secret": "hunter2"}\'', "identity"),
    ],
)
def test_a_helper_that_fails_is_named_and_what_it_said_is_not_shown(script: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"credsStore": "test"}')
    with pytest.raises(RegistryError, match=f"docker-credential-test.*{message}.*DRIVER_REGISTRY_USER") as caught:
        logged_in_as(**helper(tmp_path, script))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"auths": ["x"]}',
        '{"auths": {"PLACE": {"auth": "aHVudGVyMg=="}}}',
        '{"auths": {"PLACE": {"auth": "%"}}}',
    ],
)
def test_a_broken_docker_configuration_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadFileError, match=f"{tmp_path}/config.json.*docker login"):
        logged_in_as(DOCKER_CONFIG=str(tmp_path))


def test_a_broken_docker_configuration_does_not_matter_where_no_login_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with Told(in_turn(says(200, TAGS))) as server:
        assert client(server.place, {"DOCKER_CONFIG": str(tmp_path)}).tags() == ["a", "b"]


def test_a_user_without_a_password_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="DRIVER_REGISTRY_PASSWORD is not"):
        logged_in_as(DRIVER_REGISTRY_USER="alice")
