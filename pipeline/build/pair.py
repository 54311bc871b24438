"""One pair from pinned files to a proved image in the registry.

Fetch, compile each kind in the engine, assemble the layers, prove the files as they are in those layers, push. A pair
that cannot be compiled or proved is an outcome, pushed as ``failed-<recipe>``; only what the system could not do raises.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..config.records import Kind
from ..core.background import aside
from ..core.errors import PairFailed, PipelineError
from ..core.tags import OUTCOME_LABEL, REASON_LABEL, RECIPE_LABEL, label
from ..core.text import counted
from ..formats.layers import unpack
from ..outcomes import index as indexes
from ..outcomes.index import Bytes, Entry, Missing, Seconds, entry_of
from ..plan.pairs import Pair
from ..plan.render import build_order
from ..proof import boot, kernel_files, static
from ..registry.client import Manifest
from . import contexts, image_names
from .assemble import MANIFEST_TYPE, Image, Layer, assemble, exported, merged, tree
from .shared_layers import Workshop

MODULES: Final = "driver-modules"
"""The engine's name for what was compiled: the stages of a pair's Dockerfile. Gigabytes a pair, of use until it is pushed."""
PROBES: Final = "probes"
"""The stage that asks NVIDIA's probes. Named, so that it can be removed: all else that hangs on no name stays for ever."""
KEEP: Final = 24
"""How many of these names the engine keeps, newest first: those of eight pairs, for a run that was ended before a push.
Those of pairs at work come on top."""


@dataclass
class _Work:
    """What one pair's build has found out so far."""

    pair: Pair
    seconds: dict[str, float] = field(default_factory=lambda: {"build": 0.0, "proof": 0.0})
    missing: list[Missing] = field(default_factory=list)
    passing: list[Layer] = field(default_factory=list)
    proof: dict[str, Any] = field(default_factory=dict)


def build(pair: Pair, shop: Workshop) -> Entry:
    """Build, prove and push ``pair``; its outcome.

    Raises PipelineError of status 2 where network, engine, registry or disk did not do their part: that says nothing
    about the pair, which stays to be built.
    """
    work = _Work(pair)
    names_in_use = {_modules_tag(pair, stage) for stage in (PROBES, *pair.kinds)}
    shop.in_use |= names_in_use
    try:
        return _built(work, shop)
    except PairFailed as error:
        return _failed(work, error, shop)
    finally:  # a run over thousands of pairs takes no more room than those at work
        shop.in_use -= names_in_use
        for layer in work.passing:
            shop.store.drop(layer)
        contexts.clear(pair.rendered, shop.docker)


def _built(work: _Work, shop: Workshop) -> Entry:
    pair = work.pair
    image, kernel_layer = _make(work, shop)
    with shop.progress.step(pair.id, "push", f"pushed {kernel_layer.size / 1e6:.1f} MB of its own") as values:
        values["bytes"] = kernel_layer.size
        shop.push_image(image, [pair.recipe_tag])
        publish(pair, image.digest, image.manifest, shop)
    entry = entry_of(
        pair,
        "built",
        kinds=tuple(kind for kind in pair.kinds if kind not in {m.kind for m in work.missing}),
        missing=(*indexes.left_out(pair), *work.missing),
        tags=pair.tags,
        digest=image.digest,
        bytes=Bytes(image.size, kernel_layer.size),
        seconds=Seconds(round(work.seconds["build"], 1), round(work.seconds["proof"], 1)),
        built=_now(),
        proof=work.proof,
    )
    shop.progress.event("outcome", pair.id, f"built {image.digest[:19]}", outcome="built", bytes=image.size)
    return entry


def _modules_tag(pair: Pair, stage: str) -> str:
    return f"{MODULES}:{pair.recipe[:16]}-{stage}"


def publish(pair: Pair, digest: str, manifest: bytes, shop: Workshop) -> None:
    """Point the pair's own names at ``digest``, together with what other architectures have under them (names.py)."""
    image = Manifest(manifest, MANIFEST_TYPE, digest)
    image_names.point(pair, image, shop.registry, lambda text: shop.progress.note(pair.id, text))


def _make(work: _Work, shop: Workshop) -> tuple[Image, Layer]:
    """The image of one pair, proved, and the layer that is its own.

    The driver's userspace, which all its pairs share, is made beside the first one's compiling: unpacking and compressing
    take one processor, and a compiler seldom has work for all of them.
    """
    pair = work.pair
    if why := kernel_files.unprovable(pair.kernel, shop.inputs):
        raise PairFailed(why)
    shop.toolchain(shop.renderer.lock.toolchain(pair.kernel))
    base = shop.base(pair.kernel.arch)
    userspace = aside(shop.userspace, pair.driver)
    try:
        kinds, layer = _compile(work, shop, userspace)
        return _proved(work, shop, kinds, {"base": base, "userspace": userspace.result(), "kernel": layer}), layer
    except (PipelineError, OSError):
        userspace.exception()  # it ends before this pair does: nothing of a run goes on behind its last line
        raise


def _compile(work: _Work, shop: Workshop, userspace: Future[Layer]) -> tuple[list[Kind], Layer]:
    """The kinds that compiled, in order of their making, and their layer.

    Raises what ``userspace`` met as soon as a step is at its end: without it all further ones would be for nothing.
    """
    pair = work.pair
    kernel, driver = pair.kernel, pair.driver
    contexts.write(pair.rendered, shop.docker, lambda text: shop.progress.note(pair.id, text))
    with shop.progress.step(pair.id, "fetch", f"fetched {counted(len(pair.rendered.files), 'input')}") as values:
        values["bytes"] = sum(file.size for _, file in pair.rendered.files)
        context = contexts.lay(pair.rendered, shop.docker, shop.inputs)
    kinds: list[Kind] = []
    exports: dict[Kind, str] = {}
    start = time.monotonic()
    try:
        with shop.progress.step(pair.id, "build", "asked the kernel's interfaces"):
            shop.build(pair.rendered, context, pair.id, PROBES, _modules_tag(pair, PROBES))
    finally:
        work.seconds["build"] += time.monotonic() - start
    for kind in build_order(driver, pair.kinds):
        if userspace.done():
            userspace.result()
        tag = _modules_tag(pair, kind)
        start = time.monotonic()
        try:
            with shop.progress.step(pair.id, "build", f"compiled {kind} modules"):
                shop.build(pair.rendered, context, pair.id, kind, tag)
        except PairFailed as failed:
            error = kernel_files.what_helps(kernel, failed)
            if kind in pair.required:
                raise error from failed
            work.missing.append(Missing(kind, error.message))
            shop.progress.note(pair.id, f"optional kind {kind} failed: {error.message}")
        else:
            kinds.append(kind)
            exports[kind] = tag
        finally:
            work.seconds["build"] += time.monotonic() - start
    with shop.progress.step(pair.id, "assemble", "assembled") as values:
        layer = _kernel_layer(pair, kinds, exports, shop.renderer.image_epoch(kernel, driver), shop)
        work.passing.append(layer)
        shop.engine.keep_newest(MODULES, KEEP, shop.in_use)
        values["bytes"] = layer.size
    return kinds, layer


def _proved(work: _Work, shop: Workshop, kinds: list[Kind], layers: Mapping[str, Layer]) -> Image:
    """The image of ``layers``, after its proof."""
    pair, renderer = work.pair, shop.renderer
    kernel, driver = pair.kernel, pair.driver
    epoch = renderer.image_epoch(kernel, driver)
    with shop.proving:
        start = time.monotonic()
        try:
            with shop.progress.step(pair.id, "proof", f"proved {' and '.join(kinds)} on the booted kernel"):
                work.proof |= prove(pair, kinds, layers, shop)
        finally:
            work.seconds["proof"] += time.monotonic() - start
    labels = renderer.labels(kernel, driver, kinds) | {
        RECIPE_LABEL: f"sha256:{pair.recipe}",
        "org.opencontainers.image.revision": pair.recipe,
    }
    kinds.sort()
    for kind, modules in work.proof["modules"].items():
        labels |= {label(f"srcversion.{kind}.{name}"): m["srcversion"] for name, m in modules.items()}
    image_names = ["runtime base", f"userspace {driver.version}", f"modules for {kernel.kernel}", "nvidia-driver"]
    program = shop.store.add(tree({f.path: (f.mode, f.source.read_bytes()) for f in renderer.program}), epoch)
    own = [layers["base"], layers["userspace"], layers["kernel"], program]
    return assemble(own, arch=kernel.arch, epoch=epoch, labels=labels, names=image_names, program=True)


def _kernel_layer(pair: Pair, kinds: list[Kind], exports: Mapping[Kind, str], epoch: int, shop: Workshop) -> Layer:
    """The modules of every kind that compiled, and the file that says what the image is, as one layer."""
    env = "\n".join(shop.renderer.image_env(pair.kernel, pair.driver, kinds)) + "\n"
    with tempfile.TemporaryDirectory(dir=shop.root / "build", prefix=".kinds.") as directory, ExitStack() as stack:
        streams = [tree({"opt/nvidia-driver/image.env": (0o644, env.encode())})]
        for kind in kinds:
            archive = Path(directory) / f"{kind}.tar"
            shop.engine.export(exports[kind], "/out", archive)
            streams.append(exported(stack.enter_context(tarfile.open(archive)), "out"))
        return shop.store.add(merged(streams), epoch, passing=True)


def prove(pair: Pair, kinds: list[Kind], layers: Mapping[str, Layer], shop: Workshop) -> dict[str, Any]:
    """All four steps of the proof, on the files as they are in the layers of the image."""
    kernel, driver = pair.kernel, pair.driver
    renderer = shop.renderer
    expected = [f"{name}.ko" for name in renderer.modules(driver)]
    best = pair.best_kind
    with tempfile.TemporaryDirectory(dir=shop.root / "build", prefix=".proof.") as directory:
        root = Path(directory)
        files, base = root / "image", root / "base"
        unpack_layer(shop, layers["kernel"], files)
        unpack_layer(shop, shop.local(layers["base"]), base)
        own = kernel_files.gather(kernel, shop.inputs, root)
        results: dict[str, Any] = {"modules": {}}
        directories = {kind: files / renderer.directory(kernel, kind, best).lstrip("/") for kind in kinds}
        for kind, place in directories.items():
            try:
                found = static.prove_modules(
                    place,
                    kernel=kernel.kernel,
                    driver=driver.version,
                    kind=kind,
                    arch=kernel.arch,
                    expected=expected,
                    symvers=own.symvers,
                    modversions=own.modversions,
                )
            except PairFailed as error:
                raise kernel_files.what_helps(kernel, error) from error
            results["modules"][kind] = found["modules"]
        shop.local(layers["userspace"])
        shop.prove_userspace(layers["userspace"], driver)
        booted = boot.boot(
            own.vmlinuz,
            {kind: place / "nvidia.ko" for kind, place in directories.items()},
            base=base,
            kernel_modules=own.modules,
            arch=kernel.arch,
            scratch=root,
        )
        results["boot"] = {"seconds": round(booted.seconds, 1), **dict(booted.lines)}
        return results


def unpack_layer(shop: Workshop, layer: Layer, destination: Path) -> None:
    """The files of a layer below ``destination``. Raises IntegrityError for one that no honest builder made."""
    blob = shop.store.blob(shop.local(layer).digest)
    unpack(blob, destination, f"layer {layer.digest[:19]}", shop.inputs.max_unpacked)


def _failed(work: _Work, error: PairFailed, shop: Workshop) -> Entry:
    """Record the failure where every runner finds it: a tiny image that holds the reason."""
    shop.engine.keep_newest(MODULES, KEEP, shop.in_use)
    pair = work.pair
    facts = {"pair": pair.id, "reason": error.message, "recipe": f"sha256:{pair.recipe}"}
    content = json.dumps(facts, sort_keys=True, indent=1).encode() + b"\n"
    epoch = shop.renderer.image_epoch(pair.kernel, pair.driver)
    layer = shop.store.add(tree({"reason.json": (0o644, content)}), epoch, passing=True)
    work.passing.append(layer)
    labels = {RECIPE_LABEL: f"sha256:{pair.recipe}", REASON_LABEL: error.message}
    labels |= {OUTCOME_LABEL: "failed", "org.opencontainers.image.title": "failed pair"}
    image = assemble([layer], arch=pair.kernel.arch, epoch=epoch, labels=labels, names=["reason"], program=False)
    shop.push_image(image, [pair.failed_tag])
    shop.progress.event("outcome", pair.id, f"failed: {error.message}", outcome="failed")
    return entry_of(
        pair,
        "failed",
        reason=error.message,
        digest=None,
        built=_now(),
        seconds=Seconds(round(work.seconds["build"], 1), round(work.seconds["proof"], 1)),
    )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
