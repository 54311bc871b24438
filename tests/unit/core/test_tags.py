"""The grammar of tags and labels: what a name says can be told from it again, and no other module spells one."""

from __future__ import annotations

import re

import pytest

from pipeline.core import tags
from tests.checkout import ROOT

RECIPE = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        (tags.of_image(RECIPE), "r"),
        (tags.of_failure(RECIPE), "failed"),
        (tags.of_base(RECIPE), "base"),
        (tags.of_userspace("535.309.01", RECIPE), "userspace"),
        (tags.of_joint([RECIPE, RECIPE[::-1]]), "i"),
        (tags.plain("6.1.0-57-amd64", "535.309.01"), ""),
        (tags.plain("6.1.0-57-amd64", "535"), ""),
        (tags.qualified("535.309.01", "6.1.0-57-amd64", "debian12"), ""),
        (tags.INDEX, ""),
        ("r-0123456789abcde", ""),
        ("r-0123456789abcdef0", ""),
        ("R-0123456789abcdef", ""),
        ("userspace--0123456789abcdef", ""),
        ("toolchain-debian-12-0123456789abcdef", ""),
    ],
)
def test_a_tag_tells_what_it_names(tag: str, kind: str) -> None:
    assert tags.check_tag(tag) == tag
    assert tags.kind_of(tag) == kind
    assert tags.is_outcome(tag) == (kind in ("r", "failed")) or len(tag) != 18
    assert tags.is_failure(tag) == (kind == "failed")


def test_a_recipe_is_short_with_and_without_its_algorithm() -> None:
    assert tags.of_image(f"sha256:{RECIPE}") == tags.of_image(RECIPE) == "r-0123456789abcdef"


def test_a_kernel_with_signs_that_no_tag_has_is_named() -> None:
    assert tags.plain("6.12.107+deb13-cloud-amd64", "535.309.01") == "6.12.107_deb13-cloud-amd64-535.309.01"
    assert tags.qualified("535", "6.12.107+deb13~x", "debian13") == "535-6.12.107_deb13_x-debian13"


def test_no_other_module_spells_a_tag_or_a_label() -> None:
    spelled = re.compile(r"""["'](?:r|failed|base|userspace|i)-["'{]|io\.coreos-nvidia\.""")
    found = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / "pipeline").rglob("*.py")
        if path.name != "tags.py"
        for line in path.read_text().splitlines()
        if spelled.search(line)
    }
    assert found == set()
