"""DOCKER_HOST may name an engine on another machine: nothing but what goes over the wire is there."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.registry import Registry
from tests import tiny_project
from tests.registry_process import MISSING, installed, running_registry
from tests.tiny_project import TinyProject, digests, engine_host, served_packages, walk
from tests.wire import Wire

pytestmark = [pytest.mark.e2e, pytest.mark.budget("scale"), pytest.mark.skipif(not installed(), reason=MISSING)]


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
            assert "1 pair: 1 built" in done.stderr
            assert (len(wire.sent) > sent) is (name == "far")
            found.append(digests(Registry(address, environ={})))
            walk(Registry(address, environ={}))
            project.forget()
    assert found[0] == found[1]
    assert wire.sent.count(b"/build?") >= 4, "toolchain, base or userspace, the probes, a kind"
    assert str(tmp_path).encode() not in wire.sent
