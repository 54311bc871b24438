"""A name that pairs of two architectures own is one index of both: a real registry, small images, every order of events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.build import image_names
from pipeline.build.assemble import INDEX_TYPE, MANIFEST_TYPE, Image, Store, assemble, tree
from pipeline.build.pair import publish
from pipeline.build.shared_layers import Workshop
from pipeline.config import lockfile
from pipeline.config.records import Lock
from pipeline.core.errors import BadFileError, EngineError, RegistryError
from pipeline.core.progress import Progress
from pipeline.core.tags import of_joint
from pipeline.engine.client import Engine
from pipeline.fetch.fetcher import Fetcher
from pipeline.fetch.store import Inputs
from pipeline.outcomes.index import Index
from pipeline.plan.pairs import Pair, Plan
from pipeline.publish import ledger
from pipeline.publish.ledger import Ledger
from pipeline.registry.client import Registry
from tests import samples
from tests.registry_process import MISSING, installed, running_registry
from tests.tiny_project import walk
from tests.told_server import client

pytestmark = pytest.mark.skipif(not installed(), reason=MISSING)
PLAIN = f"{samples.FLATCAR}-535.261.03"
OPERATOR = f"535.261.03-{samples.FLATCAR}-flatcar4593.2.5"
BRANCH = f"{samples.FLATCAR}-535"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


class Bench:
    """A plan, a repository of its own, and images as small as can be."""

    _number = 0

    def __init__(self, root: Path, place: str, plan: Plan, fetcher: Fetcher, registry: Registry | None = None) -> None:
        Bench._number += 1
        self.plan, self.root = plan, root
        self.registry = registry or client(f"{place}/names{Bench._number}")
        self.shop = Workshop(
            root=root,
            renderer=plan.renderer,
            registry=self.registry,
            inputs=Inputs(root / "cache", fetcher, lambda name: ()),
            store=Store(root / "build/layers"),
            progress=Progress(as_json=True),
            open_engine=_no_engine,
        )

    def image(self, pair: Pair) -> Image:
        layer = self.shop.store.add(tree({"pair": (0o644, f"{pair.id} {pair.recipe}".encode())}), 0)
        labels = {
            "io.coreos-nvidia.driver": pair.driver.version,
            "io.coreos-nvidia.arch": pair.kernel.arch,
            "org.opencontainers.image.revision": pair.recipe,
            "org.opencontainers.image.version": f"{pair.kernel.kernel}-{pair.driver.version}",
        }
        return assemble([layer], arch=pair.kernel.arch, epoch=0, labels=labels, names=["x"], program=False)

    def push(self, pair: Pair) -> Image:
        """The image under its recipe's tag alone."""
        image = self.image(pair)
        self.shop.push_image(image, [pair.recipe_tag])
        return image

    def finish(self, pair: Pair) -> Image:
        """All that a build does in the registry."""
        image = self.push(pair)
        publish(pair, image.digest, image.manifest, self.shop)
        return image

    def book(self) -> Ledger:
        return Ledger(self.registry, self.root)

    def index(self) -> Index:
        book = self.book()
        index = book.index(self.plan, ledger.local_index(self.root), now="2026-11-24T12:00:00Z")
        book.push_index(index, self.plan, self.shop)
        return index

    def document(self, ref: str) -> dict[str, Any]:
        manifest = self.registry.manifest(ref)
        assert manifest is not None, f"{ref} is not there"
        document: dict[str, Any] = json.loads(manifest.data)
        assert document["mediaType"] == manifest.media_type
        return document

    def offers(self, ref: str) -> dict[str, str]:
        """Digest by architecture of an index."""
        document = self.document(ref)
        assert document["mediaType"] == INDEX_TYPE
        return {part["platform"]["architecture"]: part["digest"] for part in document["manifests"]}


def _no_engine() -> Engine:
    raise EngineError("nothing here may build")


Make = Callable[..., Bench]


@pytest.fixture
def make(place: str, tmp_path: Path, fetcher: Fetcher) -> Make:
    def made(the_lock: Lock | None = None, registry: Registry | None = None, text: str = "") -> Bench:
        return Bench(tmp_path, place, samples.plan(the_lock or samples.both_arches(), text), fetcher, registry)

    return made


def test_both_architectures_own_the_same_names_and_each_has_a_recipe_of_its_own() -> None:
    amd, arm = samples.plan(samples.both_arches()).pairs
    assert amd.tags == arm.tags == (PLAIN, OPERATOR)
    assert amd.recipe_tag != arm.recipe_tag
    assert (amd.siblings(), arm.siblings()) == ((arm,), (amd,))


def test_kernels_whose_names_say_the_architecture_share_none() -> None:
    lockfile = samples.both_arches(kernels=(samples.kernel(),))
    arm = samples.of_arch(samples.kernel("6.1.0-47-cloud-arm64"), "arm64")
    plan = samples.plan(samples.changed(lockfile, kernels=(samples.kernel(), arm)))
    assert all(pair.siblings() == () for pair in plan.pairs)
    assert not set(plan.pairs[0].tags) & set(plan.pairs[1].tags)


def test_a_name_is_an_index_of_both_and_recipe_tags_stay_one_image_each(make: Make) -> None:
    bench = make()
    amd, arm = bench.plan.pairs
    one, two = bench.finish(amd), bench.finish(arm)
    for tag in (PLAIN, OPERATOR):
        document = bench.document(tag)
        assert document["mediaType"] == INDEX_TYPE
        assert [part["platform"] for part in document["manifests"]] == [
            {"architecture": "amd64", "os": "linux"},
            {"architecture": "arm64", "os": "linux"},
        ]
        assert [part["digest"] for part in document["manifests"]] == [one.digest, two.digest]
        assert [part["size"] for part in document["manifests"]] == [len(one.manifest), len(two.manifest)]
        assert {part["mediaType"] for part in document["manifests"]} == {MANIFEST_TYPE}
        assert document["annotations"] == {"org.opencontainers.image.version": PLAIN}, "what both say, and nothing of one alone"
    for pair, image in ((amd, one), (arm, two)):
        assert bench.document(pair.recipe_tag)["mediaType"] == MANIFEST_TYPE
        assert bench.registry.digest(pair.recipe_tag) == image.digest
    assert walk(bench.registry) == 4, "a layer and a configuration of each"


def test_whatever_the_order_of_events_the_same_bytes_come_of_it(make: Make) -> None:
    plan = samples.plan(samples.both_arches("535.261.03", "535.309.01"))
    found = set()
    for order in list(permutations(range(4)))[::5]:
        bench = make(samples.both_arches("535.261.03", "535.309.01"))
        for number in order:
            bench.finish(bench.plan.pairs[number])
        bench.book().settle_aliases(bench.plan, bench.plan.pairs, bench.shop)
        found.add(tuple((tag, bench.registry.digest(tag)) for tag in sorted(bench.registry.tags())))
    assert len(found) == 1
    tags = [tag for tag, _ in found.pop()]
    assert {tag[:2] for tag in tags if tag[1] == "-"} == {"r-", "i-"}
    assert {tag for pair in plan.pairs for tag in (*pair.tags, *pair.aliases, pair.recipe_tag)} <= set(tags)


def test_where_one_architecture_is_built_its_image_itself_is_under_the_name(make: Make) -> None:
    bench = make()
    amd, _ = bench.plan.pairs
    image = bench.finish(amd)
    assert {bench.registry.digest(tag) for tag in amd.tags} == {image.digest}
    assert bench.document(PLAIN)["mediaType"] == MANIFEST_TYPE
    assert not [tag for tag in bench.registry.tags() if tag.startswith("i-")]


def test_a_pair_without_namesakes_costs_no_request_more_than_before(make: Make) -> None:
    bench = make(samples.a_lock())
    pair = bench.plan.pairs[0]
    image = bench.push(pair)
    before = bench.registry.requests
    publish(pair, image.digest, image.manifest, bench.shop)
    assert bench.registry.requests - before == 3 * len(pair.tags), "is it there, put it, read it back"


def test_one_list_of_tags_tells_that_the_names_of_both_are_settled(make: Make) -> None:
    bench = make()
    amd, arm = bench.plan.pairs
    bench.finish(amd)
    bench.index()
    assert bench.book().done(amd)
    bench.push(arm)  # and here its runner dies
    bench.index()  # while another one publishes what the recipe tags say
    for pair in (amd, arm):
        book = bench.book()
        assert book.built(pair)
        assert not book.done(pair), "the names do not offer both yet"
    book = bench.book()
    book.note(book.adopt(amd, bench.shop))
    assert set(bench.offers(PLAIN)) == {"amd64", "arm64"}
    book = bench.book()
    before = bench.registry.requests
    assert book.knows(bench.plan)
    assert all(book.done(pair) for pair in bench.plan.pairs)
    assert bench.registry.requests - before <= 4, "tags, and the index by its labels"


@pytest.mark.parametrize("moment", [PLAIN, OPERATOR])
def test_of_two_runners_at_once_the_last_to_write_sees_the_other(make: Make, moment: str) -> None:
    """The first has looked for the other's image and found none; before its name arrives the second does all of its work."""
    bench = make()
    amd, arm = bench.plan.pairs
    other = make(registry=bench.registry)
    push, at = bench.registry.push_manifest, [moment]

    def late(data: bytes, media_type: str, refs: Sequence[str], *, shared: bool = False) -> str:
        if moment in refs and at:
            at.clear()
            other.finish(arm)
        return push(data, media_type, refs, shared=shared)

    bench.registry.push_manifest = late  # type: ignore[method-assign]
    bench.finish(amd)
    assert not at
    assert {tag: sorted(bench.offers(tag)) for tag in amd.tags} == {tag: ["amd64", "arm64"] for tag in amd.tags}
    bench.index()
    assert all(bench.book().done(pair) for pair in bench.plan.pairs)


def test_a_new_recipe_of_one_keeps_the_image_of_the_other_under_the_name(make: Make) -> None:
    bench = make()
    old = [bench.finish(pair) for pair in bench.plan.pairs]
    the_lock = samples.both_arches()
    later = tuple(samples.changed(kernel, date="2026-11-25T08:00:00Z") for kernel in the_lock.kernels)
    renewed = make(samples.changed(the_lock, kernels=later), bench.registry)
    amd, arm = renewed.plan.pairs
    new = renewed.finish(amd)
    assert renewed.offers(PLAIN) == {"amd64": new.digest, "arm64": old[1].digest}
    newer = renewed.finish(arm)
    assert renewed.offers(PLAIN) == {"amd64": new.digest, "arm64": newer.digest}
    assert walk(bench.registry)


def test_a_runner_whose_lock_knows_one_architecture_keeps_the_image_of_the_other(make: Make) -> None:
    bench = make()
    for pair in bench.plan.pairs:
        bench.finish(pair)
    the_lock = samples.both_arches()
    alone = samples.changed(the_lock, kernels=(samples.changed(the_lock.kernels[0], date="2026-11-25T08:00:00Z"),))
    renewed = make(alone, bench.registry)
    new = renewed.finish(renewed.plan.pairs[0])
    assert renewed.offers(PLAIN)["amd64"] == new.digest
    assert set(renewed.offers(PLAIN)) == {"amd64", "arm64"}


def test_an_image_that_somebody_deleted_is_no_longer_offered(make: Make) -> None:
    bench = make()
    amd, arm = bench.plan.pairs
    image = bench.finish(amd)
    gone = bench.finish(arm)
    the_lock = samples.both_arches()
    alone = make(samples.changed(the_lock, kernels=the_lock.kernels[:1]), bench.registry)
    bench.registry.delete(gone.digest)
    publish(alone.plan.pairs[0], image.digest, image.manifest, alone.shop)
    assert bench.registry.digest(PLAIN) == image.digest


def test_branch_names_take_the_newest_of_each_architecture_and_move_forward_only(make: Make) -> None:
    drivers = ("535.261.03", "535.309.01")
    bench = make(samples.both_arches(*drivers))
    by = {(pair.kernel.arch, pair.driver.version): pair for pair in bench.plan.pairs}
    first = bench.finish(by["amd64", drivers[0]])
    second = bench.finish(by["arm64", drivers[0]])
    bench.book().settle_aliases(bench.plan, bench.plan.pairs, bench.shop)
    assert bench.offers(BRANCH) == {"amd64": first.digest, "arm64": second.digest}
    third = bench.finish(by["amd64", drivers[1]])
    bench.book().settle_aliases(bench.plan, bench.plan.pairs, bench.shop)
    assert bench.offers(BRANCH) == {"amd64": third.digest, "arm64": second.digest}
    older = make(samples.both_arches(drivers[0]), bench.registry)
    bench.book().settle_aliases(older.plan, older.plan.pairs, bench.shop)
    assert bench.offers(BRANCH) == {"amd64": third.digest, "arm64": second.digest}, "an older lock takes nothing back"


def test_the_index_of_outcomes_is_an_image_for_each_architecture_with_one_layer(make: Make) -> None:
    bench = make()
    amd, arm = bench.plan.pairs
    bench.finish(amd)
    first = bench.index()
    assert bench.document("index")["mediaType"] == MANIFEST_TYPE, "nothing was tried for arm64 yet"
    bench.finish(arm)
    second = bench.index()
    assert (first.serial, second.serial) == (1, 2)
    offered = bench.offers("index")
    assert set(offered) == {"amd64", "arm64"}
    documents = [bench.document(digest) for digest in offered.values()]
    assert documents[0]["layers"] == documents[1]["layers"]
    assert bench.book().published.pairs == second.pairs
    assert bench.book().serial == 2
    assert bench.index().serial == 2, "and it is made again only where something changed"
    assert walk(bench.registry)


def test_an_excluded_architecture_is_none_to_wait_for(make: Make) -> None:
    rule = '[[exclude]]\narch = ["arm64"]\nreason = "nobody runs it"\n'
    bench = make(text=rule)
    amd, arm = bench.plan.pairs
    assert arm.exclusion is not None
    assert amd.siblings() == ()
    bench.finish(amd)
    bench.index()
    assert bench.book().done(amd)


def test_two_builds_of_one_kernel_string_on_one_architecture_have_each_their_own_index(make: Make) -> None:
    """The plain name is of the newer release's build; the arm64 build is the same for both releases."""
    the_lock = samples.both_arches()
    amd, arm = the_lock.kernels
    older = samples.changed(
        amd, releases=(samples.flatcar_release("4593.2.4"),), headers=(samples.package("linux-headers-other"),)
    )
    arm = samples.changed(arm, releases=(samples.flatcar_release("4593.2.4"), samples.flatcar_release()))
    bench = make(samples.changed(the_lock, kernels=(amd, older, arm)))
    images = {pair.id: bench.finish(pair).digest for pair in bench.plan.pairs}
    new, old = (f"{amd.key}-535.261.03-{kernel.headers_digest[:8]}" for kernel in (amd, older))
    both = images[f"{arm.key}-535.261.03"]
    assert bench.offers(PLAIN) == {"amd64": images[new], "arm64": both}
    assert bench.offers(OPERATOR) == {"amd64": images[new], "arm64": both}
    assert bench.offers(OPERATOR.replace("2.5", "2.4")) == {"amd64": images[old], "arm64": both}
    bench.index()
    assert all(bench.book().done(pair) for pair in bench.plan.pairs)


def test_kernels_of_two_architectures_that_would_share_a_tag_under_two_names_are_an_error_of_the_lock() -> None:
    names_ = ("6.12.107+deb13-cloud", "6.12.107_deb13-cloud")
    amd, arm = (samples.kernel(name, "6.12.107") for name in names_)
    both = samples.both_arches(kernels=(amd,))
    with pytest.raises(BadFileError, match="would share the tag"):
        lockfile.parse(lockfile.dump(samples.changed(both, kernels=(amd, samples.of_arch(arm, "arm64")))))


@given(st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), min_size=2, max_size=4, unique=True), st.randoms())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_indexs_own_tag_follows_from_its_recipes_in_any_order(recipes: list[str], random: Any) -> None:
    shuffled = random.sample(recipes, len(recipes))
    tag = of_joint(recipes)
    assert of_joint(shuffled) == tag
    assert tag.startswith("i-")
    assert len(tag) == 18
    assert of_joint(recipes[1:]) != tag


def test_something_under_the_name_that_is_not_ours_is_replaced(make: Make) -> None:
    bench = make()
    amd, _ = bench.plan.pairs
    stray = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []}).encode()
    bench.registry.push_manifest(stray, INDEX_TYPE, [PLAIN])
    image = bench.finish(amd)
    assert bench.registry.digest(PLAIN) == image.digest


def test_what_an_index_names_is_read_or_refused_and_never_taken_for_nothing(make: Make) -> None:
    bench = make()
    one, two = (bench.finish(pair) for pair in bench.plan.pairs)
    index = bench.registry.digest(PLAIN)
    assert index
    assert image_names.named(bench.registry, index) == (one.digest, two.digest)
    with pytest.raises(RegistryError, match="is no index that can be read"):
        image_names.named(bench.registry, one.digest)
