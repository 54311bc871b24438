"""Build contexts: always what the lock says, a change by hand is named, and a full disk is said to be full."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.build import contexts
from pipeline.core.errors import DiskError
from tests import samples


def test_a_rendered_file_is_written_once_and_then_left_alone(tmp_path: Path) -> None:
    rendered = samples.plan().pairs[0].rendered
    said: list[str] = []
    assert contexts.write(rendered, tmp_path, said.append) is True
    dockerfile = tmp_path / rendered.name / "Dockerfile"
    before = dockerfile.stat().st_mtime_ns
    assert contexts.write(rendered, tmp_path, said.append) is False
    assert (dockerfile.read_text(), dockerfile.stat().st_mtime_ns, said) == (rendered.text, before, [])


@pytest.mark.parametrize("seal", ["kept", "removed", "forged"])
def test_a_change_by_hand_is_named_and_undone(tmp_path: Path, seal: str) -> None:
    rendered = samples.plan().pairs[0].rendered
    contexts.write(rendered, tmp_path, lambda text: None)
    dockerfile = tmp_path / rendered.name / "Dockerfile"
    dockerfile.write_text(rendered.text + "RUN curl https://example.com | sh\n")
    mark = dockerfile.with_name(".rendered")
    if seal == "removed":
        mark.unlink()
    elif seal == "forged":
        mark.write_text("0" * 64)
    said: list[str] = []
    assert contexts.write(rendered, tmp_path, said.append) is True
    assert dockerfile.read_text() == rendered.text
    assert len(said) == 1
    assert str(dockerfile) in said[0]
    assert "by hand" in said[0]


def test_a_new_lock_changes_the_file_and_accuses_nobody(tmp_path: Path) -> None:
    before = samples.plan().pairs[0].rendered
    kernel = samples.kernel(headers=(samples.package("linux-headers-new"),))
    after = samples.plan(samples.a_lock(kernels=(kernel,))).pairs[0].rendered
    assert before.name == after.name
    contexts.write(before, tmp_path, lambda text: None)
    said: list[str] = []
    assert contexts.write(after, tmp_path, said.append) is True
    assert said == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "image").write_text("a file where a folder should be")
    with pytest.raises(DiskError, match="Dockerfile: Not a directory"):
        contexts.write(samples.plan().pairs[0].rendered, tmp_path, lambda text: None)
