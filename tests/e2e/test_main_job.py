"""The main job on the committed lock, from an empty registry to a run that has nothing to do.

``full`` is the pair of 6.1.0-47 as the committed files have it; ``whole`` is every pair of the lock, with the open
``nvidia`` alone unless DRIVER_TEST_FULL is set (tests/beside.py).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.registry import Manifest
from pipeline.render import MODULES
from pipeline.workspace import Workspace
from tests.beside import Full
from tests.checkout import DRIVER, KERNEL, OTHER, Checkout, Whole, layers, unpacked

pytestmark = [pytest.mark.e2e, pytest.mark.budget("thread")]

PAIR = f"debian/amd64:{KERNEL}-{DRIVER}"
NO_ENGINE = "unix:///nowhere/docker.sock"


@pytest.fixture(scope="module")
def space(checkout: Checkout) -> Workspace:
    return checkout.space()


def image(space: Workspace, tag: str) -> tuple[Manifest, dict[str, Any], dict[str, Any]]:
    """Manifest as bytes, manifest, configuration."""
    held = space.registry.manifest(tag)
    assert held is not None, f"{tag} is not there"
    manifest = json.loads(held.data)
    return held, manifest, json.loads(space.registry.blob(manifest["config"]["digest"]))


@pytest.fixture(scope="module")
def entry(full_index: dict[str, Any]) -> dict[str, Any]:
    """The full pair's row of the index, as it was after its run."""
    found: list[dict[str, Any]] = [row for row in full_index["pairs"] if (row["kernel"], row["driver"]) == (KERNEL, DRIVER)]
    assert len(found) == 1
    return found[0]


def test_a_pair_goes_from_pinned_packages_to_an_image_in_steps_with_seconds(full: Full) -> None:
    ran = full.ran
    assert ran.outcomes == {PAIR: "built"}
    own = dict.fromkeys(name for name in ran.steps("build") if not name.startswith("toolchain:"))  # which the engine may have
    assert list(own) == ["base:amd64", f"driver:{DRIVER}/amd64", PAIR]
    assert ran.steps("proof") == [PAIR]
    assert all(event["seconds"] >= 0 for event in ran.events if event["event"] == "step")
    assert ran.err == ""


def test_its_entry_in_the_index_says_what_was_built_and_what_proved_it(entry: dict[str, Any]) -> None:
    assert (entry["outcome"], entry["reason"], entry["missing"]) == ("built", None, [])
    assert sorted(entry["kinds"]) == ["open", "proprietary"]
    assert set(entry["proof"]["modules"]) == {"open", "proprietary"}
    for modules in entry["proof"]["modules"].values():
        assert sorted(modules) == sorted(MODULES)
        assert {module["version"] for module in modules.values()} == {DRIVER}
        assert modules["nvidia"]["symbols"] > 100
    assert "No such device" in entry["proof"]["boot"]["open"]
    assert "No such device" in entry["proof"]["boot"]["proprietary"]
    assert entry["seconds"]["proof"] > 1
    assert re.fullmatch(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["built"])


def test_all_four_forms_of_its_tag_name_one_digest(entry: dict[str, Any], full_tags: dict[str, str]) -> None:
    forms = [
        f"{KERNEL}-{DRIVER}",
        f"{DRIVER}-{KERNEL}-debian12",
        f"{KERNEL}-535",
        f"535-{KERNEL}-debian12",
        f"r-{entry['recipe'].removeprefix('sha256:')[:16]}",
    ]
    assert {tag: full_tags.get(tag) for tag in forms} == dict.fromkeys(forms, entry["digest"])


def test_its_labels_and_configuration_say_what_it_is(entry: dict[str, Any], space: Workspace) -> None:
    held, manifest, config = image(space, entry["digest"])
    labels = config["config"]["Labels"]
    assert labels["io.coreos-nvidia.os"] == "debian"
    assert labels["io.coreos-nvidia.arch"] == config["architecture"] == "amd64"
    assert labels["io.coreos-nvidia.kernel"] == KERNEL
    assert labels["io.coreos-nvidia.driver"] == DRIVER
    assert labels["io.coreos-nvidia.kinds"] == "open proprietary"
    assert labels["io.coreos-nvidia.recipe"] == entry["recipe"]
    assert labels["org.opencontainers.image.version"] == f"{KERNEL}-{DRIVER}"
    assert labels["org.opencontainers.image.created"] == config["created"]
    for kind, modules in entry["proof"]["modules"].items():
        for name, module in modules.items():
            assert labels[f"io.coreos-nvidia.srcversion.{kind}.{name}"] == module["srcversion"]
    assert config["config"]["Entrypoint"] == ["/usr/bin/nvidia-driver"]
    assert entry["bytes"]["image"] == len(held.data) + manifest["config"]["size"] + sum(b["size"] for b in manifest["layers"])
    assert manifest["layers"][0]["size"] < 11_000_000, "the runtime base is about 10 MB"


def test_its_files_lie_where_hosts_look_for_them(entry: dict[str, Any], space: Workspace, tmp_path: Path) -> None:
    _, manifest, config = image(space, entry["digest"])
    base, userspace, kernel, program = layers(manifest, config)
    files = unpacked(space, kernel, tmp_path / "kernel")
    for root in (f"opt/lib/modules/{KERNEL}", f"opt/open/lib/modules/{KERNEL}"):
        assert sorted(path.stem for path in (files / root).glob("*.ko")) == sorted(MODULES)
        assert "nvidia.ko:" in (files / root / "modules.dep").read_text(), "depmod was run"
    assert f"KERNEL={KERNEL}\n" in (files / "opt/nvidia-driver/image.env").read_text()
    assert (unpacked(space, program, tmp_path / "program") / "usr/bin/nvidia-driver").stat().st_mode & 0o777 == 0o755
    assert (unpacked(space, base, tmp_path / "base") / "usr/bin/zstd").exists()
    with space.shop.store.open(space.shop.local(userspace)) as tar:
        names = {member.name: member for member in tar}
    assert names["usr/bin/nvidia-smi"].linkname == "../local/nvidia/bin/nvidia-smi"
    assert f"usr/local/nvidia/lib64/libcuda.so.{DRIVER}" in names
    assert f"firmware/nvidia/{DRIVER}/gsp_tu10x.bin" in names
    with space.shop.store.open(space.shop.local(userspace)) as tar:
        listed = next(tar.extractfile(member) for member in tar if member.name == "opt/nvidia-driver/gpus")
        assert listed is not None
        assert {b"10de:2330 both", b"10de:1db1 proprietary", b"10de:102d legacy 470"} <= set(listed.read().splitlines())
    licences = {name.rpartition("/")[2] for name in names if name.startswith(f"usr/share/licenses/nvidia-{DRIVER}/")}
    assert licences == {"nvidia-graphics-drivers", "nvidia-modprobe", "nvidia-persistenced"}
    assert "Permission is hereby granted" in (files / f"usr/share/licenses/nvidia-{DRIVER}/nvidia-open-kernel-source").read_text()
    assert {(member.uid, member.gid) for member in names.values()} == {(0, 0)}


def test_base_and_userspace_lie_there_as_images_of_their_own_with_the_same_blobs(
    entry: dict[str, Any], space: Workspace, full_tags: dict[str, str]
) -> None:
    _, manifest, _ = image(space, entry["digest"])
    shared = [tag for tag in full_tags if re.match(rf"base-|userspace-{re.escape(DRIVER)}-", tag)]
    assert len(shared) == 2
    for tag in shared:
        own = image(space, tag)[1]["layers"]
        assert own == manifest["layers"][: len(own)]


def test_every_pair_of_the_lock_comes_to_the_outcome_that_the_plan_expects(whole: Whole) -> None:
    pairs = whole.checkout.space().plan.pairs
    expected = {pair.id: "excluded" if pair.exclusion else "built" for pair in pairs}
    assert len(expected) == 4
    found = whole.checkout.outcomes()
    assert {name: found.pop(name) for name in expected} == expected
    assert set(found.values()) <= {"pending"}, "what the lock knows and does not pin"
    rows = {(row["kernel"], row["driver"]): row for row in whole.checkout.index()["pairs"]}
    for pair in pairs:
        if pair.exclusion is None:
            assert sorted(rows[pair.kernel.kernel, pair.driver.version]["kinds"]) == sorted(pair.kinds)


def test_all_images_of_one_driver_share_the_blobs_below_their_own(whole: Whole) -> None:
    space = whole.checkout.space()
    below: dict[str, set[str]] = {}
    for row in whole.checkout.index()["pairs"]:
        if row["outcome"] == "built":
            manifest = image(space, row["digest"])[1]
            below.setdefault(row["driver"], set()).add(json.dumps(manifest["layers"][:2]))
    assert all(len(found) == 1 for found in below.values())


def test_a_tag_moves_when_the_recipe_changed_and_the_log_says_so(whole: Whole, entry: dict[str, Any]) -> None:
    if not whole.changed:
        pytest.skip("the recipe did not change: DRIVER_TEST_FULL builds the same twice")
    said = [event["text"] for event in whole.killed.events if event.get("pair") == PAIR and event["event"] == "note"]
    assert any(f"tag {KERNEL}-{DRIVER} moves from {entry['digest'][:19]} to" in text for text in said), said


def test_the_index_in_the_registry_is_the_one_on_disk_and_has_a_line_for_hosts(whole: Whole, tmp_path: Path) -> None:
    space = whole.checkout.space()
    _, manifest, config = image(space, "index")
    (only,) = layers(manifest, config)
    files = unpacked(space, only, tmp_path / "index")
    index = whole.checkout.index()
    assert json.loads((files / "index.json").read_bytes()) == index
    assert (index["schema"], index["source"]) == (1, "registry")
    for row in index["pairs"]:
        if not row["kernel"]:
            continue
        lines = (files / f"kernel/amd64/{row['kernel']}").read_text().splitlines()
        assert f"{row['driver']} {row['outcome']} {row['digest'] or '-'} {row['reason'] or ''}".rstrip() in lines


def test_a_second_run_compiles_nothing_touches_no_engine_and_hardly_asks_the_registry(whole: Whole) -> None:
    before, index = whole.registry.requests(), whole.checkout.index()
    ran = whole.checkout.doit("--json", DOCKER_HOST=NO_ENGINE).ended(0)
    requests = whole.registry.requests() - before
    print(f"nothing to do: {ran.seconds:.2f} s, {requests} requests")
    assert ran.work == []
    outcomes = whole.checkout.outcomes()
    assert ran.events[-1]["totals"] == Counter(outcomes[pair.id] for pair in whole.checkout.space().plan.pairs)
    assert ran.err == ""
    assert requests <= 5
    assert whole.checkout.index() == index


def test_without_the_state_of_doit_nothing_is_built_again(whole: Whole) -> None:
    (whole.checkout.root / "build/doit.db").unlink()
    ran = whole.checkout.doit("--json", DOCKER_HOST=NO_ENGINE).ended(0)
    assert ran.work == []


def test_a_pair_that_was_there_when_doit_was_killed_is_not_built_again(whole: Whole) -> None:
    assert whole.killed.status == -9
    (kept,) = whole.killed.outcomes
    assert whole.killed.outcomes[kept] == "built"
    assert kept not in whole.resumed.steps("build")
    assert whole.resumed.outcomes[kept] == "built"
    others = {p.id for p in whole.checkout.space().plan.pairs if p.exclusion is None and p.kernel.kernel != OTHER} - {kept}
    if not whole.changed:
        others -= {PAIR}
    assert {name for name in whole.resumed.steps("build") if name.startswith("debian/")} == others


def test_a_kernel_that_changes_in_the_lock_is_built_and_nothing_else(whole: Whole) -> None:
    pair = whole.checkout.pair(OTHER, DRIVER)
    assert set(whole.added.steps("build")) == {pair.id}
    assert whole.added.outcomes == {pair.id: "built"}


def test_an_image_deleted_from_the_registry_is_built_again_with_the_same_digest_whatever_was_edited_by_hand(whole: Whole) -> None:
    pair = whole.checkout.pair(OTHER, DRIVER)
    dockerfile = whole.checkout.root / "build/docker" / pair.rendered.name / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("\nRUN ", "\nRUN echo by hand >/out/by-hand; ", 1))
    registry = whole.checkout.space().registry
    before = registry.digest(pair.recipe_tag)
    assert before is not None
    registry.delete(before)
    assert registry.digest(pair.recipe_tag) is None
    ran = whole.checkout.doit("--json").ended(0)
    assert ran.outcomes == {pair.id: "built"}
    assert set(ran.steps("proof")) == {pair.id}
    assert any(f"{dockerfile} was changed by hand" in event["text"] for event in ran.events if event["event"] == "note")
    names = (pair.recipe_tag, *pair.tags, *pair.aliases)
    assert {tag: registry.digest(tag) for tag in names} == dict.fromkeys(names, before)


def test_status_shows_every_pair_without_changing_anything(whole: Whole) -> None:
    ran = whole.checkout.doit("status", "--json", DOCKER_HOST=NO_ENGINE).ended(0)
    assert json.loads(ran.out) == whole.checkout.index()
    table = whole.checkout.doit("status", "--os", "debian", DOCKER_HOST=NO_ENGINE).ended(0).out
    for pair in whole.checkout.space().plan.pairs:
        shown = f"{re.escape(pair.kernel.kernel)} +{re.escape(pair.driver.version)} "
        assert re.search(rf"(?m)^ +{shown}.* {'excluded' if pair.exclusion else 'built'} ", table), table


def test_the_log_of_every_kind_is_one_file_that_holds_the_compilers_words(whole: Whole) -> None:
    pair = whole.checkout.pair(OTHER, DRIVER)
    for kind in pair.kinds:
        (log,) = (whole.checkout.root / "build/log").glob(f"*{OTHER}-{DRIVER}-{kind}.log")
        assert "Successfully tagged" in log.read_text()
