"""One measurement: a kind of a driver's modules compiled, proved and booted, by the pipeline's own functions.

What an image of the pair would need beyond that (userspace, layers, a registry) is left out.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pipeline.build import contexts
from pipeline.build.assemble import Layer
from pipeline.build.pair import MODULES, PROBES, unpack_layer
from pipeline.build.shared_layers import Workshop
from pipeline.config.records import Kind
from pipeline.core.errors import PairFailed
from pipeline.core.lazy import lazy
from pipeline.formats.unpacking import from_tar, to_directory
from pipeline.plan.pairs import Pair
from pipeline.plan.render import asking, build_order
from pipeline.proof import boot, kernel_files, static

from .results import Given, Outcome, Row

KEEP: Final = 8
"""Stages of so many measurements stay in the engine: the next driver of the same kernel may find its headers there."""


class _Failed(Exception):
    def __init__(self, step: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.step, self.reason = step, reason


@dataclass(frozen=True)
class Bench:
    """What measures. ``scratch``: a directory on the disk of the build."""

    shop: Workshop
    scratch: Path

    @lazy
    def base(self) -> Path:
        """The image's runtime base, unpacked: its shell and insmod are the first program of the virtual machine."""
        shop = self.shop
        lock = shop.renderer.lock
        base = lock.base(lock.kernels[0].arch)
        rendered = shop.renderer.base(base)
        shop.toolchain(lock.unpacker(base.arch))
        layer: Layer = shop.layer(rendered, f"base:{base.arch}", shop.renderer.epoch(base.date), "unpack")
        place = self.scratch / f"base-{rendered.recipe[:16]}"
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=self.scratch, prefix=".base.") as directory:
                half = Path(directory) / "base"
                unpack_layer(shop, layer, half)
                half.rename(place)
        return place

    def measure(self, pair: Pair, given: Given) -> Row:
        """Compile, prove and boot one kind of ``pair``.

        Raises PipelineError of status 2 where network, engine or disk did not do their part: that says nothing of it.
        """
        base = self.base
        begun, start = time.time(), time.monotonic()
        outcome: Outcome = "loads"
        reason = ""
        try:
            self._try(pair, given, base)
        except _Failed as error:
            outcome, reason = error.step, error.reason
        finally:
            self.shop.engine.keep_newest(MODULES, KEEP)
            self.shop.engine.forget_unnamed(begun)
        return Row(
            given=given,
            outcome=outcome,
            reason=reason,
            seconds=round(time.monotonic() - start, 1),
            measured=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )

    def _try(self, pair: Pair, given: Given, base: Path) -> None:
        kind, kernel = given.kind, pair.kernel
        self.shop.toolchain(self.shop.renderer.lock.toolchain(kernel))
        with tempfile.TemporaryDirectory(dir=self.scratch, prefix=".measure.") as directory:
            root = Path(directory)
            with self.shop.progress.step(f"{pair.id} {kind}", "build", f"compiled {kind} modules"):
                made, tag = self._compile(pair, kind)
            place = self._modules(made, tag, kind, root)
            own = kernel_files.gather(kernel, self.shop.inputs, root)
            try:
                with self.shop.progress.step(f"{pair.id} {kind}", "proof", "proved symbols"):
                    static.prove_modules(
                        place,
                        kernel=kernel.kernel,
                        driver=pair.driver.version,
                        kind=kind,
                        arch=kernel.arch,
                        expected=[f"{name}.ko" for name in given.modules],
                        symvers=own.symvers,
                        modversions=own.modversions,
                    )
            except PairFailed as error:
                raise _Failed("proof", error.message) from error
            try:
                with self.shop.progress.step(f"{pair.id} {kind}", "proof", "booted"):
                    modules: dict[str, Path] = {kind: place / "nvidia.ko"}
                    boot.boot(own.vmlinuz, modules, base=base, kernel_modules=own.modules, arch=kernel.arch)
            except PairFailed as error:
                raise _Failed("boot", error.message) from error

    def _compile(self, pair: Pair, kind: Kind) -> tuple[Pair, str]:
        """What was compiled, and the name of its stage in the engine.

        The probes are asked for one kind; where even that fails for another kind than this one, this one asks its own.
        """
        made = alone(pair, kind)
        try:
            return made, self._stages(made, kind)
        except PairFailed as error:
            if asking(made.driver, made.kinds, made.patches) == kind:
                raise _Failed("compile", error.message) from error
        made = only(pair, kind)
        try:
            return made, self._stages(made, kind)
        except PairFailed as error:
            raise _Failed("compile", error.message) from error

    def _stages(self, made: Pair, kind: Kind) -> str:
        shop = self.shop
        contexts.write(made.rendered, shop.docker, lambda text: shop.progress.note(made.id, text))
        context = contexts.lay(made.rendered, shop.docker, shop.inputs)
        for stage in (PROBES, kind):
            tag = f"{MODULES}:{made.recipe[:16]}-{stage}"
            shop.build(made.rendered, context, made.id, stage, tag)
        return tag

    def _modules(self, made: Pair, tag: str, kind: Kind, root: Path) -> Path:
        archive = root / "out.tar"
        self.shop.engine.export(tag, "/out", archive)
        with archive.open("rb") as tar:
            found = (entry for entry in from_tar(tar, "the engine's export") if entry.kind in ("file", "directory"))
            to_directory(found, root / "image", "the engine's export")  # without links: they point into a host
        return root / "image/out" / made.renderer.directory(made.kernel, kind, made.best_kind).lstrip("/")


def alone(pair: Pair, kind: Kind) -> Pair:
    """``pair`` so that no other kind is compiled before ``kind``: Docker's classic builder makes every stage on the way."""
    return pair if build_order(pair.driver, pair.kinds)[0] == kind else only(pair, kind)


def only(pair: Pair, kind: Kind) -> Pair:
    """``pair`` with one kind."""
    if pair.kinds == (kind,):
        return pair
    return replace(pair, id=f"{pair.id}-{kind}", kinds=(kind,), required=(kind,), patches={kind: pair.patches[kind]})
