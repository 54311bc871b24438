"""The index is signed where there is a key, the signature is what openssl checks, and the key shows nowhere."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.build.assemble import Store
from pipeline.build.shared_layers import Workshop
from pipeline.core.errors import BadFileError, UsageError
from pipeline.outcomes.index import Entry, Index
from pipeline.publish import signing
from pipeline.publish.index_image import Published, push
from pipeline.publish.signing import signer
from pipeline.registry.client import Registry
from tests import registry_process, samples
from tests.host_machine import make_key
from tests.registry_process import running_registry
from tests.small_project import SmallProject


def verify(public: Path, data: bytes, signature: bytes, folder: Path) -> bool:
    (folder / "signature").write_bytes(signature)
    words = ["openssl", "dgst", "-sha256", "-verify", str(public), "-signature", str(folder / "signature")]
    return subprocess.run(words, input=data, capture_output=True).returncode == 0


@pytest.mark.parametrize("way", ["environment", "file"])
def test_openssl_accepts_the_signature_of_these_bytes_and_of_no_others(tmp_path: Path, way: str) -> None:
    private, public = make_key(tmp_path)
    env = {signing.KEY: private.read_text()} if way == "environment" else {signing.KEY_FILE: str(private)}
    made = signer(env)
    assert made is not None
    signature = made.sign(b"the index\n")
    assert verify(public, b"the index\n", signature, tmp_path)
    assert not verify(public, b"the index", signature, tmp_path)


def test_without_a_key_nothing_is_signed() -> None:
    assert signer({}) is None


def test_a_key_in_the_form_that_openssl_wrote_formerly_is_taken_too(tmp_path: Path) -> None:
    words = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert "EC PRIVATE KEY" in text
    assert signer({signing.KEY: text}) is not None


def test_a_key_that_cannot_be_meant_is_refused_without_showing_it(tmp_path: Path) -> None:
    private, public = make_key(tmp_path)
    words = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]
    other = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    encrypted = subprocess.run(
        ["openssl", "pkey", "-in", private, "-aes256", "-passout", "pass:x"], check=True, capture_output=True, text=True
    ).stdout
    for text, words_said in (
        (other, "no ECDSA P-256 key"),
        (encrypted, "encrypted"),
        ("no key", "no private key"),
        (public.read_text(), "no private key"),
        ("x" * 20000, "larger than any private key"),
    ):
        with pytest.raises(BadFileError) as caught:
            signer({signing.KEY: text})
        assert words_said in str(caught.value)
        assert len(text) < 60 or text[40:60] not in str(caught.value)
    with pytest.raises(UsageError, match="both set"):
        signer({signing.KEY: "a", signing.KEY_FILE: "b"})
    with pytest.raises(BadFileError, match="No such file"):
        signer({signing.KEY_FILE: str(tmp_path / "none")})


def test_the_key_reaches_openssl_through_a_pipe_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, _ = make_key(tmp_path)
    text = private.read_text()
    seen: list[tuple[list[str], dict[str, str]]] = []
    run = subprocess.run

    def watched(command: list[str], **more: Any) -> Any:
        seen.append((command, more["env"]))
        return run(command, **more)

    monkeypatch.setenv(signing.KEY, text)
    monkeypatch.setattr(subprocess, "run", watched)
    made = signer()
    assert made is not None
    made.sign(b"data")
    assert len(seen) == 2
    body = text.splitlines()[1]
    for command, env in seen:
        assert body not in " ".join(command)
        assert all(body not in value for value in env.values())


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    if not registry_process.installed():
        pytest.skip(registry_process.MISSING)
    with running_registry(tmp_path / "registry") as address:
        yield Registry(address, environ={})


INDEX = Index(
    serial=5,
    generated="2026-11-24T12:00:00Z",
    pairs=(Entry(os="debian", arch="amd64", kernel="6.1", driver="535.1", outcome="pending"),),
)


def publish(registry: Registry, root: Path, index: Index = INDEX) -> bool:
    shop = Workshop(root, cast(Any, None), registry, cast(Any, None), Store(root / "layers"), cast(Any, None), cast(Any, None))
    return push(index, "sha256:basis", Published(registry, present="index" in registry.tags()), shop)


def files(registry: Registry) -> dict[str, bytes]:
    manifest = registry.manifest("index")
    assert manifest is not None
    layer = registry.blob(json.loads(manifest.data)["layers"][0]["digest"])
    with tarfile.open(fileobj=io.BytesIO(layer), mode="r:gz") as tar:
        return {name.lstrip("./"): held.read() for name in tar.getnames() if (held := tar.extractfile(name))}


def test_a_published_index_carries_the_signature_of_its_own_bytes(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = make_key(tmp_path)
    monkeypatch.setenv(signing.KEY_FILE, str(private))
    assert publish(registry, tmp_path)
    held = files(registry)
    assert verify(public, held["index.json"], held["index.json.sig"], tmp_path)
    body = private.read_bytes().splitlines()[1]
    assert all(body not in data for data in held.values())
    assert not publish(registry, tmp_path), "the same index by the same key is not published twice"


def test_a_key_that_is_new_signs_the_index_that_is_there(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert publish(registry, tmp_path)
    assert "index.json.sig" not in files(registry)
    for name in ("first", "second"):
        private, public = make_key(tmp_path, name)
        monkeypatch.setenv(signing.KEY_FILE, str(private))
        assert publish(registry, tmp_path)
        held = files(registry)
        assert verify(public, held["index.json"], held["index.json.sig"], tmp_path)


def test_a_run_without_the_key_does_not_put_an_unsigned_index_over_a_signed_one(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, _ = make_key(tmp_path)
    monkeypatch.setenv(signing.KEY_FILE, str(private))
    publish(registry, tmp_path)
    monkeypatch.delenv(signing.KEY_FILE)
    with pytest.raises(UsageError, match=f"is signed.*{signing.KEY_FILE}"):
        publish(registry, tmp_path, Index(serial=6, generated="2026-11-24T13:00:00Z", pairs=INDEX.pairs))
    assert "index.json.sig" in files(registry)


def test_a_run_whose_key_cannot_sign_is_refused_before_anything_is_asked_or_built(tmp_path: Path) -> None:
    project = SmallProject(tmp_path / "project", samples.a_lock(), registry="localhost:1")
    done = project.doit(DRIVER_SIGNING_KEY_FILE=str(tmp_path / "nosuch"))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"doit: DRIVER_SIGNING_KEY_FILE={tmp_path / 'nosuch'}: No such file or directory")
    assert done.stderr.count("\n") == 1
