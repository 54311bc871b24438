"""The main job, from an empty registry to a run that has nothing to do.

In every run one pair of the open ``nvidia`` alone, then a second kernel; in a long one a pair with every kind and module as well,
and the tests' whole lock. All are made here by this checkout, never taken from the cache (tests/support/pairs.py).
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.build.pair import MODULES as COMPILED
from pipeline.cli.workspace import Workspace
from pipeline.engine.client import Engine
from pipeline.plan.pairs import Pair
from pipeline.plan.render import MODULES
from pipeline.registry.client import Manifest
from tests.checkout import DRIVER, KERNEL, OTHER, Checkout, layers, unpacked
from tests.checkout import KINDS as ONE_KIND
from tests.checkout import MODULES as ONE_MODULE
from tests.registry_process import running_registry
from tests.support.pairs import Made, Pairs, Whole, made

pytestmark = [pytest.mark.e2e, pytest.mark.area("thread")]

PAIR = f"debian/amd64:{KERNEL}-{DRIVER}"
NO_ENGINE = "unix:///nowhere/docker.sock"


@dataclass(frozen=True)
class First:
    """The first run into an empty registry, the checkout it was made in, and which kinds and modules that builds."""

    checkout: Checkout
    made: Made
    kinds: Sequence[str]
    modules: Sequence[str]


@pytest.fixture(scope="module")
def small(fresh_pairs: Pairs, environ: dict[str, str]) -> Iterator[First]:
    """One kind of one module."""
    folder = fresh_pairs.folder
    with running_registry(folder / "registry") as address:
        environ = {**environ, "DRIVER_REGISTRY": address.replace("127.0.0.1", "localhost")}
        yield First(Checkout(folder / "checkout", **environ), fresh_pairs.first, ONE_KIND, ONE_MODULE)


@pytest.fixture(scope="module", params=["small", pytest.param("full", marks=pytest.mark.full)])
def first(request: pytest.FixtureRequest) -> First:
    if request.param == "small":
        found: First = request.getfixturevalue("small")
        return found
    return First(request.getfixturevalue("full_checkout"), request.getfixturevalue("full"), ("open", "proprietary"), MODULES)


@pytest.fixture(scope="module")
def space(first: First) -> Workspace:
    return first.checkout.space()


def image(space: Workspace, tag: str) -> tuple[Manifest, dict[str, Any], dict[str, Any]]:
    """Manifest as bytes, manifest, configuration."""
    held = space.registry.manifest(tag)
    assert held is not None, f"{tag} is not there"
    manifest = json.loads(held.data)
    return held, manifest, json.loads(space.registry.blob(manifest["config"]["digest"]))


@pytest.fixture(scope="module")
def entry(first: First) -> dict[str, Any]:
    """The pair's row of the index, as it was after its run."""
    assert (first.made.built["kernel"], first.made.built["driver"]) == (KERNEL, DRIVER)
    return first.made.built


def test_a_pair_goes_from_pinned_packages_to_an_image_in_steps_with_seconds(first: First) -> None:
    ran = first.made.ran
    assert ran.outcomes == {PAIR: "built"}
    own = dict.fromkeys(name for name in ran.steps("build") if not name.startswith("toolchain:"))  # which the engine may have
    assert next(iter(own)) == "base:amd64"
    assert set(own) == {"base:amd64", f"driver:{DRIVER}/amd64", PAIR}, "the driver's beside the pair's first"
    assert ran.steps("proof") == [PAIR]
    assert all(event["seconds"] >= 0 for event in ran.events if event["event"] == "step")
    assert ran.err == ""


def test_its_entry_in_the_index_says_what_was_built_and_what_proved_it(entry: dict[str, Any], first: First) -> None:
    assert (entry["outcome"], entry["reason"], entry["missing"]) == ("built", None, [])
    assert sorted(entry["kinds"]) == sorted(first.kinds)
    assert set(entry["proof"]["modules"]) == set(first.kinds)
    for modules in entry["proof"]["modules"].values():
        assert sorted(modules) == sorted(first.modules)
        assert {module["version"] for module in modules.values()} == {DRIVER}
        assert modules["nvidia"]["symbols"] > 100
    for kind in first.kinds:
        assert "No such device" in entry["proof"]["boot"][kind]
    assert entry["seconds"]["proof"] > 1
    assert re.fullmatch(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["built"])


def test_all_four_forms_of_its_tag_name_one_digest(entry: dict[str, Any], first: First) -> None:
    forms = [
        f"{KERNEL}-{DRIVER}",
        f"{DRIVER}-{KERNEL}-debian12",
        f"{KERNEL}-535",
        f"535-{KERNEL}-debian12",
        f"r-{entry['recipe'].removeprefix('sha256:')[:16]}",
    ]
    assert {tag: first.made.tags.get(tag) for tag in forms} == dict.fromkeys(forms, entry["digest"])


def test_its_labels_and_configuration_say_what_it_is(entry: dict[str, Any], first: First, space: Workspace) -> None:
    held, manifest, config = image(space, entry["digest"])
    labels = config["config"]["Labels"]
    assert labels["io.coreos-nvidia.os"] == "debian"
    assert labels["io.coreos-nvidia.arch"] == config["architecture"] == "amd64"
    assert labels["io.coreos-nvidia.kernel"] == KERNEL
    assert labels["io.coreos-nvidia.driver"] == DRIVER
    assert labels["io.coreos-nvidia.kinds"] == " ".join(first.kinds)
    assert labels["io.coreos-nvidia.recipe"] == entry["recipe"]
    assert labels["org.opencontainers.image.version"] == f"{KERNEL}-{DRIVER}"
    assert labels["org.opencontainers.image.created"] == config["created"]
    for kind, modules in entry["proof"]["modules"].items():
        for name, module in modules.items():
            assert labels[f"io.coreos-nvidia.srcversion.{kind}.{name}"] == module["srcversion"]
    assert config["config"]["Entrypoint"] == ["/usr/bin/nvidia-driver"]
    assert entry["bytes"]["image"] == len(held.data) + manifest["config"]["size"] + sum(b["size"] for b in manifest["layers"])
    assert manifest["layers"][0]["size"] < 11_000_000, "the runtime base is about 10 MB"


def test_its_files_lie_where_hosts_look_for_them(entry: dict[str, Any], first: First, space: Workspace, tmp_path: Path) -> None:
    _, manifest, config = image(space, entry["digest"])
    base, userspace, kernel, program = layers(manifest, config)
    files = unpacked(space, kernel, tmp_path / "kernel")
    for root in ("opt", "opt/open")[: len(first.kinds)]:
        place = files / root / "lib/modules" / KERNEL
        assert sorted(path.stem for path in place.glob("*.ko")) == sorted(first.modules)
        assert "nvidia.ko:" in (place / "modules.dep").read_text(), "depmod was run"
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
    entry: dict[str, Any], first: First, space: Workspace
) -> None:
    _, manifest, _ = image(space, entry["digest"])
    shared = [tag for tag in first.made.tags if re.match(rf"base-|userspace-{re.escape(DRIVER)}-", tag)]
    assert len(shared) == 2
    for tag in shared:
        own = image(space, tag)[1]["layers"]
        assert own == manifest["layers"][: len(own)]


def test_a_second_kernel_in_the_lock_is_built_and_nothing_else(fresh_pairs: Pairs, small: First) -> None:
    pair = small.checkout.pair(OTHER, DRIVER)
    assert set(fresh_pairs.added.ran.steps("build")) == {pair.id}
    assert fresh_pairs.added.ran.outcomes == {pair.id: "built"}
    first, added = fresh_pairs.first, fresh_pairs.added
    kept = set(first.tags) - {"index", f"535-{OTHER}-debian12"}
    assert {tag: added.tags[tag] for tag in kept} == {tag: first.tags[tag] for tag in kept}


def test_two_sessions_and_another_checkout_make_the_same_digests(
    pairs: Pairs, fresh_pairs: Pairs, small: First, environ: dict[str, str], room: Path
) -> None:
    """What an earlier session left in the cache, if any; and here a compile that the engine cannot know."""
    assert {tag: pairs.added.tags[tag] for tag in pairs.added.tags if tag != "index"} == {
        tag: digest for tag, digest in fresh_pairs.added.tags.items() if tag != "index"
    }
    pair = small.checkout.pair(KERNEL, DRIVER)
    forget_compiled(environ["DOCKER_HOST"], pair)
    with running_registry(room / "elsewhere.registry") as address:
        elsewhere = Checkout(room / "elsewhere", DRIVER_REGISTRY=address, **environ)
        elsewhere.only(modules=ONE_MODULE, kinds=ONE_KIND)
        shutil.copytree(small.checkout.root / "build/layers", elsewhere.root / "build/layers")
        again = made(elsewhere, f"image:{pair.id}")
    assert pair.id in again.ran.steps("build"), "it was compiled"
    assert again.built["digest"] == fresh_pairs.first.built["digest"]
    own = {tag: digest for tag, digest in again.tags.items() if tag != "index"}
    assert own == {tag: fresh_pairs.first.tags[tag] for tag in own}


def forget_compiled(host: str, pair: Pair) -> None:
    """Remove what the engine keeps of this pair's compile."""
    engine = Engine(host)
    for stage in ("probes", *pair.kinds):
        engine.remove(f"{COMPILED}:{pair.recipe[:16]}-{stage}")
    engine.close()


def test_nothing_to_do_needs_no_engine(small: First) -> None:
    ran = small.checkout.doit("--json", f"image:*{KERNEL}-{DRIVER}", DOCKER_HOST=NO_ENGINE).ended(0)
    assert ran.work == []


@pytest.mark.full
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


@pytest.mark.full
def test_all_images_of_one_driver_share_the_blobs_below_their_own(whole: Whole) -> None:
    space = whole.checkout.space()
    below: dict[str, set[str]] = {}
    for row in whole.checkout.index()["pairs"]:
        if row["outcome"] == "built":
            manifest = image(space, row["digest"])[1]
            below.setdefault(row["driver"], set()).add(json.dumps(manifest["layers"][:2]))
    assert all(len(found) == 1 for found in below.values())


@pytest.mark.full
def test_a_tag_moves_when_the_recipe_changed_and_the_log_says_so(whole: Whole, full: Made) -> None:
    events = (*whole.killed.events, *whole.resumed.events)  # which pair the killed run came to is the plan's affair
    said = [event["text"] for event in events if event.get("pair") == PAIR and event["event"] == "note"]
    assert any(f"tag {KERNEL}-{DRIVER} moves from {full.built['digest'][:19]} to" in text for text in said), said


@pytest.mark.full
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


@pytest.mark.full
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


@pytest.mark.full
def test_without_the_state_of_doit_nothing_is_built_again(whole: Whole) -> None:
    (whole.checkout.root / "build/doit.db").unlink()
    ran = whole.checkout.doit("--json", DOCKER_HOST=NO_ENGINE).ended(0)
    assert ran.work == []


@pytest.mark.full
def test_a_pair_that_was_there_when_doit_was_killed_is_not_built_again(whole: Whole) -> None:
    assert whole.killed.status == -9
    (kept,) = whole.killed.outcomes
    assert whole.killed.outcomes[kept] == "built"
    assert kept not in whole.resumed.steps("build")
    assert whole.resumed.outcomes[kept] == "built"
    others = {p.id for p in whole.checkout.space().plan.pairs if p.exclusion is None and p.kernel.kernel != OTHER} - {kept}
    assert {name for name in whole.resumed.steps("build") if name.startswith("debian/")} == others


@pytest.mark.full
def test_a_kernel_that_changes_in_the_lock_is_built_and_nothing_else(whole: Whole) -> None:
    pair = whole.checkout.pair(OTHER, DRIVER)
    assert set(whole.added.steps("build")) == {pair.id}
    assert whole.added.outcomes == {pair.id: "built"}


@pytest.mark.full
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


@pytest.mark.full
def test_status_shows_every_pair_without_changing_anything(whole: Whole) -> None:
    ran = whole.checkout.doit("status", "--json", DOCKER_HOST=NO_ENGINE).ended(0)
    assert json.loads(ran.out) == whole.checkout.index()
    table = whole.checkout.doit("status", "--os", "debian", DOCKER_HOST=NO_ENGINE).ended(0).out
    for pair in whole.checkout.space().plan.pairs:
        shown = f"{re.escape(pair.kernel.kernel)} +{re.escape(pair.driver.version)} "
        assert re.search(rf"(?m)^ +{shown}.* {'excluded' if pair.exclusion else 'built'} ", table), table


@pytest.mark.full
def test_the_log_of_every_kind_is_one_file_that_holds_the_compilers_words(whole: Whole) -> None:
    pair = whole.checkout.pair(OTHER, DRIVER)
    for kind in pair.kinds:
        (log,) = (whole.checkout.root / "build/log").glob(f"*{OTHER}-{DRIVER}-{kind}.log")
        assert "Successfully tagged" in log.read_text()
