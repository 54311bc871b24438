"""``doit prune`` against a real registry, and against one that does not delete."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.build.assemble import MANIFEST_TYPE, Store, assemble, tree
from pipeline.cli.commands import prune
from pipeline.config import lockfile
from pipeline.outcomes.index import Bytes, Entry, Index, dump
from pipeline.outcomes.retention import Verdict
from pipeline.registry import transport
from pipeline.registry.client import Registry
from tests import registry_process, samples
from tests.github_packages import TOKEN, GitHub
from tests.registry_process import running_registry
from tests.small_project import ROOT, SmallProject
from tests.tiny_project import walk
from tests.told_server import Told

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.area("scale"),
    pytest.mark.skipif(not registry_process.installed(), reason=registry_process.MISSING),
]


def push(registry: Registry, store: Store, files: dict[str, tuple[int, bytes]], tags: list[str], labels: dict[str, str]) -> str:
    layer = store.add(tree(files), 0)
    image = assemble([layer], arch="amd64", epoch=0, labels=labels, names=["test"], program=False)
    registry.push_blob(store.blob(layer.digest), layer.digest, layer.size)
    config = json.loads(image.manifest)["config"]
    registry.push_blob(image.config, config["digest"], config["size"])
    return registry.push_manifest(image.manifest, MANIFEST_TYPE, tags)


def fill(place: str, root: Path) -> dict[str, str]:
    """An image of the lock's kernel, of the release before, of an old release (with a name), and the index that knows them."""
    registry, store = Registry(place, environ={}), Store(root)
    entries, digests = [], {}
    for number, (name, version) in enumerate(
        (("6.1.0-50-cloud-amd64", "6.1.176-3"), ("6.1.0-44-cloud-amd64", "6.1.164-1"), ("6.1.0-40-cloud-amd64", "6.1.153-1"))
    ):
        recipe = f"{number:064x}"
        tags = [f"r-{recipe[:16]}", f"{name}-535.261.03"]
        if number == 0:
            tags = [f"r-{0xABC:016x}"]
            recipe = f"{0xABC:016x}".ljust(64, "0")
        elif number == 1:
            recipe = f"{0xABD:016x}".ljust(64, "0")
            tags[0] = f"r-{recipe[:16]}"
        else:
            recipe = f"{0xABE:016x}".ljust(64, "0")
            tags[0] = f"r-{recipe[:16]}"
        digests[name] = push(registry, store, {"x": (0o644, name.encode())}, tags, {})
        entries.append(
            Entry(
                os="debian", arch="amd64", kernel=name, driver="535.261.03", headers=f"sha256:{number:064x}", outcome="built",
                releases=({"channel": "bookworm", "version": version},), recipe=f"sha256:{recipe}", digest=digests[name],
                bytes=Bytes(1, 1),
            )
        )  # fmt: skip
    index = Index(serial=5, generated="2026-11-24T12:00:00Z", pairs=tuple(entries))
    push(registry, store, {"index.json": (0o644, dump(index))}, ["index"], {})
    return digests


def test_what_no_supported_release_needs_is_listed_first_and_deleted_with_apply(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as place:
        digests = fill(place, tmp_path / "store")
        project = SmallProject(tmp_path / "project", samples.a_lock(), registry=place)
        old = digests["6.1.0-40-cloud-amd64"]

        listed = project.doit("prune")
        assert (listed.returncode, listed.stderr) == (0, "1 of 4 images may go\n")
        assert listed.stdout.startswith(f"{old}  6.1.0-40-cloud-amd64-535.261.03 r-")
        assert Registry(place, environ={}).digest(old) == old

        applied = project.doit("prune", "--apply")
        assert applied.returncode == 0, applied.stderr
        registry = Registry(place, environ={})
        assert registry.digest(old) is None
        tags = set(registry.tags())
        assert "6.1.0-40-cloud-amd64-535.261.03" not in tags
        assert {"6.1.0-44-cloud-amd64-535.261.03", f"r-{0xABC:016x}", "index"} <= tags
        index = json.loads(project.doit("status", "--json").stdout)
        assert index["serial"] > 5
        assert "6.1.0-40-cloud-amd64" not in {pair["kernel"] for pair in index["pairs"]}

        again = project.doit("prune", "--apply", "--json")
        assert again.returncode == 0, again.stderr
        assert not any(verdict["remove"] for verdict in json.loads(again.stdout))


def test_an_index_of_two_architectures_is_followed_and_nothing_is_left_that_points_nowhere(tmp_path: Path) -> None:
    """The kernel of an old release on both architectures goes whole; those of the present one and the one before stay whole."""
    with running_registry(tmp_path / "registry") as place:
        present = samples.both_arches()
        earlier = tuple(
            samples.kernel(f"{version}-flatcar", version, os="flatcar", releases=(samples.flatcar_release(release),))
            for version, release in (("6.12.95", "4459.2.1"), ("6.12.90", "4230.2.1"))
        )
        both = samples.both_arches(kernels=(*present.kernels[:1], *earlier))
        project = SmallProject(tmp_path / "project", both, registry=place)
        made = subprocess.run(
            [sys.executable, "-m", "bench.stand_in"],
            check=False, cwd=project.root, env={**project.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        registry = Registry(place, environ={})
        before = set(registry.tags())
        assert len([tag for tag in before if tag.startswith("i-")]) == 3
        assert walk(registry)

        (project.root / "versions.lock").write_bytes(lockfile.dump(present))
        applied = project.doit("prune", "--apply")
        assert applied.returncode == 0, applied.stderr
        after = set(registry.tags())
        gone = before - after
        assert {"6.12.90-flatcar-535.261.03", "6.12.90-flatcar-535", "535.261.03-6.12.90-flatcar-flatcar4230.2.1"} <= gone
        assert sorted(tag[:2] for tag in gone if tag[1] == "-") == ["i-", "r-", "r-"]
        assert sorted(tag[:2] for tag in after if tag[1] == "-") == ["i-", "i-", "r-", "r-", "r-", "r-"]
        assert walk(registry)


def test_a_registry_that_does_not_delete_is_named_with_what_to_delete(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry", delete=False) as place:
        digests = fill(place, tmp_path / "store")
        project = SmallProject(tmp_path / "project", samples.a_lock(), registry=place)
        applied = project.doit("prune", "--apply")
        assert applied.returncode == 2
        old = digests["6.1.0-40-cloud-amd64"]
        assert f"doit: delete by hand: {place}/driver@{old} (6.1.0-40-cloud-amd64-535.261.03 r-" in applied.stderr
        assert "405" in applied.stderr
        assert "Traceback" not in applied.stderr
        assert Registry(place, environ={}).digest(old) == old


def test_on_ghcr_versions_are_deleted_through_the_packages_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that does not delete stands in for ghcr.io, a server that speaks the packages API for GitHub."""
    with running_registry(tmp_path / "registry", delete=False) as place:
        old = fill(f"{place}/acme", tmp_path / "store")["6.1.0-40-cloud-amd64"]
        monkeypatch.setitem(transport._API, "ghcr.io", place)
        github = GitHub(3)
        github.versions[99] = old
        with Told(github) as server:
            environ = {"GITHUB_API_URL": f"http://{server.place}", "GITHUB_TOKEN": TOKEN}
            project = SmallProject(tmp_path / "project", samples.a_lock(), registry="ghcr.io/acme", **environ)
            going = Verdict(old, ("6.1.0-40-cloud-amd64-535.261.03",), remove=True, why="")
            assert prune.Deleter(project.space()).delete(going)
            assert 99 not in github.versions
            assert len(github.versions) == 3
        without = SmallProject(
            tmp_path / "other", samples.a_lock(), registry="ghcr.io/acme", GITHUB_TOKEN="", GH_TOKEN=""
        ).space()
        assert not prune.Deleter(without).delete(going)
        assert "set GITHUB_TOKEN" in next(iter(without.progress.problems))
