"""A pair that really does not compile: the outcome, its reason, and what a failure does to the others.

535.261.03's open modules call pci_resize_resource() with three arguments; 6.1.192 wants four. compat.toml knows that and
has a patch; here it is taken to be of no use from 6.1.178 on.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.core.tags import REASON_LABEL
from tests.checkout import DRIVER, KERNEL, KINDS, MODULES, NEWEST, Checkout, Ran, adopt_layers
from tests.support.pairs import Whole

pytestmark = [pytest.mark.e2e, pytest.mark.full, pytest.mark.area("thread")]

BAD, GOOD = f"debian/amd64:{NEWEST}-{DRIVER}", f"debian/amd64:{KERNEL}-{DRIVER}"
BOTH = (f"image:{BAD}", f"image:{GOOD}")
"""The good one is that of ``whole``, so the engine has its modules."""
NO_ENGINE = "unix:///nowhere/docker.sock"


def less_known(text: str) -> str:
    """compat.toml as it was before 6.1.178 broke the driver."""
    for known, before in (
        ('kernel = ">=6.1.178, <6.2 | >=6.12.97', 'kernel = ">=6.12.97'),
        ('file = "535-pci-resize-resource.patch"\n', 'file = "535-pci-resize-resource.patch"\nkernel = "<6.1.178"\n'),
    ):
        assert text.count(known) == 1
        text = text.replace(known, before)
    return text


@pytest.fixture(scope="module")
def unpatched(whole: Whole, room: Path, environ: dict[str, str]) -> Checkout:
    """A checkout that does not know that the pair cannot be; its own repository in the registry."""
    checkout = Checkout(room / "unpatched", **environ, DRIVER_REGISTRY=f"{whole.registry.address}/unpatched")
    checkout.only(modules=MODULES, kinds=KINDS)
    checkout.edit("compat.toml", less_known)
    adopt_layers(whole.checkout, checkout)
    return checkout


@pytest.fixture(scope="module")
def first(unpatched: Checkout) -> Ran:
    return unpatched.doit("--json", *BOTH)


def test_it_fails_with_the_compilers_own_first_error_and_the_good_pair_is_built(first: Ran, unpatched: Checkout) -> None:
    first.ended(1)
    assert first.outcomes == {BAD: "failed", GOOD: "built"}
    assert first.complaint.startswith(f"doit: {BAD} failed: ")
    rows = {row["kernel"]: row for row in unpatched.index()["pairs"] if row["driver"] == DRIVER}
    reason = rows[NEWEST]["reason"]
    assert "error: too few arguments to function 'pci_resize_resource'" in reason.replace("‘", "'").replace("’", "'")
    assert reason.startswith("/build/nvidia/nvidia/")
    assert (rows[NEWEST]["outcome"], rows[NEWEST]["digest"], rows[NEWEST]["tags"]) == ("failed", None, [])
    assert rows[KERNEL]["outcome"] == "built"


def test_nothing_stands_under_its_names_but_the_failure_with_its_reason(first: Ran, unpatched: Checkout) -> None:
    assert first.status == 1
    space = unpatched.space()
    bad, good = space.plan.select([f"image:{BAD}"])[0], space.plan.select([f"image:{GOOD}"])[0]
    tags = set(space.registry.tags())
    assert set(good.tags) | {good.recipe_tag, bad.failed_tag} <= tags
    assert not tags & {*bad.tags, bad.recipe_tag}
    held = space.registry.manifest(bad.failed_tag)
    assert held is not None
    config = json.loads(space.registry.blob(json.loads(held.data)["config"]["digest"]))
    assert "pci_resize_resource" in config["config"]["Labels"][REASON_LABEL]


def test_it_is_not_tried_again_and_still_counts(first: Ran, unpatched: Checkout) -> None:
    assert first.status == 1
    ran = unpatched.doit("--json", *BOTH, DOCKER_HOST=NO_ENGINE).ended(1)
    assert ran.work == []
    assert ran.complaint == first.complaint


def test_another_checkout_learns_of_it_from_the_registry(first: Ran, unpatched: Checkout, room: Path) -> None:
    assert first.status == 1
    other = Checkout(room / "learns", DRIVER_REGISTRY=unpatched.environ["DRIVER_REGISTRY"])
    other.only(modules=MODULES, kinds=KINDS)
    other.edit("compat.toml", less_known)
    ran = other.doit("--json", *BOTH, DOCKER_HOST=NO_ENGINE).ended(1)
    assert ran.complaint == first.complaint
    assert other.outcomes()[GOOD] == "built"


def test_it_is_tried_again_where_that_is_asked_for(first: Ran, unpatched: Checkout) -> None:
    ran = unpatched.doit("--json", "--retry-failed", *BOTH).ended(1)
    assert ran.outcomes == {BAD: "failed"}
    assert ran.complaint == first.complaint
