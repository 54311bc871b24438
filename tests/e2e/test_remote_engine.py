"""DOCKER_HOST may name an engine on another machine: nothing but what goes over the wire is there."""

from __future__ import annotations

import ssl
import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest

from bootstrap import probe
from pipeline.core.errors import EngineError, UsageError
from pipeline.engine.client import Engine
from pipeline.registry.client import Registry
from tests import tiny_project
from tests.registry_process import MISSING, installed, running_registry
from tests.tiny_project import TinyProject, digests, engine_host, served_packages, walk
from tests.wire import Wire, certificates

pytestmark = [pytest.mark.e2e, pytest.mark.full, pytest.mark.area("scale"), pytest.mark.skipif(not installed(), reason=MISSING)]


def test_an_engine_over_tcp_builds_the_same_digests_and_is_told_no_path_of_this_machine(tmp_path: Path) -> None:
    if reason := tiny_project.missing():
        pytest.skip(reason)
    if not (engine := engine_host()).startswith("unix://"):
        pytest.skip(f"the engine at {engine} is a remote one: every other test shows this")
    salt, found = uuid.uuid4().hex, []
    with ExitStack() as stack:
        archive, packages = stack.enter_context(served_packages(tmp_path / "archive"))
        wire = stack.enter_context(Wire(engine))
        for name, host in (("far", f"tcp://{wire.place}"), ("near", engine)):
            address = stack.enter_context(running_registry(tmp_path / f"registry-{name}"))
            project = TinyProject(
                tmp_path / name, archive, packages, registry=address, salt=salt, kernels=("6.1.40",), DOCKER_HOST=host
            )
            stack.callback(project.forget)
            sent = len(wire.sent)
            done = project.doit()
            assert done.returncode == 0, done.stderr
            assert "1 of 1 pair built" in done.stderr
            assert (len(wire.sent) > sent) is (name == "far")
            found.append(digests(Registry(address, environ={})))
            walk(Registry(address, environ={}))
            project.forget()
    assert found[0] == found[1]
    assert wire.sent.count(b"/build?") >= 4, "toolchain, base or userspace, the probes, a kind"
    assert str(tmp_path).encode() not in wire.sent


@pytest.fixture
def engine() -> str:
    if reason := tiny_project.missing():
        pytest.skip(reason)
    if not engine_host().startswith("unix://"):
        pytest.skip("the engine is a remote one")
    return engine_host()


def test_an_engine_behind_tls_is_asked_as_docker_asks_it(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", ssl.get_default_verify_paths().openssl_cafile)  # about other servers
    folder = certificates(tmp_path / "certificates")
    with Wire(engine, folder) as wire:
        host, environ = f"tcp://{wire.place}", {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)}
        assert probe.ask_engine(host, environ) == ""
        far, near = Engine(host, environ=environ), Engine(engine, environ=environ)
        assert (far.arch, far.cpus) == (near.arch, near.cpus)
        assert far.has("no-such-image:1", "0" * 64) is False
        far.close()
        near.close()
        assert b"GET /_ping" in wire.sent
        assert probe.ask_engine(host, {}) != ""
        with pytest.raises(EngineError, match="no container engine answers"):
            Engine(host, environ={})


def test_an_engine_whose_certificates_are_not_there_is_wrong_use_that_says_where_they_belong(tmp_path: Path) -> None:
    environ = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    with pytest.raises(UsageError, match=rf"have ca\.pem, cert\.pem and key\.pem in {tmp_path}"):
        Engine("tcp://127.0.0.1:9", environ=environ)
    assert probe.ask_engine("tcp://127.0.0.1:9", environ) == "its certificates: No such file or directory"


def test_an_engine_over_ssh_is_refused_with_the_way_that_works() -> None:
    with pytest.raises(UsageError, match=r"ssh -nNT -L /tmp/engine\.sock"):
        Engine("ssh://somebody@builder.example", environ={})
