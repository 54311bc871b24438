"""The registry's side is docker-registry itself where it behaves, and a small server of our own where it must not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.core.errors import RegistryError, UsageError
from pipeline.registry.client import MANIFEST_TYPES, Manifest, Registry
from tests.registry_process import MISSING, installed, running_registry
from tests.told_server import TAGS, Handler, Seen, Told, client, in_turn, refusal, says, sha256

OCI = MANIFEST_TYPES[0]
WONDERLAND = "alice:$2b$05$abcdefghijklmnopqrstuuA0vov2GDneHB3.8.cv9UF9g.RdvScIW\n"
real = pytest.mark.skipif(not installed(), reason=MISSING)


def manifest_of(config: bytes, layer: bytes) -> bytes:
    """A synthetic image manifest."""
    descriptors = [
        {"mediaType": kind, "digest": sha256(data), "size": len(data)}
        for kind, data in (
            ("application/vnd.oci.image.config.v1+json", config),
            ("application/vnd.oci.image.layer.v1.tar+gzip", layer),
        )
    ]
    document = {"schemaVersion": 2, "mediaType": OCI, "config": descriptors[0], "layers": descriptors[1:]}
    return json.dumps(document).encode()


# A real registry.


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@real
def test_an_image_pushed_under_tags_is_read_back_byte_for_byte(place: str, tmp_path: Path) -> None:
    registry = client(f"{place}/acme")
    config, layer = b'{"os": "linux"}', os.urandom(3 << 20)
    source = tmp_path / "layer"
    source.write_bytes(layer)
    assert registry.push_blob(config, sha256(config), len(config)) is True
    assert registry.push_blob(source, sha256(layer), len(layer)) is True
    data = manifest_of(config, layer)
    digest = registry.push_manifest(data, OCI, ["6.1.0-50-535.261.03", "r-0123456789abcdef"])

    assert digest == sha256(data)
    assert registry.manifest("r-0123456789abcdef") == Manifest(data, OCI, digest)
    assert registry.manifest(digest) == Manifest(data, OCI, digest)
    assert registry.digest("6.1.0-50-535.261.03") == digest
    assert registry.blob(sha256(config)) == config
    registry.download_blob(sha256(layer), len(layer), tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == layer
    assert {"6.1.0-50-535.261.03", "r-0123456789abcdef"} <= set(registry.tags())
    assert registry.reference("r-1") == f"{place}/acme/driver:r-1"
    assert registry.reference(digest) == f"{place}/acme/driver@{digest}"


@real
def test_what_is_not_there_is_none_or_false_or_an_empty_list(place: str) -> None:
    registry = client(f"{place}/nobody")
    assert registry.tags() == []
    assert registry.manifest("x") is None
    assert registry.digest("x") is None
    assert registry.has_blob(sha256(b"x")) is False


@real
def test_a_blob_that_is_there_is_not_sent_again(place: str) -> None:
    registry = client(f"{place}/again")
    assert registry.push_blob(b"once", sha256(b"once"), 4) is True
    before = registry.requests
    assert registry.push_blob(b"once", sha256(b"once"), 4) is False
    assert registry.requests == before + 1


@real
def test_an_empty_blob_can_be_pushed_from_disk(place: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    registry = client(f"{place}/empty")
    assert registry.push_blob(tmp_path / "empty", sha256(b""), 0) is True
    assert registry.blob(sha256(b"")) == b""


@real
def test_a_blob_of_another_repository_is_mounted(place: str) -> None:
    layer = os.urandom(1000)
    client(f"{place}/first").push_blob(layer, sha256(layer), len(layer))
    second = client(f"{place}/second")
    assert second.push_blob(layer, sha256(layer), len(layer), mount_from="first/driver") is True
    assert second.requests == 2  # is it there, and mount it
    assert second.blob(sha256(layer)) == layer


@real
def test_a_blob_that_cannot_be_mounted_is_sent(place: str) -> None:
    registry = client(f"{place}/third")
    assert registry.push_blob(b"fresh", sha256(b"fresh"), 5, mount_from="first/driver") is True
    assert registry.blob(sha256(b"fresh")) == b"fresh"


@real
def test_the_registry_refuses_a_blob_that_is_not_what_its_digest_says(place: str) -> None:
    with pytest.raises(RegistryError, match="DIGEST_INVALID"):
        client(place).push_blob(b"other", sha256(b"right"), 5)


@real
def test_a_manifest_whose_blobs_are_missing_is_refused_in_the_registrys_words(place: str) -> None:
    with pytest.raises(RegistryError, match="MANIFEST_BLOB_UNKNOWN"):
        client(f"{place}/bare").push_manifest(manifest_of(b"{}", b"absent"), OCI, ["x"])


@real
def test_delete_takes_the_manifest_and_its_tags_away_and_may_be_repeated(place: str) -> None:
    registry = client(f"{place}/gone")
    for blob in (b"{}", b"layer"):
        registry.push_blob(blob, sha256(blob), len(blob))
    digest = registry.push_manifest(manifest_of(b"{}", b"layer"), OCI, ["x"])
    registry.delete(digest)
    registry.delete(digest)
    assert registry.manifest("x") is None
    assert registry.tags() == []


@real
def test_a_registry_that_does_not_delete_says_how_to_allow_it(tmp_path: Path) -> None:
    with running_registry(tmp_path, delete=False) as address:
        registry = client(address)
        for blob in (b"{}", b"layer"):
            registry.push_blob(blob, sha256(blob), len(blob))
        digest = registry.push_manifest(manifest_of(b"{}", b"layer"), OCI, [])
        with pytest.raises(RegistryError, match=r"storage\.delete\.enabled"):
            registry.delete(digest)


@real
def test_many_images_push_at_once(place: str) -> None:
    registry = client(f"{place}/many")
    registry.push_blob(b"{}", sha256(b"{}"), 2)

    def push(number: int) -> str:
        layer = f"layer {number}".encode()
        registry.push_blob(layer, sha256(layer), len(layer))
        return registry.push_manifest(manifest_of(b"{}", layer), OCI, [f"t{number}"])

    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(push, range(24)))
    assert [registry.digest(f"t{number}") for number in range(24)] == digests


@real
def test_basic_login_against_a_real_registry(tmp_path: Path) -> None:
    with running_registry(tmp_path, htpasswd=WONDERLAND) as address:
        alice = client(address, {"DRIVER_REGISTRY_USER": "alice", "DRIVER_REGISTRY_PASSWORD": "wonderland"})
        assert alice.push_blob(b"secret", sha256(b"secret"), 6) is True
        assert alice.blob(sha256(b"secret")) == b"secret"
        with pytest.raises(RegistryError, match=f"401.*docker login {address}.*DRIVER_REGISTRY_USER"):
            client(address).tags()
        with pytest.raises(RegistryError, match=r"the login from DRIVER_REGISTRY_USER.* is not enough") as caught:
            client(address, {"DRIVER_REGISTRY_USER": "alice", "DRIVER_REGISTRY_PASSWORD": "mirror"}).tags()
        assert "mirror" not in str(caught.value)


# Places.


@pytest.mark.parametrize(
    ("place", "reference"),
    [
        ("localhost:5000", "localhost:5000/driver:t"),
        ("ghcr.io/acme", "ghcr.io/acme/driver:t"),
        ("[::1]:5000/a/b", "[::1]:5000/a/b/driver:t"),
        ("reg.example/a__b/c-d.e", "reg.example/a__b/c-d.e/driver:t"),
    ],
)
def test_a_place_gives_the_repository_beneath_it(place: str, reference: str) -> None:
    assert Registry(place, environ={}).reference("t") == reference


@pytest.mark.parametrize(
    "place",
    ["", "acme", "https://ghcr.io/acme", "ghcr.io/Acme", "ghcr.io/acme/", "ghcr.io//a", "ghcr.io/a:tag",
     "reg.example:0", "reg.example:99999",
     "-a.example", "ghcr.io/a/../b", "ghcr.io/" + "a" * 250, "a:b:c", "ghcr.io/acme\n"],
)  # fmt: skip
def test_what_is_no_place_is_refused_with_an_example(place: str) -> None:
    with pytest.raises(UsageError, match=r"looks like ghcr\.io/acme"):
        Registry(place, environ={})


def test_a_password_written_into_the_place_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        Registry("alice:wonderland@ghcr.io/acme", environ={})
    assert "wonderland" not in str(caught.value)


# Tags in pages.


def test_tags_follow_every_link_though_a_page_is_short_or_empty() -> None:
    pages = {
        "": (["a"], "</v2/driver/tags/list?n=1000&last=a>; rel=\"next\""),
        "a": ([], "<tags/../list?last=b>; rel=next"),
        "b": (["c", "d"], "<http://inside.example/v2/driver/tags/list?last=d>; rel=\"next\""),
        "d": (["e"], ""),
    }  # fmt: skip

    def answer(seen: Seen, handler: Handler) -> None:
        names, link = pages[seen.query.get("last", [""])[0]]
        handler.say(200, json.dumps({"name": "driver", "tags": names}).encode(), Link=link)

    with Told(answer) as server:
        assert client(server.place).tags() == ["a", "c", "d", "e"]


def test_a_link_loop_is_refused() -> None:
    with Told(in_turn(says(200, TAGS, Link='</v2/driver/tags/list?n=1000>; rel="next"'))) as server:
        with pytest.raises(RegistryError, match="pages do not end"):
            client(server.place).tags()
        assert len(server.seen) == 1


def test_a_repository_unknown_on_its_second_page_is_an_error() -> None:
    first, second = says(200, TAGS, Link="<list?last=b>; rel=next"), says(404, refusal("NAME_UNKNOWN", "gone"))
    with Told(in_turn(first, second)) as server, pytest.raises(RegistryError, match="404 NAME_UNKNOWN: gone"):
        client(server.place).tags()


def test_null_tags_are_none() -> None:
    with Told(in_turn(says(200, {"name": "driver", "tags": None}))) as server:
        assert client(server.place).tags() == []


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"tags": "a"}', b'{"tags": [1]}'])
def test_a_tag_list_that_is_none_is_an_error_not_an_empty_list(body: bytes) -> None:
    with Told(in_turn(says(200, body))) as server, pytest.raises(RegistryError, match="no list of tags"):
        client(server.place).tags()


def test_a_404_that_does_not_say_name_unknown_is_no_empty_repository() -> None:
    with (
        Told(in_turn(says(404, b"not here", Content_Type="text/plain"))) as server,
        pytest.raises(RegistryError, match="tag list: 404 not here"),
    ):
        client(server.place).tags()


# Nonsense.


@pytest.mark.parametrize("method", ["manifest", "digest", "has_blob", "blob", "tags"])
def test_a_web_page_with_200_is_no_answer(method: str) -> None:
    argument = {"tags": (), "manifest": ("t",), "digest": ("t",)}.get(method, (sha256(b"x"),))
    with (
        Told(in_turn(says(200, b"<html>log in to the WLAN", Content_Type="text/html; charset=utf-8"))) as server,
        pytest.raises(RegistryError, match="web page"),
    ):
        getattr(client(server.place), method)(*argument)


def test_a_manifest_with_another_digest_than_said_or_asked_is_refused() -> None:
    wrong = sha256(b"other")
    with (
        Told(in_turn(says(200, b"{}", Content_Type=OCI, Docker_Content_Digest=wrong))) as server,
        pytest.raises(RegistryError, match=f"not {wrong}"),
    ):
        client(server.place).manifest("t")
    with (
        Told(in_turn(says(200, b"{}", Content_Type=OCI))) as server,
        pytest.raises(RegistryError, match=f"not {wrong}"),
    ):
        client(server.place).manifest(wrong)


def test_a_manifest_of_an_unknown_type_is_refused() -> None:
    with (
        Told(in_turn(says(200, b"{}", Content_Type="application/json"))) as server,
        pytest.raises(RegistryError, match="no image manifest but 'application/json'"),
    ):
        client(server.place).manifest("t")


def test_the_digest_is_computed_where_head_does_not_say_it() -> None:
    with Told(in_turn(says(200, b"{}", Content_Type=OCI))) as server:
        assert client(server.place).digest("t") == sha256(b"{}")
        assert [seen.method for seen in server.seen] == ["HEAD", "GET"]


def test_all_manifest_types_are_accepted_when_asking() -> None:
    with Told(in_turn(says(404))) as server:
        client(server.place).manifest("t")
        assert server.seen[0].headers["accept"].split(", ") == list(MANIFEST_TYPES)


def test_a_blob_with_another_digest_is_refused() -> None:
    with Told(in_turn(says(200, b"evil"))) as server, pytest.raises(RegistryError, match="has digest"):
        client(server.place).blob(sha256(b"good"))


def test_a_blob_larger_than_allowed_is_refused() -> None:
    with Told(in_turn(says(200, b"x" * 100))) as server, pytest.raises(RegistryError, match="more than 99 bytes"):
        client(server.place).blob(sha256(b"x" * 100), max_bytes=99)


@pytest.mark.parametrize("body", [b"evil", b"evil and more"])
def test_a_wrong_download_leaves_nothing_behind(body: bytes, tmp_path: Path) -> None:
    with Told(in_turn(says(200, body))) as server, pytest.raises(RegistryError):
        client(server.place).download_blob(sha256(b"good"), 4, tmp_path / "blob")
    assert list(tmp_path.iterdir()) == []


def test_a_download_cut_short_begins_anew(tmp_path: Path) -> None:
    with Told(in_turn(says(200, b"whole blob", cut=3), says(503), says(200, b"whole blob"))) as server:
        client(server.place).download_blob(sha256(b"whole blob"), 10, tmp_path / "blob")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole blob"]


@pytest.mark.parametrize("bad", ["../../x", "sha256:abc", "a b", "", "sha512:" + "0" * 128])
def test_what_is_no_reference_is_not_put_into_a_url(bad: str) -> None:
    with Told(in_turn(says(200))) as server:
        with pytest.raises(Exception, match="is not a"):
            client(server.place).manifest(bad)
        with pytest.raises(RegistryError, match="is not a sha256 digest"):
            client(server.place).has_blob(bad)
        assert server.seen == []


def test_a_pushed_manifest_that_reads_back_as_another_is_an_error() -> None:
    def answer(seen: Seen, handler: Handler) -> None:
        handler.say(201 if seen.method == "PUT" else 200, Docker_Content_Digest=sha256(b"somebody else's"))

    with Told(answer) as server, pytest.raises(RegistryError, match="reads back as"):
        client(server.place).push_manifest(b"{}", OCI, ["t"])


def test_a_tag_that_others_move_too_need_not_read_back_but_its_manifest_must_be_there() -> None:
    held = [sha256(b"{}")]

    def answer(seen: Seen, handler: Handler) -> None:
        asked = seen.path.rpartition("/")[2]
        found = asked if asked in held else sha256(b"somebody else's")
        handler.say(201 if seen.method == "PUT" else 200, Docker_Content_Digest=found)

    with Told(answer) as server:
        assert client(server.place).push_manifest(b"{}", OCI, ["index"], shared=True) == sha256(b"{}")
        held.clear()
        with pytest.raises(RegistryError, match="reads back as"):
            client(server.place).push_manifest(b"{}", OCI, ["index"], shared=True)
