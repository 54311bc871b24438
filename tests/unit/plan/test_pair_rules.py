"""What compat.toml says reaches plan, Dockerfile, recipe and outcome of each pair."""

from __future__ import annotations

from typing import Any

from pipeline.config import compat
from pipeline.outcomes import index
from pipeline.outcomes.table import why
from pipeline.plan.pairs import Pair
from tests import samples

RULE = """
[[rule]]
name = "too-new"
outcome = "exclude"
kinds = ["open"]
driver = "535"
kernel = ">=6.1.176"
reason = "does not compile on that kernel"
see = "https://example.com/too-new"
lift = "a later driver"
"""
NEEDS_PATCH = RULE.replace('"exclude"', '"needs-patch"')
PATCH = """
[[patch]]
file = "535-pci-resize-resource.patch"
sha256 = "fc6b54ff9f93e5071f1ba5d72b3506166207625c61ff6ffc169634961d29395d"
kinds = ["open"]
kernel = ">=6.1.176"
cures = ["too-new"]
reason = "cures what the rule says"
see = "https://example.com/patch"
"""
FOR_GCC = """
[[rule]]
name = "old-compiler"
outcome = "exclude"
driver = "535"
gcc = "<13"
reason = "that compiler cannot build it"
see = "https://example.com/gcc"
"""


def pairs(rules: str, **driver: Any) -> tuple[Pair, ...]:
    the_lock = samples.a_lock(drivers=(samples.driver(**driver),))
    return samples.plan(the_lock, rules=rules).pairs


def test_a_kind_that_no_policy_requires_is_left_out_and_the_other_is_built() -> None:
    first, second = pairs(RULE)
    assert (first.kinds, first.left_out) == (("open", "proprietary"), {})
    assert second.kinds == ("proprietary",)
    assert second.exclusion is None
    missing = index.left_out(second)
    assert [(m.kind, m.reason) for m in missing] == [("open", "left out by rule too-new: does not compile on that kernel")]
    assert "nvidia-open-kernel-source" not in second.rendered.text


def test_a_required_kind_that_is_left_out_excludes_the_pair_with_rule_reason_and_what_lifts_it() -> None:
    second = pairs(RULE, required=("open", "proprietary"))[1]
    assert second.exclusion is not None
    entry = index.excluded(second)
    assert (entry.outcome, entry.rule, entry.lift) == ("excluded", "too-new", "a later driver")
    assert entry.reason == "open: does not compile on that kernel"
    said = why(entry)
    assert "rule too-new of compat.toml; see " in said[-1]
    assert "lifted by a later driver" in said


def test_the_only_kind_that_is_left_out_excludes_the_pair() -> None:
    first, second = pairs(RULE, proprietary=())
    assert first.exclusion is None
    assert second.exclusion is not None


def test_what_people_exclude_comes_before_what_rules_say() -> None:
    text = '[[exclude]]\ndriver = "535"\nreason = "not wanted"\n'
    exclusion = samples.plan(text=text, rules=RULE).pairs[1].exclusion
    assert exclusion is not None
    assert (exclusion.rule, exclusion.reason) == ("versions.toml", "not wanted")


def test_a_patch_lifts_the_rule_and_is_applied_to_its_kind_alone_with_its_hash_in_the_text() -> None:
    first, second = pairs(NEEDS_PATCH + PATCH)
    assert second.kinds == ("open", "proprietary")
    assert "535-pci-resize-resource.patch" not in first.rendered.text
    text = second.rendered.text
    line = "fc6b54ff9f93e5071f1ba5d72b3506166207625c61ff6ffc169634961d29395d  535-pci-resize-resource.patch"
    by_stage = {part.split(" AS ")[1].split("\n")[0]: part for part in text.split("\nFROM ") if " AS " in part.split("\n")[0]}
    assert line in by_stage["open"]
    assert line in by_stage["probes"]
    assert line not in by_stage["proprietary"]
    assert "--fuzz=0" in by_stage["open"]


def test_without_the_patch_the_rule_holds() -> None:
    second = pairs(NEEDS_PATCH, proprietary=())[1]
    assert second.exclusion is not None
    assert second.exclusion.rule == "too-new"


def test_a_patch_changes_the_recipe_of_the_pairs_that_it_is_for_and_of_no_other() -> None:
    before, after = pairs(""), pairs(NEEDS_PATCH + PATCH)
    assert before[0].recipe == after[0].recipe
    assert before[1].recipe != after[1].recipe


def test_a_rule_about_the_compiler_reads_its_version_from_the_pinned_toolchain() -> None:
    old, new = ((samples.package("gcc-12", "12.2.0-14+deb12u1"),), (samples.package("gcc-14", "14.2.0-19"),))
    toolchain = samples.a_lock().toolchains[0]
    for packages, excluded in ((old, True), (new, False)):
        the_lock = samples.a_lock(toolchains=(samples.changed(toolchain, packages=packages),))
        found = samples.plan(the_lock, rules=FOR_GCC).pairs
        assert [pair.exclusion is not None for pair in found] == [excluded, excluded]


def test_the_patch_and_the_program_lie_in_the_build_context() -> None:
    second = pairs(NEEDS_PATCH + PATCH)[1]
    folders = {(folder, file.path) for folder, file in second.rendered.local}
    assert ("patches", "535-pci-resize-resource.patch") in folders
    assert ("program", "usr/bin/nvidia-driver") in folders


def test_the_committed_rules_patch_535_261_03_where_the_headers_may_have_the_new_form() -> None:
    rules = compat.load()
    for kernel in ("6.1.170", "6.1.187", "6.18.41"):
        verdict = compat.why(rules, kernel, "535.261.03", "open", "debian")
        assert verdict.rule is None
        assert [patch.file for patch in verdict.patches] == ["535-pci-resize-resource.patch"]
    assert compat.why(rules, "6.1.187", "535.309.01", "open", "debian").patches == ()
