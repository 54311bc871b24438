"""Rendered Dockerfiles: their text against golden files, and what that text must and must not hold.

A change of a template shows as a change of golden files, which a review reads. To accept it::

    UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/unit/plan/test_render.py
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import lockfile, versions_toml
from pipeline.config.records import Driver, File, Lock, Toolchain
from pipeline.core.errors import BadFileError
from pipeline.plan import render
from pipeline.plan.dockerfile import LocalFile, Rendered
from pipeline.plan.pairs import Pair, Plan
from tests import samples

GOLDEN = Path(__file__).parents[2] / "golden"
PATCHED = """
[[rule]]
name = "too-new"
outcome = "needs-patch"
kinds = ["open"]
driver = "535"
kernel = ">=6.1.176"
reason = "does not compile on that kernel"
see = "https://example.com/too-new"

[[patch]]
file = "535-pci-resize-resource.patch"
sha256 = "fc6b54ff9f93e5071f1ba5d72b3506166207625c61ff6ffc169634961d29395d"
kinds = ["open"]
kernel = ">=6.1.176"
cures = ["too-new"]
reason = "cures what the rule says"
see = "https://example.com/patch"
"""
PROGRAM = (LocalFile("usr/bin/nvidia-driver", Path("nvidia-driver"), hashlib.sha256(b"program").hexdigest(), 0o755),)


def a_plan(the_lock: Lock | None = None, text: str = "", rules: str = "", epoch: int = 0) -> Plan:
    """A plan whose host program stays the same when the real one changes, so that golden files do."""
    plan = samples.plan(the_lock, text, epoch, rules)
    vars(plan.renderer)["program"] = PROGRAM
    return plan


def first(plan: Plan) -> Pair:
    return plan.pairs[0]


def proprietary_only() -> Lock:
    return samples.a_lock(drivers=(samples.driver(open=()),))


def everything(plan: Plan) -> list[Rendered]:
    """One Dockerfile of each template."""
    renderer, lockfile = plan.renderer, plan.lock
    shared = [
        renderer.toolchain(lockfile.toolchains[0]),
        renderer.base(lockfile.bases[0]),
        renderer.userspace(lockfile.drivers[0]),
    ]
    return [*shared, *(pair.rendered for pair in plan.pairs)]


def vendors(form: str) -> Pair:
    """A pair of a vendor's kernel in that form and a driver out of NVIDIA's run file."""
    return first(a_plan(samples.vendor_lock(form)))


def with_readme() -> Driver:
    """A driver out of Debian's packages, one of which carries NVIDIA's README and with it the list of GPUs."""
    names = ("libcuda1", "nvidia-vdpau-driver")
    return samples.driver(userspace=tuple(samples.package(name, "535.261.03-1") for name in names))


def arm64() -> Plan:
    """Pairs of both architectures, compiled on amd64."""
    return a_plan(samples.both_arches())


def arm64_run() -> Plan:
    """Flatcar's arm64 kernel as it is pinned (published config, kernel.org's source), NVIDIA's run file; compiled on amd64."""
    lockfile, both = samples.vendor_lock("source", os="flatcar", toolchain="debian-12-source"), samples.both_arches()
    named = (samples.changed(k, kernel="6.1.176-flatcar", releases=(samples.flatcar_release(),)) for k in lockfile.kernels)
    kernels = tuple(samples.of_arch(kernel, "arm64") for kernel in named)
    drivers = tuple(samples.of_arch(driver, "arm64") for driver in lockfile.drivers)
    toolchains = (*both.toolchains, samples.cross_source())
    return a_plan(samples.changed(both, toolchains=toolchains, kernels=kernels, drivers=drivers))


def arm64_fedora() -> Toolchain:
    """Fedora's toolchain on an arm64 machine."""
    return samples.of_arch(samples.fedora(), "arm64")  # type: ignore[no-any-return]


GOLDENS: dict[str, Callable[[], Rendered]] = {
    "toolchain": lambda: everything(a_plan())[0],
    "base": lambda: everything(a_plan())[1],
    "userspace": lambda: everything(a_plan())[2],
    "image-two-kinds": lambda: first(a_plan()).rendered,
    "image-proprietary": lambda: first(a_plan(proprietary_only())).rendered,
    "image-patched": lambda: a_plan(rules=PATCHED).pairs[1].rendered,
    "image-rpms": lambda: vendors("rpms").rendered,
    "image-developer-container": lambda: vendors("developer-container").rendered,
    "image-source": lambda: vendors("source").rendered,
    "toolchain-image": lambda: a_plan(samples.vendor_lock("rpms")).renderer.toolchain(samples.fedora()),
    "toolchain-image-arm64": lambda: a_plan(samples.vendor_lock("rpms")).renderer.toolchain(arm64_fedora()),
    "userspace-run": lambda: a_plan(samples.vendor_lock("rpms")).renderer.userspace(samples.run_driver()),
    "userspace-gpus": lambda: a_plan(samples.a_lock(drivers=(with_readme(),))).renderer.userspace(with_readme()),
    "toolchain-cross": lambda: arm64().renderer.toolchain(samples.cross()),
    "toolchain-source-cross": lambda: arm64_run().renderer.toolchain(samples.cross_source()),
    "base-arm64": lambda: arm64().renderer.base(arm64().lock.bases[1]),
    "userspace-arm64": lambda: arm64().renderer.userspace(arm64().lock.drivers[1]),
    "userspace-run-arm64": lambda: arm64_run().renderer.userspace(arm64_run().lock.drivers[0]),
    "image-arm64": lambda: arm64().pairs[1].rendered,
    "image-source-arm64": lambda: arm64_run().pairs[0].rendered,
    "image-one-module": lambda: first(a_plan(text='[build]\nmodules = ["nvidia"]\nkinds = ["open"]\n')).rendered,
}


@pytest.mark.parametrize("name", GOLDENS)
def test_a_dockerfile_is_what_its_golden_file_says(name: str) -> None:
    text, path = GOLDENS[name]().text, GOLDEN / f"{name}.Dockerfile"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text)
    assert path.is_file(), f"{path} is not there; UPDATE_GOLDEN=1 writes it"
    assert text == path.read_text()


def test_a_vendors_image_has_a_name_of_its_own_for_each_architecture() -> None:
    """By an index's digest both come from one place, and the engine keeps both."""
    own = samples.fedora()
    other = samples.changed(arm64_fedora(), image=own.image)
    assert other.from_tag == f"{own.from_tag}-arm64"


def test_there_is_no_golden_file_that_nothing_is_compared_with() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{name}.Dockerfile" for name in GOLDENS}


def test_every_template_has_a_golden_file() -> None:
    made_from = {(GOLDEN / f"{name}.Dockerfile").read_text().split("dockerfiles/")[1].split()[0] for name in GOLDENS}
    without = {path.name for path in render.TEMPLATES.glob("*.Dockerfile.j2")} - made_from
    assert not without, "add what renders it to GOLDENS in this file, then run it with UPDATE_GOLDEN=1"


def test_the_header_says_what_made_the_file_and_that_edits_are_not_built() -> None:
    for rendered in everything(a_plan()):
        line = rendered.text.splitlines()[0]
        found = re.fullmatch(
            r"# Made by 'doit render' from dockerfiles/(\S+) and versions\.lock\. A file edited by hand is never built\.", line
        )
        assert found, line
        assert (render.TEMPLATES / found[1]).is_file()


@pytest.mark.parametrize("template", ["toolchain-debian", "base", "userspace", "image-debian"])
def test_a_template_that_uses_an_unknown_value_is_an_error_of_one_line(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(render.TEMPLATES, tmp_path / "dockerfiles")
    with (copy / f"{template}.Dockerfile.j2").open("a") as stream:
        stream.write("# {{ no_such_value }}\n")
    monkeypatch.setattr(render, "TEMPLATES", copy)
    with pytest.raises(BadFileError) as caught:
        everything(a_plan())
    assert f"dockerfiles/{template}.Dockerfile.j2: 'no_such_value' is undefined" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_same_lock_gives_the_same_text_whatever_the_day_and_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [rendered.text for rendered in everything(a_plan())]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    assert [rendered.text for rendered in everything(a_plan())] == before


# What decides the content is in the text; what does not decide it is not.

DECIDING: dict[str, Callable[[], Plan]] = {
    "the kernel's release": lambda: a_plan(samples.a_lock(kernels=(samples.kernel("6.1.0-48-cloud-amd64"),))),
    "the kernel's date": lambda: a_plan(samples.a_lock(kernels=(samples.kernel(date="2026-11-21T08:00:00Z"),))),
    "one header more": lambda: a_plan(
        samples.a_lock(
            kernels=(samples.kernel(headers=(*samples.kernel().headers, samples.package("linux-kbuild-6.1", "6.1.1-1"))),)
        )
    ),
    "the driver's version": lambda: a_plan(
        samples.a_lock(drivers=(samples.driver("535.309.01"),), kernels=(samples.kernel(drivers=("535.309.01",)),))
    ),
    "the driver's date": lambda: a_plan(samples.a_lock(drivers=(samples.driver(date="2026-11-21T08:00:00Z"),))),
    "the kinds that the driver has": lambda: a_plan(proprietary_only()),
    "the order in which kinds are required": lambda: a_plan(samples.a_lock(drivers=(samples.driver(required=("open",)),))),
    "the kinds that people want": lambda: a_plan(text='[build]\nkinds = ["proprietary"]\n'),
    "the modules that people want": lambda: a_plan(text='[build]\nmodules = ["nvidia"]\n'),
    "a patch": lambda: a_plan(rules=PATCHED.replace(">=6.1.176", ">=6.1")),
    "a package of the toolchain": lambda: a_plan(
        samples.a_lock(
            toolchains=(samples.changed(samples.a_lock().toolchains[0], packages=(samples.package("gcc-13"),)),),
        )
    ),
    "a package of the base": lambda: a_plan(
        samples.a_lock(bases=(samples.changed(samples.a_lock().bases[0], packages=(samples.package("busybox", "2"),)),))
    ),
    "SOURCE_DATE_EPOCH": lambda: a_plan(epoch=1),
    "the host program": lambda: with_program(b"changed"),
}


def with_program(data: bytes) -> Plan:
    plan = a_plan()
    sha256 = hashlib.sha256(data).hexdigest()
    vars(plan.renderer)["program"] = (LocalFile("usr/bin/nvidia-driver", Path("nvidia-driver"), sha256, 0o755),)
    return plan


@pytest.mark.parametrize("what", DECIDING)
def test_an_image_has_another_recipe_when_what_decides_its_content_changes(what: str) -> None:
    assert first(DECIDING[what]()).recipe != first(a_plan()).recipe


def all_files(the_lock: Lock) -> list[File]:
    return [file for file in the_lock.files() if file not in the_lock.kernels[0].image]


def test_the_sha256_of_any_file_that_enters_an_image_is_in_a_text_and_changes_the_images_recipe() -> None:
    plain = samples.a_lock(kernels=(samples.kernel(),))
    before, recipe = everything(a_plan(plain)), first(a_plan(plain)).recipe
    for file in all_files(plain):
        sha256 = hashlib.sha256(file.sha256.encode()).hexdigest()
        assert any(file.sha256 in rendered.text for rendered in before), file
        other = a_plan(lockfile.parse(lockfile.dump(plain).replace(file.sha256.encode(), sha256.encode())))
        assert any(sha256 in rendered.text for rendered in everything(other)), file
        assert first(other).recipe != recipe, file


def test_where_a_file_comes_from_and_what_only_proof_and_tags_use_leave_the_recipe_alone() -> None:
    def moved(file: File) -> File:
        name = file.file_name
        return samples.changed(file, archive="attic", path=f"old/{name}", size=7, trust="vendor-sum")  # type: ignore[no-any-return]

    kernel = samples.kernel()
    elsewhere = samples.changed(
        kernel,
        headers=tuple(map(moved, kernel.headers)),
        image=(samples.package("linux-image-other"),),
        version="6.1.171",
        releases=(samples.changed(kernel.releases[0], channel="attic", version="1"),),
        stale=True,
    )
    one, other = (first(a_plan(samples.a_lock(kernels=(k,)))) for k in (kernel, elsewhere))
    assert one.recipe == other.recipe


def test_what_lies_below_is_named_by_its_recipe_so_that_a_change_there_reaches_every_text_above() -> None:
    toolchain, base, userspace, image, _ = everything(a_plan())
    for above, below in ((base, toolchain), (userspace, toolchain), (userspace, base), (image, toolchain), (image, userspace)):
        assert f"FROM {below.tag}" in above.text
        assert below.tag.endswith(f":{below.recipe[:16]}")


# Nothing is asked or fetched while an image is built.

NETWORK = {"curl", "wget", "apt", "apt-get", "aptitude", "pip", "pip3", "git", "npm", "ssh", "scp", "rsync", "nc"}


def steps(text: str) -> Iterator[tuple[str, str]]:
    """(instruction, the rest) of each step, lines that go on joined."""
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for line in re.sub(r"\\\n", " ", plain).splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, rest


@pytest.mark.parametrize("name", GOLDENS)
def test_nothing_is_evaluated_inline_and_no_step_reaches_for_a_network(name: str) -> None:
    text = GOLDENS[name]().text
    assert not re.search(r"\$\(|`|<\(", text), "what a command prints would decide the content, and the cache would not know"
    for word, rest in steps(text):
        assert word in {"FROM", "COPY", "ADD", "RUN", "ENV", "ARG", "LABEL", "ENTRYPOINT", "CMD"}, word
        if word == "RUN":
            commands = re.sub(r"for applet in [^;]*;", "", rest)
            assert NETWORK.isdisjoint(re.findall(r"[A-Za-z0-9_.-]+", commands)), rest
            assert not rest.startswith("--"), "no mount, no network, no way around the classic builder"
        if word == "ADD":
            assert rest in {"root.tar /", "headers.tar /", "modules.tar /in/", "userspace.tar /", "gpus.tar /"}, (
                "a tar of ours, made of pinned files"
            )
        if word == "ARG":
            assert rest == "JOBS=2", "an argument is a value that the text does not hold; this one decides nothing"


@pytest.mark.parametrize("name", GOLDENS)
def test_an_image_is_from_nothing_but_images_named_by_recipe(name: str) -> None:
    stages = {"scratch"}
    for word, rest in steps(GOLDENS[name]().text):
        if word == "FROM":
            source, _, stage = rest.partition(" AS ")
            assert source in stages or re.fullmatch(r"driver-[a-z]+:[0-9a-f]{16}(-arm64)?", source), source
            stages.add(stage)


@pytest.mark.parametrize("name", GOLDENS)
def test_every_file_of_a_context_is_checked_before_anything_is_done_with_it(name: str) -> None:
    rendered = GOLDENS[name]()
    for _, file in rendered.files:
        assert f"{file.sha256}  {file.file_name}'" in rendered.text, file.name
    for _, part in rendered.local:
        assert f"{part.sha256}  {part.path}" in rendered.text, part.path


# What people and upstreams write cannot become another command.

ODD = ["\n", "'", '"', " x", "$(id)", "`id`", "\\", ";id", "${x}"]


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*at, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, (*at, number))
    elif isinstance(value, str):
        yield at


@pytest.mark.parametrize("odd", ODD)
def test_no_text_of_the_lock_may_hold_what_a_shell_or_a_dockerfile_would_take_for_more(odd: str) -> None:
    data = lockfile.dump(samples.a_lock())
    places = list(leaves(json.loads(data)))
    assert len(places) > 50
    for at in places:
        document = json.loads(data)
        holder = reduce(lambda value, key: value[key], at[:-1], document)
        holder[at[-1]] += odd
        with pytest.raises(BadFileError):
            lockfile.parse(json.dumps(document).encode())


@pytest.mark.parametrize("odd", ODD)
def test_an_address_whose_last_part_is_no_plain_file_name_is_refused(odd: str) -> None:
    from_url = samples.package("kernel-devel", archive=None, path=None, urls=(f"https://example.com/a{odd}.rpm",))
    with pytest.raises(BadFileError):
        lockfile.parse(lockfile.dump(samples.a_lock(kernels=(samples.kernel(headers=(from_url,)),))))


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("wish", ['[build]\nmodules = ["nvidia{}"]\n', '[settings]\nsource_url = "https://example.com/x{}"\n'])
def test_no_wish_that_reaches_a_text_may_hold_it_either(wish: str, odd: str) -> None:
    with pytest.raises(BadFileError):
        versions_toml.parse(wish.format(odd.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')))
