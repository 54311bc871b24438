"""Pairs, their recipes and their tags follow from the lock alone."""

from __future__ import annotations

import pytest

from pipeline.config.policies import policies
from pipeline.config.records import OsRelease
from pipeline.core.errors import BadFileError, UsageError
from tests import samples

EXCLUDE = """
[[exclude]]
driver = "==535.261.03"
kernel = ">=6.1.176"
reason = "pci_resize_resource takes 4 arguments"
see = "https://example.com/344"
"""


def test_a_pair_is_named_by_os_arch_kernel_and_driver() -> None:
    assert [pair.id for pair in samples.plan().pairs] == [
        "debian/amd64:6.1.0-47-cloud-amd64-535.261.03",
        "debian/amd64:6.1.0-50-cloud-amd64-535.261.03",
    ]


def test_tags_are_the_plain_one_the_operators_form_and_branch_aliases() -> None:
    pair = samples.plan().pairs[0]
    assert pair.tags == ("6.1.0-47-cloud-amd64-535.261.03", "535.261.03-6.1.0-47-cloud-amd64-debian12")
    assert pair.aliases == ("6.1.0-47-cloud-amd64-535", "535-6.1.0-47-cloud-amd64-debian12")
    assert pair.recipe_tag == f"r-{pair.recipe[:16]}"


def test_of_two_builds_of_one_kernel_string_the_newer_release_owns_the_plain_tag() -> None:
    old = samples.kernel(releases=(OsRelease(channel="stable", version="9.1", id="flatcar", version_id="9.1"),))
    new = samples.kernel(
        releases=(OsRelease(channel="stable", version="10.2", id="flatcar", version_id="10.2"),),
        headers=(samples.package("linux-headers-other"),),
    )
    first, second = samples.plan(samples.a_lock(kernels=(new, old))).pairs
    by_release = {pair.kernel.releases[0].version: pair for pair in (first, second)}
    assert first.id != second.id
    assert by_release["9.1"].tags == ("535.261.03-6.1.0-47-cloud-amd64-flatcar9.1",)
    assert by_release["10.2"].tags[0] == "6.1.0-47-cloud-amd64-535.261.03"


def test_changing_one_kernel_changes_that_pairs_recipe_and_no_other() -> None:
    before = samples.plan().pairs
    kernels = (samples.kernel(headers=(samples.package("linux-headers-new"),)), samples.kernel("6.1.0-50-cloud-amd64", "6.1.176"))
    after = samples.plan(samples.a_lock(kernels=kernels)).pairs
    assert before[0].recipe != after[0].recipe
    assert before[1].recipe == after[1].recipe


def test_a_new_release_of_a_known_kernel_adds_a_tag_and_builds_nothing() -> None:
    more = OsRelease(channel="bookworm-security", version="6.1.170-3", id="debian", version_id="12.9")
    kernel = samples.kernel()
    kernels = (samples.changed(kernel, releases=(*kernel.releases, more)),)
    before = samples.plan(samples.a_lock(kernels=(kernel,))).pairs[0]
    after = samples.plan(samples.a_lock(kernels=kernels)).pairs[0]
    assert after.recipe == before.recipe
    assert set(after.tags) - set(before.tags) == {"535.261.03-6.1.0-47-cloud-amd64-debian12.9"}


@pytest.mark.parametrize(
    "change",
    [
        {"toolchains": (samples.changed(samples.a_lock().toolchains[0], packages=(samples.package("gcc-12", "2"),)),)},
        {"bases": (samples.changed(samples.a_lock().bases[0], packages=(samples.package("kmod", "2"),)),)},
        {"drivers": (samples.driver(userspace=(samples.package("libcuda1", "535.261.03-2"),)),)},
    ],
)
def test_a_changed_toolchain_base_or_driver_changes_every_recipe(change: dict[str, object]) -> None:
    before = {pair.recipe for pair in samples.plan().pairs}
    after = {pair.recipe for pair in samples.plan(samples.a_lock(**change)).pairs}
    assert len(before) == len(after) == 2
    assert not before & after


def test_an_exclusion_covers_full_kernel_versions_and_carries_its_reason() -> None:
    first, second = samples.plan(text=EXCLUDE).pairs
    assert first.exclusion is None
    assert second.exclusion is not None
    assert second.exclusion.reason == "pci_resize_resource takes 4 arguments"


def test_before_branch_560_the_proprietary_kind_is_the_required_one() -> None:
    pair = samples.plan().pairs[0]
    assert (pair.best_kind, pair.required) == ("proprietary", ("proprietary",))
    newer = samples.driver("580.178.04")
    plan = samples.plan(samples.a_lock(drivers=(newer,), kernels=(samples.kernel(drivers=("580.178.04",)),)))
    assert plan.pairs[0].best_kind == "open"
    both = samples.plan(samples.a_lock(drivers=(samples.driver(required=("open", "proprietary")),)))
    assert both.pairs[0].required == ("open", "proprietary")


def test_a_driver_with_no_kind_that_is_wanted_is_excluded_and_says_what_to_change() -> None:
    one = samples.driver(open=())
    (pair,) = samples.plan(samples.a_lock(drivers=(one,), kernels=(samples.kernel(),)), "[build]\nkinds = ['open']\n").pairs
    assert pair.exclusion is not None
    assert pair.exclusion.rule == "versions.toml"
    assert (
        pair.exclusion.reason == "535.261.03 has proprietary modules only, and [build] kinds of versions.toml does not have that"
    )
    assert pair.exclusion.lift == "'proprietary' in [build] kinds"
    assert "proprietary" in pair.rendered.text


def test_no_kinds_are_all_kinds_as_no_modules_are_all_modules() -> None:
    every, none = samples.plan(), samples.plan(text="[build]\nkinds = []\nmodules = []\n")
    assert [pair.recipe for pair in none.pairs] == [pair.recipe for pair in every.pairs]
    assert none.pairs[0].kinds == ("open", "proprietary")


def test_kinds_that_are_required_of_a_branch_are_among_those_that_are_built() -> None:
    wishes = samples.wishes("[build]\nkinds = ['open']\n[nvidia]\nkinds = {535 = ['proprietary']}\n")
    with pytest.raises(BadFileError, match=r"proprietary modules are required of 535, and `\$\.build\.kinds`"):
        policies(wishes)


def test_a_selection_is_by_task_name_and_a_pattern_that_matches_nothing_is_an_error() -> None:
    plan = samples.plan()
    assert [p.kernel.kernel for p in plan.select(["image:*6.1.0-50*"])] == ["6.1.0-50-cloud-amd64"]
    assert plan.select([]) == plan.pairs
    with pytest.raises(UsageError, match="matches no pair"):
        plan.select(["image:*6.1.0-99*"])


BOTH = "[[driver]]\nexact = '535.261.03'\nreason = 'because'\nrequired = ['open', 'proprietary']\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[settings]\nregistri = 'x'", "unknown field `registri`"),
        ("[[exclude]]\nreason = 'because'", "without a condition"),
        ("[[exclude]]\nkernel = '6.1 or so'\nreason = 'because'", "not a version range"),
        ("[[driver]]\nexact = '535'\nreason = 'because'", "not an NVIDIA driver version"),
        ("[[driver]]\nexact = '535.261.03'\n", "missing required field `reason`"),
        ("settings = 3", "Expected `object`"),
        ("[settings]\nsource_date_epoch = -1", "`$.settings.source_date_epoch`"),
        ("[[driver]]\nexact = '535.261.03'\nreason = '      '", "`$.driver[0].reason`"),
        ("[[exclude]]\ndriver = '535'\nreason = '      '", "`$.exclude[0].reason`"),
        ("[build]\nmodules = ['nvidia-foo']", "Invalid enum value 'nvidia-foo' - at `$.build.modules[0]`"),
        (f"[build]\nkinds = ['proprietary']\n{BOTH}", "open modules are required, and `$.build.kinds` does not have them"),
        (f"[build]\nkinds = ['open']\n{BOTH}", "proprietary modules are required, and `$.build.kinds` does not"),
        ("[[", "versions.toml"),
    ],
)
def test_wishes_that_cannot_be_meant_are_one_line_with_their_place(text: str, words: str) -> None:
    with pytest.raises(BadFileError) as caught:
        samples.wishes(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
