"""Which images may go: never one whose OS release is supported, or is the previous one of a supported channel."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.records import Kernel, OsRelease, Pending
from pipeline.core.errors import UsageError
from pipeline.outcomes import retention
from pipeline.outcomes.index import entry_of
from pipeline.outcomes.retention import Image, Verdict, image_from, judge, kept, unknown
from pipeline.plan.pairs import Plan
from tests import samples


def flatcar(number: int, channel: str = "stable") -> Kernel:
    place = OsRelease(channel=channel, version=f"{number}.2.0", id="flatcar", version_id=f"{number}.2.0")
    return samples.kernel(f"6.12.{number}-flatcar", "6.12.1", os="flatcar", releases=(place,))


def plan_of(*kernels: Kernel, **changes: object) -> Plan:
    return samples.plan(samples.a_lock(kernels=kernels, **changes))


def past(number: int, channel: str = "stable") -> Image:
    """An image of a release that is not in the lock any more."""
    return Image("flatcar", "amd64", f"6.12.{number}-flatcar", (("flatcar", "amd64", channel, f"{number}.2.0"),))


def tag(number: int) -> str:
    return f"r-{number:016x}"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def removed(verdicts: list[Verdict]) -> set[str]:
    return {name for verdict in verdicts if verdict.remove for name in verdict.tags}


PLAN = plan_of(flatcar(100), flatcar(101))


def judged(*images: Image, plan: Plan = PLAN, extra: dict[str, str] | None = None) -> list[Verdict]:
    """Each image under its recipe tag and a name of its own, ``extra`` tags besides."""
    known = {tag(n): image for n, image in enumerate(images)}
    digests = {tag(n): digest(n) for n in range(len(images))}
    digests |= {f"{image.kernel}-535.1": digest(n) for n, image in enumerate(images)}
    return judge({**digests, **(extra or {})}, kept(plan), known)


def test_an_image_whose_release_left_the_lock_goes_with_all_its_names_and_says_why() -> None:
    verdicts = judged(past(98), past(90))
    assert removed(verdicts) == {tag(1), "6.12.90-flatcar-535.1"}
    assert verdicts[0].why == "6.12.90-flatcar: no release in versions.lock boots it (flatcar stable 90.2.0)"


def test_the_previous_release_of_a_supported_channel_stays_in_each_channel() -> None:
    plan = plan_of(flatcar(100), flatcar(200, "beta"))
    verdicts = judged(past(99), past(98), past(199, "beta"), past(198, "beta"), plan=plan)
    assert removed(verdicts) == {tag(1), "6.12.98-flatcar-535.1", tag(3), "6.12.198-flatcar-535.1"}
    assert "flatcar stable 99.2.0 is the one before stable 100.2.0" in {verdict.why for verdict in verdicts}


def test_nothing_of_a_channel_that_the_lock_has_left_is_called_previous() -> None:
    assert removed(judged(past(300, "edge"))) == {tag(0), "6.12.300-flatcar-535.1"}


def test_versions_are_compared_by_number() -> None:
    plan = plan_of(flatcar(101))
    assert removed(judged(past(100), past(99), plan=plan)) == {tag(1), "6.12.99-flatcar-535.1"}


def test_a_withdrawn_release_above_the_newest_one_stays_and_hides_no_previous_one() -> None:
    assert removed(judged(past(102), past(99), past(98))) == {tag(2), "6.12.98-flatcar-535.1"}


@pytest.mark.parametrize("why", ["driver dropped", "older recipe"])
def test_an_image_of_a_supported_release_stays_whatever_became_of_its_driver_or_recipe(why: str) -> None:
    verdicts = judged(past(100))
    assert removed(verdicts) == set()
    assert verdicts[0].why == "6.12.100-flatcar is the kernel of a supported release"


def test_a_release_that_is_known_but_not_pinned_is_supported() -> None:
    waiting = Pending(
        os="flatcar", arch="amd64", kernel="6.12.90-flatcar", reason="no headers yet",
        releases=(OsRelease(channel="lts", version="90.2.0", id="flatcar", version_id="90.2.0"),),
    )  # fmt: skip
    assert removed(judged(past(90, "lts"), plan=plan_of(flatcar(100), pending=(waiting,)))) == set()


def test_what_the_plan_names_stays() -> None:
    pair = PLAN.pairs[0]
    names = {pair.recipe_tag: digest(1), pair.tags[0]: digest(1), pair.failed_tag: digest(2), "index": digest(3)}
    renderer = PLAN.renderer
    names[f"base-{renderer.base(PLAN.lock.bases[0]).recipe[:16]}"] = digest(4)
    names[f"userspace-535.261.03-{renderer.userspace(PLAN.lock.drivers[0]).recipe[:16]}"] = digest(5)
    assert removed(judge(names, kept(PLAN), {})) == set()


def test_failures_and_shared_layers_of_old_recipes_go() -> None:
    names = {f"failed-{7:016x}": digest(1), f"base-{7:016x}": digest(2), f"userspace-535.1-{7:016x}": digest(3)}
    assert removed(judge(names, kept(PLAN), {})) == set(names)


def test_a_digest_goes_only_where_every_tag_on_it_may_go() -> None:
    wanted = PLAN.pairs[0].tags[0]
    verdicts = judged(past(99), past(90), extra={wanted: digest(1)})
    assert removed(verdicts) == set()
    assert f"{wanted} is wanted" in {verdict.why for verdict in verdicts}


def test_what_nobody_knows_stays() -> None:
    names = {"my-own-tag": digest(1), tag(7): digest(2)}
    verdicts = judge(names, kept(PLAN), {})
    assert removed(verdicts) == set()
    assert unknown(names, kept(PLAN), {}) == [tag(7)]


def test_an_image_known_only_by_its_labels_stays_since_they_name_no_release() -> None:
    labels = {"io.coreos-nvidia.os": "flatcar", "io.coreos-nvidia.arch": "amd64", "io.coreos-nvidia.kernel": "6.12.1-flatcar"}
    image = image_from(labels)
    assert image == Image("flatcar", "amd64", "6.12.1-flatcar", ())
    assert removed(judge({tag(1): digest(1)}, kept(PLAN), {tag(1): image})) == set()
    assert image_from({}) is None


def test_what_is_attached_goes_with_its_image_and_only_then() -> None:
    first, second = f"sha256-{0:064x}.sig", f"sha256-{1:064x}"
    gone = removed(judged(past(99), past(90), extra={first: digest(50), second: digest(51)}))
    assert second in gone
    assert first not in gone


def test_an_index_goes_with_its_images_and_before_them() -> None:
    known = {tag(0): past(90), tag(1): past(91)}
    digests = {tag(0): digest(0), tag(1): digest(1), "i-" + "a" * 16: digest(7), "6.12.90-flatcar-535.1": digest(7)}
    newest = {tag(2): digest(2)}
    verdicts = judge({**digests, **newest}, kept(PLAN), known | {tag(2): past(99)}, {digest(7): (digest(0), digest(1))})
    assert [(verdict.digest, verdict.remove) for verdict in verdicts[:1]] == [(digest(7), True)]
    assert removed(verdicts) == set(digests)
    assert verdicts[0].why == "an index of images that go"


@given(st.lists(st.booleans(), min_size=2, max_size=4), st.booleans())
def test_nothing_goes_that_an_index_which_stays_names(old: list[bool], named: bool) -> None:
    """``old``: whether each image's release is long gone; ``named``: whether the lock still has a name of the index."""
    known = {tag(n): past(90 - n) if gone else past(99) for n, gone in enumerate(old)} | {tag(9): past(99)}
    digests = {tag(n): digest(n) for n in range(len(old))} | {"i-" + "a" * 16: digest(7)}
    needs = kept(PLAN)
    digests |= {next(iter(PLAN.pairs[0].tags)): digest(7)} if named else {}
    index = {digest(7): tuple(digest(n) for n in range(len(old)))}
    by = {verdict.digest: verdict for verdict in judge(digests, needs, known, index)}
    assert by[digest(7)].remove == (not named and all(old))
    for n in range(len(old)):
        assert by[digest(n)].remove == (not named and all(old)), "they go together or not at all"


def test_an_index_of_somebody_elses_keeps_what_it_names() -> None:
    known = {tag(0): past(90), tag(1): past(99)}
    digests = {tag(0): digest(0), tag(1): digest(1), "fleet-7": digest(7)}
    verdicts = judge(digests, kept(PLAN), known, {digest(7): (digest(0), "sha256:" + "f" * 64)})
    assert removed(verdicts) == set()
    assert "fleet-7 is an index of it" in {verdict.why for verdict in verdicts}


def test_a_lock_without_kernels_prunes_nothing() -> None:
    with pytest.raises(UsageError, match="holds no kernel"):
        kept(plan_of())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(80, 130), unique=True, min_size=1, max_size=12),
    st.lists(st.integers(80, 130), unique=True, min_size=1, max_size=4),
)
def test_whatever_there_is_supported_and_previous_releases_stay(there: list[int], locked: list[int]) -> None:
    plan = plan_of(*(flatcar(number) for number in locked))
    images = [past(number) for number in there]
    gone = {name for name in removed(judged(*images, plan=plan)) if name.endswith("-535.1")}
    left = [number for number in there if f"6.12.{number}-flatcar-535.1" not in gone]
    assert set(there) & set(locked) <= set(left)
    below = [number for number in there if number not in locked and number < max(locked)]
    if below:
        assert max(below) in left
    assert {number for number in there if number > max(locked)} <= set(left)


def test_the_index_tells_which_release_an_image_was_for() -> None:
    image = retention.image_of(entry_of(samples.plan().pairs[0], "built"))
    assert image.releases == (("debian", "amd64", "bookworm", "6.1.170-3"),)


def test_an_image_of_a_machine_with_a_lock_of_its_own_stays_wherever_that_lock_is() -> None:
    own = Image("host", "amd64", "6.1.176-mine", (("host", "amd64", "host", "6.1.176-mine"),))
    assert removed(judged(own)) == set()
