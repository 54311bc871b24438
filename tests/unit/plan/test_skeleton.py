"""A recipe is asked for thousands of times: it comes from a text with holes, and is the same as plain rendering gives."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest

from pipeline.config import compat
from pipeline.config.records import Kernel
from pipeline.plan.pairs import Plan
from pipeline.plan.skeleton import Hole, Looked, Skeleton, StandIn
from tests import samples

VERSIONS = ("470.256.02", "535.261.03", "550.163.01", "580.95.05")


def kernels(count: int) -> tuple[Kernel, ...]:
    """Kernels that differ in everything a lock says of them, some with more headers than others."""
    return tuple(
        samples.kernel(
            f"6.{n % 13}.{n}-{n}-cloud-amd64",
            f"6.{n % 13}.{n}",
            date=f"2026-1{n % 3}-0{1 + n % 9}T00:00:0{n % 10}Z",
            headers=tuple(samples.package(f"linux-headers-{n}-{part}", f"6.1.{n}-1") for part in range(1 + n % 3)),
            drivers=VERSIONS,
        )
        for n in range(count)
    )


def test_recipes_are_those_of_the_rendered_text_for_every_kernel_driver_and_patch() -> None:
    lock = samples.a_lock(drivers=tuple(samples.driver(v) for v in VERSIONS), kernels=kernels(40))
    plan = samples.plan(lock)
    with_rules = Plan(plan.wanted, plan.lock, plan.renderer, compat.load(Path("compat.toml")))
    for pair in with_rules.pairs:
        plain = plan.renderer.image(pair.kernel, pair.driver, pair.id, pair.kinds, pair.patches)
        assert pair.recipe == plain.recipe == pair.rendered.recipe
    assert len({pair.recipe for pair in with_rules.pairs}) == len(with_rules.pairs)
    skeletons = plan.renderer._skeletons
    assert all(skeletons.values()), "a template looks at a kernel's values, so that every recipe is rendered in full"
    assert len(skeletons) < len(with_rules.pairs) / 3


def test_with_the_environments_date_the_recipes_are_those_of_the_rendered_text_too() -> None:
    plan = samples.plan(epoch=1_700_000_000)
    assert all(pair.recipe == pair.rendered.recipe for pair in plan.pairs)


@pytest.mark.parametrize(
    "template",
    [
        "{% if kernel.kernel == '6.1.0' %}a{% endif %}",
        "{% if kernel.kernel %}a{% endif %}",
        "{% if 'rt' in kernel.kernel %}a{% endif %}",
        "{% if kernel.kernel is eq('6.1.0') %}a{% endif %}",
        "{{ kernel.kernel | upper }}",
        "{{ kernel.kernel | lower }}",
        "{{ kernel.kernel | title }}",
        "{{ kernel.kernel | replace('-', '_') }}",
        "{{ kernel.kernel | replace('+', '_') }}",
        "{{ kernel.kernel | length }}",
        "{{ kernel.kernel | first }}",
        "{{ kernel.kernel | urlencode }}",
        "{{ kernel.kernel | e }}",
        "{{ kernel.kernel | truncate(5) }}",
        "{{ kernel.kernel[:3] }}",
        "{{ kernel.kernel.split('-')[0] }}",
        "{{ kernel.kernel + 'x' }}",
        "{{ kernel.kernel * 2 }}",
        "{{ epoch + 1 }}",
        "{{ [kernel.kernel] | sort | join }}{{ {kernel.kernel: 1} | length }}",
        "{{ kernel.releases | length }}",
        "{% if kernel.stale %}a{% endif %}",
    ],
)
def test_a_template_that_does_more_with_a_value_than_print_it_gets_no_skeleton(template: str) -> None:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    values = {"kernel": StandIn(samples.kernel(), "kernel"), "epoch": Hole("epoch")}
    with pytest.raises((Looked, TypeError, jinja2.TemplateError)):
        Skeleton(environment.from_string(template).render(values))


def test_holes_are_filled_with_the_values_of_another_kernel() -> None:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    template = environment.from_string(
        "{{ tree }} {% for f in kernel.headers %}{{ f.sha256 }} {{ f.size }} {% endfor %}"
        "{{ '/lib/' ~ kernel.kernel }} {{ kernel.os }}"
    )
    stand_in = StandIn(samples.kernel(), "kernel")
    skeleton = Skeleton(template.render(kernel=stand_in, tree=f"<{stand_in.kernel}>"))
    other = samples.kernel("7.0.1-rc1+debian14", headers=(samples.package("other"),))
    assert skeleton.fill({"kernel": other}) == template.render(kernel=other, tree=f"<{other.kernel}>")
