"""The engine's side is a real HTTP server that speaks the few calls of Docker's API that the pipeline makes, well or badly."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from pipeline.core.errors import BadFileError, DiskError, EngineError, PairFailed, UsageError
from pipeline.core.tags import RECIPE_LABEL
from pipeline.engine.client import Engine, address, hint
from tests.told_server import Handler, Seen, Told, says

VERSION = {"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10.24", "Arch": "amd64", "Os": "linux"}
RECIPE = "ab" * 32
Answer = Callable[[Handler], None]
Asked = Callable[..., Engine]


def streams(*events: dict[str, Any] | bytes, cut: bool = False) -> Answer:
    """A chunked answer, an event a chunk; ``cut``: the connection ends before the last chunk says so."""

    def answer(handler: Handler) -> None:
        handler.send_response_only(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for event in events:
            data = event if isinstance(event, bytes) else json.dumps(event).encode() + b"\r\n"
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if not cut:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return answer


@pytest.fixture
def told() -> Iterator[tuple[Told, dict[str, Answer]]]:
    """The server, and its answers by a part of the path; what is not named is a 404."""
    answers: dict[str, Answer] = {"/version": says(200, VERSION), "/info": says(200, {"NCPU": 6})}

    def answer(seen: Seen, handler: Handler) -> None:
        found = next((said for path, said in answers.items() if path in f"{seen.method} {seen.path}"), None)
        (found or says(404, {"message": "no such thing"}))(handler)

    with Told(answer) as server:
        yield server, answers


@pytest.fixture
def asked(told: tuple[Told, dict[str, Answer]]) -> Iterator[Asked]:
    """Make an engine whose server has more answers; its connections are closed afterwards."""
    server, answers = told
    made: list[Engine] = []

    def make(**more: Answer) -> Engine:
        answers.update({name.replace("_", "/"): answer for name, answer in more.items()})
        made.append(Engine(f"tcp://{server.place}", timeout=20))
        return made[-1]

    yield make
    for engine in made:
        engine._api.close()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A build context with a file somebody owns."""
    folder = tmp_path / "context"
    (folder / "debs").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "debs/a.deb").write_bytes(b"deb")
    return folder


def test_an_engine_says_its_architecture_and_processors(asked: Asked) -> None:
    engine = asked()
    assert (engine.arch, engine.cpus) == ("amd64", 6)


@pytest.mark.parametrize(("version", "error"), [("1.40", UsageError), ("", UsageError), ("one", UsageError)])
def test_an_engine_older_than_docker_20_10_is_wrong_use(asked: Asked, version: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="speaks API"):
        asked(_version=says(200, VERSION | {"ApiVersion": version}))


@pytest.mark.parametrize("answer", [says(200, b"<html>"), says(503, b"overloaded"), says(200, b'{"Api', cut=2)])
def test_what_does_not_answer_as_an_engine_is_named_with_what_to_do(asked: Asked, answer: Answer) -> None:
    with pytest.raises(EngineError, match="no container engine answers at tcp://") as caught:
        asked(_version=answer)
    assert "DOCKER_HOST" in caught.value.hint


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:1", "carrier-pigeon://roof"])
def test_where_nobody_is_no_engine_answers(host: str) -> None:
    with pytest.raises(EngineError, match=f"no container engine answers at {host}"):
        Engine(host)


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:1", "http://127.0.0.1:1"])
def test_why_nobody_answers_is_said_in_words_and_not_as_the_library_wraps_it(host: str) -> None:
    with pytest.raises(EngineError) as caught:
        Engine(host)
    assert "Pool" not in caught.value.message
    assert "0x" not in caught.value.message
    assert "refused" in caught.value.message


def test_who_has_named_the_engine_is_not_told_that_another_would_be_started() -> None:
    assert hint({"DOCKER_HOST": "tcp://dead"}).startswith("mend DOCKER_HOST, or unset it")
    assert hint({}, "tcp://dead").startswith("mend docker_host in versions.toml, or take it out")
    assert hint({}) == "run ./doit.sh, which starts one, or set DOCKER_HOST"


@pytest.mark.parametrize(
    ("labels", "there"), [({RECIPE_LABEL: RECIPE}, True), ({RECIPE_LABEL: "cd" * 32}, False), ({}, False), (None, False)]
)
def test_an_image_counts_by_the_recipe_in_its_label_and_not_by_its_name(
    asked: Asked, labels: dict[str, str] | None, there: bool
) -> None:
    engine = asked(**{"images_a:b_json": says(200, {"Config": {"Labels": labels}})})
    assert engine.has("a:b", RECIPE) is there


def test_an_image_that_is_not_there_is_not_there_and_a_broken_engine_is_an_error(asked: Asked) -> None:
    assert asked().has("c:d", RECIPE) is False
    with pytest.raises(EngineError, match="did not look for an image"):
        asked(**{"images_e:f_json": says(500, {"message": "leveldb: closed"})}).has("e:f", RECIPE)


def test_a_build_has_no_network_and_its_context_names_nobody(
    asked: Asked, told: tuple[Told, dict[str, Answer]], context: Path
) -> None:
    lines: list[str] = []
    said = (
        {"stream": "Step 1/2 : FROM scratch\n"},
        {"stream": "\x1b[91mwarning: old\x1b[0m\n"},
        {"stream": "Successfully built 1\n"},
    )
    engine = asked(_build=streams(*said))
    engine.build(context, tag="t:1", target="open", labels={RECIPE_LABEL: RECIPE}, args={"JOBS": "2"}, log=lines.append)
    (request,) = told[0].asked("POST", "/build")
    query = {name: values[0] for name, values in request.query.items()}
    assert (query["networkmode"], query["target"], query["t"]) == ("none", "open", "t:1")
    assert (json.loads(query["labels"]), json.loads(query["buildargs"])) == ({RECIPE_LABEL: RECIPE}, {"JOBS": "2"})
    with tarfile.open(fileobj=io.BytesIO(request.body)) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == ["Dockerfile", "debs", "debs/a.deb"]
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", 0)}
    assert lines == ["Step 1/2 : FROM scratch", "warning: old", "Successfully built 1"]


def failing(text: str) -> dict[str, Any]:
    return {"errorDetail": {"message": text}, "error": text}


STEP = "The command '/bin/sh -c make' returned a non-zero code: "


@pytest.mark.parametrize(
    ("events", "error", "words"),
    [
        ([failing(STEP + "2")], PairFailed, "non-zero code: 2"),
        ([failing(STEP + "137")], EngineError, "was killed"),
        ([{"stream": "cc1: No space left on device\n"}, failing(STEP + "1")], DiskError, "disk is full"),
        ([failing("write /layer.tar: no space left on device")], DiskError, "disk is full"),
        ([failing("layer does not exist")], EngineError, "could not build: layer does not exist"),
        ([{"stream": "Step 1/2 : FROM scratch\n"}], EngineError, "stopped in the middle"),
    ],
)
def test_a_step_that_fails_is_the_pairs_and_everything_else_the_machines(
    asked: Asked, context: Path, events: list[dict[str, Any]], error: type[Exception], words: str
) -> None:
    engine = asked(_build=streams(*events))
    with pytest.raises(error, match=words):
        engine.build(context, tag="t:1", log=lambda line: None)


def test_a_connection_that_ends_in_the_middle_of_a_build_says_nothing_about_the_pair(asked: Asked, context: Path) -> None:
    engine = asked(_build=streams({"stream": "Step 1/2 : FROM scratch\n"}, cut=True))
    with pytest.raises(EngineError):
        engine.build(context, tag="t:1", log=lambda line: None)


def test_the_engines_own_refusal_of_a_build_is_an_error_of_the_engine(asked: Asked, context: Path) -> None:
    with pytest.raises(EngineError, match="dockerfile parse error"):
        asked(_build=says(500, {"message": "dockerfile parse error line 3"})).build(context, tag="t", log=lambda line: None)


EXPORT = {"POST _v1.41_containers_create": says(201, {"Id": "c1", "Warnings": []}), "DELETE": says(204)}


def archive_of(data: bytes) -> Answer:
    stat = "eyJuYW1lIjoib3V0In0="  # {"name":"out"}

    def answer(handler: Handler) -> None:
        handler.send_response_only(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("X-Docker-Container-Path-Stat", stat)
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))

    return answer


def test_a_folder_of_an_image_is_written_as_it_comes_and_its_container_is_removed(
    asked: Asked, told: tuple[Told, dict[str, Answer]], tmp_path: Path
) -> None:
    engine = asked(**EXPORT, **{"GET _v1.41_containers_c1_archive": archive_of(b"a tar")})
    engine.export("t:1", "/out", tmp_path / "out.tar")
    assert (tmp_path / "out.tar").read_bytes() == b"a tar"
    (created,) = told[0].asked("POST", "/containers/create")
    assert json.loads(created.body)["NetworkDisabled"] is True
    assert [seen.path for seen in told[0].asked("DELETE")] == ["/v1.41/containers/c1"]


def test_a_folder_that_is_not_in_the_image_is_an_error_and_leaves_no_container(
    asked: Asked, told: tuple[Told, dict[str, Answer]], tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match="did not export /out from t:1"):
        asked(**EXPORT).export("t:1", "/out", tmp_path / "out.tar")
    assert told[0].asked("DELETE", "/containers/c1")


def test_a_full_disk_is_said_to_be_full(asked: Asked) -> None:
    engine = asked(**EXPORT, **{"GET _v1.41_containers_c1_archive": archive_of(b"a tar")})
    with pytest.raises(DiskError, match="/dev/full: No space left on device"):
        engine.export("t:1", "/out", Path("/dev/full"))


def test_the_engine_is_the_one_named_first_then_ours_then_the_systems(tmp_path: Path) -> None:
    ours = tmp_path / "engine.env"
    ours.write_text("DOCKER_HOST=unix:///run/ours.sock\n")
    assert address({"DOCKER_HOST": "tcp://1.2.3.4:2375"}, "unix:///told.sock", ours) == "tcp://1.2.3.4:2375"
    assert address({}, "unix:///told.sock", ours) == "unix:///told.sock"
    assert address({}, "", ours) == "unix:///run/ours.sock"
    assert address({}, "", tmp_path / "absent") == "unix:///var/run/docker.sock"


def test_the_steps_before_one_that_failed_are_removed_and_nothing_older(
    asked: Asked, told: tuple[Told, dict[str, Answer]]
) -> None:
    listed = [{"Id": f"sha256:{digit * 64}", "Created": created} for digit, created in (("a", 100), ("b", 99), ("c", 101))]
    engine = asked(
        **{"/images/json": says(200, json.dumps(listed).encode()), f"DELETE /v1.41/images/sha256:{'c' * 64}": says(200, b"[]")}
    )
    engine.forget_unnamed(100)
    removed = [seen.path for seen in told[0].seen if seen.method == "DELETE"]
    assert [path.partition("sha256:")[2][0] for path in removed] == ["a", "c"], "the first is in use or gone: the next is tried"
    assert not [path for path in removed if "force=1" in path or "force=True" in path]


def test_of_what_was_compiled_the_newest_stay_and_what_a_pair_at_work_needs(
    asked: Asked, told: tuple[Told, dict[str, Answer]]
) -> None:
    listed = [{"Id": f"sha256:{n}", "Created": n, "RepoTags": [f"driver-modules:{n}"]} for n in (3, 9, 1, 5)]
    engine = asked(
        **{"/images/json": says(200, json.dumps(listed).encode()), "DELETE _v1.41_images_driver-modules%3A3": says(200, b"[]")}
    )
    engine.keep_newest("driver-modules", 2, in_use={"driver-modules:1"})
    removed = [seen.path.partition("?")[0].rpartition("/")[2] for seen in told[0].seen if seen.method == "DELETE"]
    assert removed == ["driver-modules:3"], "an image whose steps were all in the cache is as old as its first build"


FEDORA, DIGEST, FROM = "registry.example/fedora", "sha256:" + "f" * 64, "driver-from:ffffffffffffffff-arm64"
WHERE = f"{FEDORA}@{DIGEST}"


class Store:
    """An engine's images by name: a pull puts ``offered`` there, the architecture that the registry's image has."""

    def __init__(self, offered: str, **held: str) -> None:
        self.offered, self.asked = offered, ""
        names = {"local": FROM, "digest": WHERE}
        self.held = {names[name]: arch for name, arch in held.items()}

    def inspect(self, handler: Handler) -> None:
        name = unquote(handler.path.partition("/images/")[2].removesuffix("/json"))
        found = self.held.get(name)
        says(200, {"Id": "sha256:1", "Architecture": found})(handler) if found else says(404, {"message": "none"})(handler)

    def create(self, handler: Handler) -> None:
        self.asked = dict(parse_qsl(urlsplit(handler.path).query)).get("platform", "")
        if WHERE in self.held:
            streams({"error": f"Cannot overwrite digest {DIGEST}"})(handler)
            return
        self.held[WHERE] = self.offered
        streams({"status": "Status: Downloaded newer image"})(handler)

    def tag(self, handler: Handler) -> None:
        self.held[FROM] = self.held[WHERE]
        says(201, {})(handler)

    def remove(self, handler: Handler) -> None:
        del self.held[WHERE]
        says(200, b"[]")(handler)

    def answers(self) -> dict[str, Answer]:
        return {"/images/create": self.create, "/tag": self.tag, "DELETE /": self.remove, "/json": self.inspect}


@pytest.mark.parametrize("held", [{}, {"local": "amd64"}, {"digest": "amd64"}, {"local": "amd64", "digest": "amd64"}])
def test_a_vendors_image_is_pulled_for_the_locks_architecture(
    held: dict[str, str], told: tuple[Told, dict[str, Answer]], asked: Asked
) -> None:
    """An index has one digest on every machine; Docker's engine refuses to pull what it knows by it for another."""
    store = Store("arm64", **held)
    told[1].update(store.answers())
    asked().pull(FEDORA, DIGEST, FROM, "arm64")
    assert (store.asked, store.held[FROM]) == ("linux/arm64", "arm64")
    store.asked = ""
    asked().pull(FEDORA, DIGEST, FROM, "arm64")
    assert store.asked == "", "it is there"


def test_a_vendors_image_for_another_architecture_is_refused_in_one_line(
    told: tuple[Told, dict[str, Answer]], asked: Asked
) -> None:
    store = Store("amd64")
    told[1].update(store.answers())
    with pytest.raises(BadFileError) as refused:
        asked().pull(FEDORA, DIGEST, FROM, "arm64")
    assert str(refused.value) == (
        f"{WHERE} is no image for arm64 (it is for amd64): give the digest of its image for arm64 in digests of that "
        "[[toolchain]], then 'doit update'"
    )
    assert FROM not in store.held


@pytest.mark.parametrize(
    "said", ["no matching manifest for linux/arm64 in the manifest list entries", "image does not match the specified platform"]
)
def test_an_index_without_the_architecture_is_refused_the_same_way(
    said: str, told: tuple[Told, dict[str, Answer]], asked: Asked
) -> None:
    told[1].update({"/images/create": streams({"error": said})})
    with pytest.raises(BadFileError, match=rf"^registry\.example/fedora@sha256:f+ is no image for arm64 \({said}\)"):
        asked().pull(FEDORA, DIGEST, FROM, "arm64")


def test_an_image_that_cannot_be_pulled_names_the_mirror(told: tuple[Told, dict[str, Answer]], asked: Asked) -> None:
    told[1].update({"/images/create": streams({"error": "manifest unknown"})})
    with pytest.raises(EngineError, match=r"@sha256:f+: manifest unknown: look whether it is there; \[registries\] of"):
        asked().pull(FEDORA, DIGEST, FROM, "arm64")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("exec /bin/sh: exec format error\n", EngineError),
        ("standard_init_linux.go:228: exec user process caused: exec format error\n", EngineError),
        ("/bin/sh: 1: scripts/basic/fixdep: Exec format error\n", PairFailed),
    ],
)
def test_an_engine_that_cannot_run_an_images_programs_says_nothing_about_the_pair(
    line: str, error: type[Exception], asked: Asked, context: Path
) -> None:
    failed = {"error": "The command '/bin/sh -c set -eu' returned a non-zero code: 1"}
    engine = asked(_build=streams({"stream": line}, failed))
    with pytest.raises(error) as raised:
        engine.build(context, tag="x:y", log=lambda text: None)
    if error is EngineError:
        assert "cannot run the image's programs, which are for another architecture: take an engine of that" in str(raised.value)
