"""What is done follows from the registry's tags, whatever this machine remembers: a real registry, small images."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.build.assemble import Image, Store, assemble, tree
from pipeline.build.pair import publish
from pipeline.build.shared_layers import Workshop
from pipeline.core.errors import EngineError, RegistryError
from pipeline.core.progress import Progress
from pipeline.core.tags import REASON_LABEL
from pipeline.engine.client import Engine
from pipeline.fetch.fetcher import Fetcher
from pipeline.fetch.store import Inputs
from pipeline.outcomes import index as indexes
from pipeline.outcomes.index import Index, entry_of
from pipeline.plan.pairs import Pair, Plan
from pipeline.publish import ledger
from pipeline.publish.ledger import Ledger
from tests import samples
from tests.registry_process import MISSING, installed, running_registry
from tests.told_server import client

pytestmark = pytest.mark.skipif(not installed(), reason=MISSING)
NOW = "2026-11-24T12:00:00Z"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


class Bench:
    """A checkout's root, its plan, its registry, and what would build if anything had to be built."""

    _number = 0

    def __init__(self, root: Path, place: str, plan: Plan, fetcher: Fetcher) -> None:
        Bench._number += 1
        self.root, self.plan = root, plan
        self.registry = client(f"{place}/test{Bench._number}")
        self.said: list[str] = []
        self.shop = Workshop(
            root=root,
            renderer=plan.renderer,
            registry=self.registry,
            inputs=Inputs(root / "cache", fetcher, lambda name: ()),
            store=Store(root / "build/layers"),
            progress=Progress(as_json=True),
            open_engine=no_engine,
        )

    def ledger(self, *, retry_failed: bool = False) -> Ledger:
        """A run's view of the registry, read anew."""
        return Ledger(self.registry, self.root, retry_failed=retry_failed)

    def push(self, pair: Pair, *, failed: str = "") -> Image:
        """An image of the pair as small as can be, or its failure, under its recipe's tag alone."""
        layer = self.shop.store.add(tree({"pair": (0o644, pair.id.encode())}), 0)
        labels = {"io.coreos-nvidia.kinds": " ".join(pair.kinds), "io.coreos-nvidia.driver": pair.driver.version}
        labels |= {REASON_LABEL: failed} if failed else {}
        image = assemble([layer], arch="amd64", epoch=0, labels=labels, names=["x"], program=False)
        self.shop.push_image(image, [pair.failed_tag if failed else pair.recipe_tag])
        return image

    def publish_index(self) -> Index:
        book = self.ledger()
        index = book.index(self.plan, ledger.local_index(self.root), now=NOW)
        book.push_index(index, self.plan, self.shop)
        ledger.save_index(self.root, index)
        return index


def no_engine() -> Engine:
    raise EngineError("nothing here may build")


@pytest.fixture
def bench(place: str, tmp_path: Path, fetcher: Fetcher) -> Bench:
    return Bench(tmp_path, place, samples.plan(), fetcher)


def test_in_an_empty_registry_everything_is_pending(bench: Bench) -> None:
    book = bench.ledger()
    assert [book.entry(pair).outcome for pair in bench.plan.pairs] == ["pending", "pending"]
    assert not any(book.done(pair) for pair in bench.plan.pairs)


def test_an_image_under_its_recipes_tag_is_built_whoever_built_it(bench: Bench) -> None:
    first, second = bench.plan.pairs
    image = bench.push(first)
    book = bench.ledger()
    assert (book.built(first), book.built(second)) == (True, False)
    entry = book.entry(first)
    assert (entry.outcome, entry.digest, set(entry.kinds)) == ("built", image.digest, {"open", "proprietary"})
    assert entry.bytes.image == image.size
    assert not book.done(first), "its own names are not there yet"


def test_what_another_runner_built_is_asked_for_once_a_run_however_often_the_tags_are_read_again(bench: Bench) -> None:
    for pair in bench.plan.pairs:
        bench.push(pair)
    book = bench.ledger()
    first = [book.entry(pair) for pair in bench.plan.pairs]
    before = bench.registry.requests
    for _ in range(3):
        book.refresh()
        assert [book.entry(pair) for pair in bench.plan.pairs] == first
    assert bench.registry.requests - before == 3, "the list of tags each time; there is no index"


def test_a_reason_out_of_an_image_reaches_nobody_with_an_escape_code_in_it(bench: Bench) -> None:
    pair = bench.plan.pairs[0]
    bench.push(pair, failed="\x1b[2Jnv-pci.c:1:\nerror: too few arguments")
    assert bench.ledger().entry(pair).reason == "[2Jnv-pci.c:1: error: too few arguments"


def test_adopting_what_is_there_gives_it_its_names_and_builds_nothing(bench: Bench) -> None:
    pair = bench.plan.pairs[0]
    image = bench.push(pair)
    book = bench.ledger()
    book.note(book.adopt(pair, bench.shop))
    bench.publish_index()
    assert {tag: bench.registry.digest(tag) for tag in pair.tags} == dict.fromkeys(pair.tags, image.digest)
    assert bench.ledger().done(pair)


def test_adopting_what_is_there_keeps_what_the_index_knows_of_it(bench: Bench) -> None:
    pair = bench.plan.pairs[0]
    image = bench.push(pair)
    publish(pair, image.digest, image.manifest, bench.shop)
    built = entry_of(pair, "built", digest=image.digest, seconds=indexes.Seconds(100.0, 9.0), built=NOW)
    note = bench.root / ledger.OUTCOMES / f"{pair.recipe[:16]}.json"
    other = bench.ledger()
    other.note(other.adopt(pair, bench.shop))
    poor = note.read_bytes()
    bench.ledger().note(built)
    bench.publish_index()

    note.unlink()  # another machine, which has only the registry
    book = bench.ledger()
    assert (adopted := book.adopt(pair, bench.shop)).built == NOW
    assert adopted.seconds == built.seconds
    note.write_bytes(poor)  # one that had adopted it before its builder published the index
    assert bench.ledger().entry(pair).built == NOW


def test_a_failure_is_remembered_with_its_reason_and_tried_again_only_on_request(bench: Bench) -> None:
    pair = bench.plan.pairs[0]
    bench.push(pair, failed="nv-pci.c:1: error: too few arguments")
    book = bench.ledger()
    entry = book.entry(pair)
    assert (entry.outcome, entry.reason, entry.tags) == ("failed", "nv-pci.c:1: error: too few arguments", ())
    assert book.done(pair)
    assert not bench.ledger(retry_failed=True).done(pair)


def test_an_image_outweighs_an_earlier_failure_of_the_same_recipe(bench: Bench) -> None:
    pair = bench.plan.pairs[0]
    bench.push(pair, failed="a full disk, once")
    bench.push(pair)
    assert bench.ledger().entry(pair).outcome == "built"


def test_another_recipe_is_not_done_by_an_image_of_the_old_one(bench: Bench, place: str, fetcher: Fetcher) -> None:
    old = bench.plan.pairs[0]
    image = bench.push(old)
    publish(old, image.digest, image.manifest, bench.shop)
    bench.publish_index()
    changed = samples.a_lock(kernels=(samples.kernel(date="2026-11-23T08:00:00Z"),))
    bench.plan = samples.plan(changed)
    new = bench.plan.pairs[0]
    assert new.recipe != old.recipe
    book = bench.ledger()
    assert not book.done(new)
    entry = book.entry(new)
    assert (entry.outcome, entry.reason, entry.digest) == ("built", "built from an earlier recipe", image.digest)


def test_the_index_gets_a_new_serial_with_every_change_and_none_without(bench: Bench) -> None:
    assert bench.publish_index().serial == 1
    assert bench.publish_index().serial == 1
    bench.push(bench.plan.pairs[0])
    assert bench.publish_index().serial == 2
    (bench.root / indexes.INDEX_FILE).unlink()
    assert bench.publish_index().serial == 2, "the registry's own serial counts"


def test_a_serial_that_this_checkout_has_seen_never_falls(bench: Bench) -> None:
    ledger.save_index(bench.root, Index(serial=41))
    assert bench.publish_index().serial == 42


def test_an_index_that_cannot_be_read_is_made_again_from_the_tags(bench: Bench) -> None:
    bench.push(bench.plan.pairs[0])
    layer = bench.shop.store.add(tree({"index.json": (0o644, b"{")}), 0)
    image = assemble([layer], arch="amd64", epoch=0, labels={}, names=["index"], program=False)
    bench.shop.push_image(image, ["index"])
    index = bench.publish_index()
    assert [row.outcome for row in index.pairs] == ["built", "pending"]


def test_what_the_registry_holds_besides_the_lock_stays_in_the_index_as_not_wanted(bench: Bench) -> None:
    pair = bench.plan.pairs[1]
    bench.push(pair)
    bench.publish_index()
    bench.plan = samples.plan(samples.a_lock(kernels=(samples.kernel(),)))
    rows = {row.kernel: row for row in bench.publish_index().pairs}
    assert (rows[pair.kernel.kernel].outcome, rows[pair.kernel.kernel].wanted) == ("built", False)


def test_branch_names_move_forward_and_never_back(bench: Bench) -> None:
    drivers = ("535.261.03", "535.309.01")
    lock = samples.a_lock(drivers=tuple(map(samples.driver, drivers)), kernels=(samples.kernel(drivers=drivers),))
    bench.plan = samples.plan(lock)
    old, new = bench.plan.pairs
    digests = {pair.driver.version: bench.push(pair).digest for pair in (old, new)}
    alias = "6.1.0-47-cloud-amd64-535"
    only_old = samples.plan(samples.a_lock(kernels=(samples.kernel(),)))
    bench.ledger().settle_aliases(bench.plan, [old, new], bench.shop)
    assert bench.registry.digest(alias) == digests["535.309.01"]
    bench.push(only_old.pairs[0])
    bench.ledger().settle_aliases(only_old, only_old.pairs, bench.shop)
    assert bench.registry.digest(alias) == digests["535.309.01"], "an older lock takes nothing back"


def test_a_tag_that_is_listed_and_cannot_be_read_is_an_error_and_not_a_missing_image(bench: Bench) -> None:
    book = bench.ledger()
    pair = bench.plan.pairs[0]
    book.tags.add(pair.recipe_tag)
    with pytest.raises(RegistryError, match="is listed and cannot be read"):
        book.entry(pair)


def test_without_a_registry_the_last_index_speaks_for_it_and_says_so(bench: Bench) -> None:
    first, second = bench.plan.pairs
    local = Index(serial=3, generated=NOW, pairs=(entry_of(first, "built", digest="sha256:" + "1" * 64),))
    cached = ledger.cached(bench.plan, local)
    assert (cached.source, cached.serial) == ("cache", 3)
    assert [(row.outcome, row.kernel) for row in cached.pairs] == [
        ("built", first.kernel.kernel),
        ("pending", second.kernel.kernel),
    ]


def test_an_outcome_is_on_disk_before_the_run_ends(bench: Bench) -> None:
    pair = bench.plan.pairs[0]
    image = bench.push(pair)
    kept = entry_of(pair, "built", digest=image.digest, seconds=indexes.Seconds(100.0, 9.0), built=NOW)
    bench.ledger().note(kept)
    assert not list((bench.root / ledger.OUTCOMES).glob("*.new*"))
    entry = bench.ledger().entry(pair)
    assert (entry.seconds.build, entry.built) == (100.0, NOW), "what the registry does not keep comes from the note"
    (note,) = (bench.root / ledger.OUTCOMES).iterdir()
    note.write_text(json.dumps({"half": "a fi"})[:9])
    assert bench.ledger().entry(pair).seconds.build == 0.0, "a torn note is no answer"


def test_two_ledgers_of_one_registry_agree(bench: Bench) -> None:
    bench.push(bench.plan.pairs[0])
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(bench.ledger().built(bench.plan.pairs[0]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 4
