"""``DRIVER_MIRRORS``: prefixes of URLs and image names, longest first, read strictly."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import BadFileError
from pipeline.fetch.mirrors import Mirrors, load


def test_the_longest_prefix_wins() -> None:
    mirrors = Mirrors({"https://a.example/": "http://m/a/", "https://a.example/deep/": "http://m/d/"})
    assert mirrors.rewrite("https://a.example/deep/x?y=1") == "http://m/d/x?y=1"
    assert mirrors.rewrite("https://a.example/x") == "http://m/a/x"


def test_an_address_under_no_prefix_stays() -> None:
    assert Mirrors({"https://a.example/": "http://m/"}).rewrite("https://b.example/x") == "https://b.example/x"


@pytest.mark.parametrize("url", ["https://a.example.org/x", "https://a.example:444/x", "https://a.examplee"])
def test_a_prefix_ends_where_a_host_ends(url: str) -> None:
    assert Mirrors({"https://a.example": "http://m"}).rewrite(url) == url


def test_a_whole_address_can_be_mapped() -> None:
    mirrors = Mirrors({"https://a.example/feed.json": "http://m/f"})
    assert mirrors.rewrite("https://a.example/feed.json") == "http://m/f"
    assert mirrors.rewrite("https://a.example/feed.json?v=2") == "http://m/f?v=2"
    assert mirrors.rewrite("https://a.example/feed.json5") == "https://a.example/feed.json5"


def test_image_names_have_prefixes_of_their_own() -> None:
    mirrors = Mirrors(registries={"docker.io": "reg.local:5000/hub", "docker.io/acme": "reg.local:5000/acme"})
    assert mirrors.registry("docker.io/library/debian:12") == "reg.local:5000/hub/library/debian:12"
    assert mirrors.registry("docker.io/acme/x@sha256:0") == "reg.local:5000/acme/x@sha256:0"
    assert mirrors.registry("docker.iot/x") == "docker.iot/x"


def test_a_host_is_no_prefix_of_the_same_host_with_a_port() -> None:
    assert Mirrors(registries={"localhost": "reg"}).registry("localhost:5000/x") == "localhost:5000/x"


@given(st.text(max_size=30))
def test_no_mirrors_change_nothing(text: str) -> None:
    assert Mirrors().rewrite(text) == text
    assert Mirrors().registry(text) == text


@given(st.from_regex(r"[a-z/]{0,10}", fullmatch=True), st.booleans())
def test_what_follows_the_prefix_is_kept(rest: str, slash: bool) -> None:
    mirrors = Mirrors({"https://a/": "http://m/x/"} if slash else {"https://a": "http://m/x"})
    assert mirrors.rewrite("https://a/" + rest) == "http://m/x/" + rest


def test_a_file_gives_both_tables(tmp_path: Path) -> None:
    path = tmp_path / "mirrors.toml"
    path.write_text('[mirrors]\n"https://a.example/" = "http://m/a/"\n[registries]\n"docker.io" = "reg.local"\n')
    mirrors = load(str(path))
    assert mirrors.rewrite("https://a.example/x") == "http://m/a/x"
    assert mirrors.registry("docker.io/x") == "reg.local/x"


def test_without_a_file_there_are_none() -> None:
    assert load("") == Mirrors()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[mirror]\n", "unknown field `mirror`"),
        ("[mirrors]\n'https://a/' = 1\n", "$.mirrors"),
        ("[mirrors]\n'ftp://a/' = 'http://m/'\n", "$.mirrors"),
        ("[mirrors]\n'https://a/' = 'file:///srv/'\n", "$.mirrors"),
        ("[mirrors]\n'https://a/' = 'http://m'\n", "do not end alike"),
        ("[registries]\n'docker.io/' = 'reg'\n", "do not end alike"),
        ("[registries]\n'https://docker.io' = 'reg'\n", "$.registries"),
        ("mirrors = 3\n", "$.mirrors"),
        ("[mirrors\n", "line 1"),
        ("[mirrors]\n'https://a/' = 'http://m/'\n'https://a/' = 'http://n/'\n", "Cannot overwrite"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mirrors.toml"
    path.write_text(text)
    with pytest.raises(BadFileError) as caught:
        load(str(path))
    assert str(path) in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mirrors.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadFileError, match=r"mirrors\.toml: "):
        load(str(path))


@given(st.binary(max_size=60))
def test_any_bytes_are_mirrors_or_our_own_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(data)
    with contextlib.suppress(BadFileError):
        load(str(path))
