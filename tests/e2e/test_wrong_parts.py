"""Parts that do not belong together are refused, with the words that say why: real modules, real kernels, real libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.workspace import Workspace
from pipeline.config.records import Kind
from pipeline.core.errors import PairFailed
from pipeline.plan.pairs import Pair
from pipeline.proof import boot, kernel_files, static
from pipeline.proof.kernel_files import KernelFiles
from tests.checkout import DRIVER, KERNEL, KINDS, LATER, OTHER, layers, unpacked
from tests.support.pairs import Whole

pytestmark = [pytest.mark.e2e, pytest.mark.full, pytest.mark.area("thread")]


@pytest.fixture(scope="module")
def space(whole: Whole) -> Workspace:
    return whole.checkout.space()


@pytest.fixture(scope="module")
def pair(space: Workspace) -> Pair:
    return space.plan.select([f"image:debian/amd64:{KERNEL}-{DRIVER}"])[0]


def layers_of(space: Workspace, tag: str) -> list[Any]:
    held = space.registry.manifest(tag)
    assert held is not None
    manifest = json.loads(held.data)
    return layers(manifest, json.loads(space.registry.blob(manifest["config"]["digest"])))


@pytest.fixture(scope="module")
def files(space: Workspace, pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel layer of KERNEL's image."""
    return unpacked(space, layers_of(space, pair.recipe_tag)[2], tmp_path_factory.mktemp("modules"))


@pytest.fixture(scope="module")
def other(space: Workspace, tmp_path_factory: pytest.TempPathFactory) -> KernelFiles:
    """What a proof needs of OTHER: its symbols, its image."""
    kernel = next(kernel for kernel in space.lock.kernels if kernel.kernel == OTHER)
    return kernel_files.gather(kernel, space.inputs, tmp_path_factory.mktemp("other"))


def prove(space: Workspace, pair: Pair, files: Path, kind: Kind, other: KernelFiles, kernel: str) -> Any:
    assert other.modversions
    return static.prove_modules(
        files / space.renderer.directory(pair.kernel, kind, pair.best_kind).lstrip("/"),
        kernel=kernel,
        driver=DRIVER,
        kind=kind,
        arch="amd64",
        expected=[f"{name}.ko" for name in space.renderer.modules(pair.driver)],
        symvers=other.symvers,
        modversions=other.modversions,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_modules_fail_the_static_proof_against_another_kernel(
    space: Workspace, pair: Pair, files: Path, other: KernelFiles, kind: Kind
) -> None:
    with pytest.raises(PairFailed, match=rf"{kind}: nvidia.*ko: vermagic is '{KERNEL} .*', the kernel is {OTHER}"):
        prove(space, pair, files, kind, other, OTHER)


def test_even_with_the_name_right_the_symbols_give_them_away(
    space: Workspace, pair: Pair, files: Path, other: KernelFiles
) -> None:
    with pytest.raises(PairFailed, match=r"open: nvidia.*ko: disagrees about version of symbol module_layout"):
        prove(space, pair, files, "open", other, KERNEL)


def test_the_other_kernel_itself_refuses_them_at_boot(
    space: Workspace, pair: Pair, files: Path, other: KernelFiles, tmp_path: Path
) -> None:
    base = unpacked(space, layers_of(space, pair.recipe_tag)[0], tmp_path / "base")
    module = files / space.renderer.directory(pair.kernel, "open", pair.best_kind).lstrip("/") / "nvidia.ko"
    with pytest.raises(PairFailed, match=r"boot proof: open nvidia.ko: .*disagrees about version of symbol module_layout"):
        boot.boot(
            other.vmlinuz,
            {"open": module},
            base=base,
            kernel_modules=other.modules,
            timeout=600,
        )


def test_the_userspace_that_apts_candidates_give_is_refused_beside_the_modules(space: Workspace, pair: Pair) -> None:
    later = space.shop.userspace(space.lock.driver(LATER, "amd64"))  # its modules are proprietary, so 'whole' may leave it out
    with pytest.raises(PairFailed, match=f"is {LATER}, the modules are {DRIVER}"):
        space.shop.prove_userspace(space.shop.local(later), pair.driver)
    space.shop.prove_userspace(space.shop.local(layers_of(space, pair.recipe_tag)[1]), pair.driver)
