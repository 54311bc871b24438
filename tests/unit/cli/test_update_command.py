"""``doit update`` as people run it: exit status, what is written, what is printed, for people and for machines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import lockfile
from pipeline.upstream.coreos import fedora_coreos, flatcar
from tests.misbehaving_server import Answer, MisbehavingServer, html_page
from tests.recorded_upstream import documents, good, mirrors, path_of, serve
from tests.small_project import SmallProject

WISHES = """
[fedora-coreos]
streams = ["stable"]
images = false
[flatcar]
channels = ["stable", "lts"]
ahead = false
"""


@pytest.fixture
def project(server: MisbehavingServer, shared: Path, tmp_path: Path) -> SmallProject:
    serve(server, documents(shared / "upstream"))
    told = mirrors(server, tmp_path / "mirrors.toml")
    return SmallProject(tmp_path / "project", lockfile.empty(), WISHES, DRIVER_MIRRORS=str(told), NO_PROXY="127.0.0.1")


def held(project: SmallProject) -> bytes:
    return (project.root / "versions.lock").read_bytes()


def test_an_update_writes_the_lock_and_tells_in_markdown_what_came(project: SmallProject) -> None:
    done = project.doit("update")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("### Came\n\n- pending kernel fedora-coreos/amd64:unknown (stable 44.20260607.3.1, ")
    assert len(lockfile.parse(held(project)).pending) == 14
    again = project.doit("update")
    assert again.stdout.startswith("nothing changed\n")


def test_a_dry_run_says_the_same_and_writes_nothing(project: SmallProject) -> None:
    before = held(project)
    dry = project.doit("update", "--dry-run")
    assert held(project) == before
    assert project.doit("update").stdout == dry.stdout


def test_json_is_one_document_with_changes_reports_problems_and_requests(project: SmallProject) -> None:
    document = json.loads(project.doit("update", "--json").stdout)
    assert document["written"] is True
    assert (document["pending"], document["pending_drivers"], document["problems"]) == (14, 0, [])
    assert len(document["changes"]) == 14
    assert document["requests"] == 3 + 6 + 2
    again = json.loads(project.doit("update", "--json").stdout)
    assert (again["changes"], again["written"]) == ([], False), "the same lock once more: nothing is written"
    dry = json.loads(project.doit("update", "--json", "--dry-run").stdout)
    assert (dry["changes"], dry["written"]) == ([], False)


def test_a_source_that_fails_is_named_on_stderr_with_status_2_and_what_the_others_say_is_written(
    project: SmallProject, server: MisbehavingServer
) -> None:
    server.says(path_of(flatcar.feed_url("lts")), html_page())
    done = project.doit("update")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("doit: flatcar lts: https://www.flatcar.org/releases-json/releases-lts.json")
    assert "### Could not be read; what was known of it is kept\n" in done.stdout
    channels = {r.channel for p in lockfile.parse(held(project)).pending for r in p.releases}
    assert channels == {"stable"}


def test_a_source_that_lists_far_less_is_refused_without_the_option(project: SmallProject, server: MisbehavingServer) -> None:
    project.doit("update")
    before = held(project)
    index = {"stream": "stable", "releases": [{"version": "44.20260707.3.1", "commits": [{"architecture": "x86_64"}]}]}
    updates = {"stream": "stable", "releases": [{"version": "44.20260707.3.1", "metadata": {}}]}
    server.says(path_of(fedora_coreos.releases_url("stable")), _json(index))
    server.says(path_of(fedora_coreos.updates_url("stable")), _json(updates))
    done = project.doit("update")
    assert done.returncode == 2
    assert "fedora-coreos stable: lists 2 of the 6 releases that the lock has of it" in done.stderr
    assert held(project) == before
    assert project.doit("update", "--accept-fewer").returncode == 0
    assert b"44.20260607.3.1" not in held(project)


def _json(document: object) -> Answer:
    return good(json.dumps(document).encode())


def test_a_policy_that_cannot_be_meant_is_wrong_use(project: SmallProject) -> None:
    (project.root / "versions.toml").write_text("[flatcar]\nkeep = 'all'\n")
    before = held(project)
    done = project.doit("update")
    assert done.returncode == 3
    assert done.stderr == "doit: versions.toml: Expected `int`, got `str` - at `$.flatcar.keep`: see docs/discovery.md\n"
    assert held(project) == before


@pytest.mark.parametrize("spoilt", [b"{", b"", b'{"schema": 1, "kernels": 7}', b"\xff"])
def test_a_lock_that_cannot_be_read_is_written_anew_only_where_every_source_answers(
    project: SmallProject, server: MisbehavingServer, spoilt: bytes
) -> None:
    place = project.root / "versions.lock"
    place.write_bytes(spoilt)
    feed = path_of(flatcar.feed_url("stable"))
    server.says(feed, html_page())
    done = project.doit("update")
    assert done.returncode == 2
    assert "it is left as it is, since not every source could be read" in done.stderr
    assert held(project) == spoilt
    (project.root / "versions.toml").write_text(WISHES.replace('"stable", "lts"', '"lts"'))
    mended = project.doit("update")
    assert mended.returncode == 0
    assert "it is written anew from the upstreams" in mended.stderr
    assert len(lockfile.parse(held(project)).pending) == 8


def test_a_run_that_builds_nothing_loads_nothing_that_reads_upstreams() -> None:
    code = "import sys, pipeline.cli.commands.run, pipeline.cli.commands.status, pipeline.cli.tasks; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "pipeline.plan.pairs" in loaded
    assert {"pipeline.config.source_policy", "pipeline.config.nvidia_policy"} <= set(loaded)
    assert [name for name in loaded if name.startswith(("pipeline.upstream", "pipeline.update"))] == []
