"""What images share: toolchains in the engine, the base layer and each driver's userspace layer.

Each is made once, by one route: from the pinned packages alone. Layers are taken from this machine's store, else from
the registry, else built; and they are pushed under their own recipe tags, so that every runner finds them.
"""

from __future__ import annotations

import json
import os
import tarfile
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..config.records import Driver, Toolchain
from ..core import tags
from ..core.errors import IntegrityError, PairFailed, RegistryError
from ..core.lazy import Locks, lazy
from ..core.progress import Progress
from ..core.text import counted
from ..engine.client import Engine
from ..fetch.store import Inputs
from ..formats import layers
from ..plan.dockerfile import Rendered
from ..plan.render import Renderer
from ..proof import boot, static
from ..registry.client import Registry
from . import contexts
from .assemble import MANIFEST_TYPE, Image, Layer, Store, assemble, exported

MAX_LOG: Final = 64 << 20
"""Letters of one log; what a step says beyond them is not kept."""
MAX_SPEAKING: Final = 1 << 30
"""Bytes of a userspace that are held in memory at once, for what they say of their version. An honest one has 200 MB."""
_NOT_OURS: Final = "no driver has so much: delete that image in the registry and its layer below build/layers, and run again"


@dataclass
class Workshop:
    """Everything a build needs, opened at first use; one for a run, shared by its threads."""

    root: Path
    renderer: Renderer
    registry: Registry
    inputs: Inputs
    store: Store
    progress: Progress
    open_engine: Callable[[], Engine]
    at_once: int = 1
    """How many pairs are built at once: they share the engine's processors."""
    mirror: Callable[[str], str] = str
    """Where the closed network keeps a vendor's image, by its name."""

    def __post_init__(self) -> None:
        self._locks = Locks()
        self._layers: dict[str, Layer] = {}
        self._ready: set[str] = set()
        self._proved: set[tuple[str, str]] = set()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.proving = threading.Semaphore(boot.at_once(len(os.sched_getaffinity(0)), memory))
        """Held for a proof: kernel and image unpacked, modules in memory, a virtual machine. More pairs at once wait here."""
        self.in_use: set[str] = set()
        """The engine's names of what pairs at work have compiled and not yet pushed."""

    @lazy
    def engine(self) -> Engine:
        """The container engine."""
        return self.open_engine()

    @property
    def jobs(self) -> int:
        """Processes for one make. The same for a whole run: the engine's cache tells builds by it apart."""
        return max(1, -(-self.engine.cpus // self.at_once))

    @property
    def docker(self) -> Path:
        """Where build contexts lie."""
        return self.root / contexts.DOCKER

    def log(self, name: str) -> Path:
        """The log file of one thing that is built."""
        place = self.root / "build" / "log" / log_name(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def toolchain(self, toolchain: Toolchain) -> str:
        """The engine's name of a toolchain; it is built where the engine lacks it."""
        rendered = self.renderer.toolchain(toolchain)
        with self._locks[rendered.recipe]:
            if rendered.recipe in self._ready:
                return rendered.tag
            if not self.engine.has(rendered.tag, rendered.recipe):
                name = f"toolchain:{toolchain.name}/{toolchain.arch}"
                contexts.write(rendered, self.docker, lambda text: self.progress.note(name, text))
                with self.progress.step(name, "fetch", f"fetched {counted(len(rendered.files), 'package')}"):
                    context = contexts.lay(rendered, self.docker, self.inputs)
                    if toolchain.image is None:
                        contexts.root_tar(toolchain, context, self.inputs)
                if toolchain.image is not None:
                    image = toolchain.image
                    with self.progress.step(name, "fetch", f"pulled {image.name}:{image.tag}"):
                        self.engine.pull(self.mirror(image.name), image.digest, toolchain.from_tag, toolchain.arch)
                with self.progress.step(name, "build", "built"):
                    self.build(rendered, context, name)
                contexts.clear(rendered, self.docker)
            self._ready.add(rendered.recipe)
        return rendered.tag

    def build(self, rendered: Rendered, context: Path, name: str, target: str = "", tag: str = "") -> None:
        """Build one context into the engine. Raises PairFailed with the first error of the log where a step fails."""
        path = self.log(f"{name}-{target}" if target else name)
        with path.open("w", encoding="utf-8", errors="replace") as log:
            room = MAX_LOG

            def note(line: str) -> None:
                nonlocal room
                room -= len(line)
                if room > 0:  # a compiler that never stops complaining would fill the disk
                    print(line, file=log)

            try:
                self.engine.build(
                    context,
                    tag=tag or rendered.tag,
                    target=target,
                    log=note,
                    labels={tags.RECIPE_LABEL: rendered.recipe},
                    args={"JOBS": str(self.jobs)},
                )
            except PairFailed as error:
                log.flush()
                raise PairFailed(first_error(path.read_text(errors="replace").splitlines()) or error.message) from error

    def layer(self, rendered: Rendered, name: str, epoch: int, target: str) -> Layer:
        """The layer that stage ``target`` of ``rendered`` makes in ``/out``: out of the store, or built."""
        if found := self.store.find(rendered.recipe):
            return found
        contexts.write(rendered, self.docker, lambda text: self.progress.note(name, text))
        with self.progress.step(name, "fetch", f"fetched {counted(len(rendered.files), 'package')}"):
            context = contexts.lay(rendered, self.docker, self.inputs)
        with self.progress.step(name, "build", "built"):
            self.build(rendered, context, name, target, f"{rendered.tag}-{target}")
        with self.progress.step(name, "assemble", "assembled") as values:
            layer = self.export(f"{rendered.tag}-{target}", epoch)
            values["bytes"] = layer.size
        contexts.clear(rendered, self.docker, trees_too=True)
        return self.store.remember(rendered.recipe, layer)

    def export(self, tag: str, epoch: int) -> Layer:
        """``/out`` of an image in the engine as a layer in the store."""
        scratch = self.root / "build"
        with tempfile.TemporaryDirectory(dir=scratch, prefix=".export.") as directory:
            archive = Path(directory) / "out.tar"
            self.engine.export(tag, "/out", archive)
            with tarfile.open(archive) as tar:
                return self.store.add(exported(tar, "out"), epoch)

    def base(self, arch: str) -> Layer:
        """The runtime base's layer."""
        base = self.renderer.lock.base(arch)
        rendered = self.renderer.base(base)
        epoch = self.renderer.epoch(base.date)

        def build() -> Layer:
            self.toolchain(self.renderer.lock.unpacker(arch))
            return self.layer(rendered, f"base:{arch}", epoch, "unpack")

        return self._shared(rendered, tags.of_base(rendered.recipe), arch, epoch, [], build, f"base of {arch}")

    def userspace(self, driver: Driver) -> Layer:
        """The layer of one driver's userspace and firmware."""
        rendered = self.renderer.userspace(driver)
        base = self.base(driver.arch)
        epoch = self.renderer.epoch(driver.date, self.renderer.lock.base(driver.arch).date)
        name = f"driver:{driver.version}/{driver.arch}"

        def build() -> Layer:
            self.toolchain(self.renderer.lock.unpacker(driver.arch))
            self._in_engine(driver.arch)
            layer = self.layer(rendered, name, epoch, "unpack")
            self.prove_userspace(layer, driver)
            return layer

        tag = tags.of_userspace(driver.version, rendered.recipe)
        return self._shared(rendered, tag, driver.arch, epoch, [base], build, f"userspace of {driver.version}")

    def prove_userspace(self, layer: Layer, driver: Driver) -> None:
        """Step 3 of the proof, on the layer as it is; once a run for each layer, which its digest names."""
        with self._locks["userspace"]:  # one at a time: it holds libraries and firmware in memory, a hundred MB and more
            if (layer.digest, driver.version) not in self._proved:
                self._prove_userspace(layer, driver)
                self._proved.add((layer.digest, driver.version))

    def _prove_userspace(self, layer: Layer, driver: Driver) -> None:
        kept: dict[str, bytes] = {}
        names: list[str] = []
        room = MAX_SPEAKING
        what, limit = f"layer {layer.digest[:19]}", self.inputs.max_unpacked
        for entry in layers.entries(self.store.blob(layer.digest), what, limit):
            names.append(entry.name)
            if entry.data is not None and entry.name.rpartition("/")[2].startswith(static.SPEAKING):
                if (room := room - entry.size) < 0:
                    raise IntegrityError(f"{what} has no room for '{entry.name}' of {entry.size} bytes", hint=_NOT_OURS)
                kept[entry.name] = entry.data.read()
        static.prove_userspace(names, driver=driver.version, read=lambda name: kept.get(name, b""))

    def local(self, layer: Layer) -> Layer:
        """``layer`` with its blob in the store; fetched from the registry where it lies only there."""
        path = self.store.blob(layer.digest)
        with self._locks[layer.digest]:
            if not path.exists() or path.stat().st_size != layer.size:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.registry.download_blob(layer.digest, layer.size, path)
        return layer

    def push_image(self, image: Image, refs: Sequence[str], *, shared: bool = False) -> None:
        """Blobs the registry lacks, then the configuration, then the manifest under ``refs``, read back as it is told to."""
        for layer in image.layers:
            if not self.registry.has_blob(layer.digest):
                self.registry.push_blob(self.store.blob(self.local(layer).digest), layer.digest, layer.size)
        config = json.loads(image.manifest)["config"]
        self.registry.push_blob(image.config, config["digest"], config["size"])
        self.registry.push_manifest(image.manifest, MANIFEST_TYPE, refs, shared=shared)

    def _shared(
        self,
        rendered: Rendered,
        tag: str,
        arch: str,
        epoch: int,
        below: Sequence[Layer],
        build: Callable[[], Layer],
        title: str,
    ) -> Layer:
        with self._locks[rendered.recipe]:
            if found := self._layers.get(rendered.recipe):
                return found
            layer = self.store.find(rendered.recipe)
            published = self._published(tag)
            if layer is None:  # one of the registry is noted too: by its recipe what is downloaded is known to be needed
                layer = self.store.remember(rendered.recipe, published) if published else build()
            if published is None:
                labels = {"org.opencontainers.image.title": title, tags.RECIPE_LABEL: f"sha256:{rendered.recipe}"}
                names = ["runtime base", *(["userspace"] if below else [])]
                image = assemble([*below, layer], arch=arch, epoch=epoch, labels=labels, names=names, program=False)
                with self.progress.step(tag, "push", f"pushed {layer.size / 1e6:.0f} MB"):
                    self.push_image(image, [tag])
            self._layers[rendered.recipe] = layer
            return layer

    def _published(self, tag: str) -> Layer | None:
        """The last layer of an image that the registry has under ``tag``."""
        manifest = self.registry.manifest(tag)
        if manifest is None:
            return None
        try:
            document = json.loads(manifest.data)
            last = document["layers"][-1]
            config = json.loads(self.registry.blob(document["config"]["digest"]))
            return Layer(last["digest"], last["size"], config["rootfs"]["diff_ids"][-1], 0)
        except (ValueError, LookupError, TypeError) as error:
            raise RegistryError(f"{self.registry.reference(tag)} is not an image of ours", hint="delete that tag") from error

    def _in_engine(self, arch: str) -> None:
        """The base as an image the engine knows: the userspace's Dockerfile is FROM it."""
        rendered = self.renderer.base(self.renderer.lock.base(arch))
        if not self.engine.has(rendered.tag, rendered.recipe):
            contexts.write(rendered, self.docker, lambda text: self.progress.note(f"base:{arch}", text))
            context = contexts.lay(rendered, self.docker, self.inputs)
            self.build(rendered, context, f"base:{arch}")
            contexts.clear(rendered, self.docker)


def log_name(name: str) -> str:
    """The name of a log's file below ``build/log``."""
    return f"{name.replace('/', '_').replace(':', '_')}.log"


_DOCKERS = ("Step ", " ---> ", "The command ", "Removing intermediate ")


def first_error(lines: Sequence[str]) -> str:
    """The compiler's own first error in a log, else make's, else the last thing that was said."""
    for marker in (" error: ", "ERROR: modpost:", "ERROR:", "FAILED", "No space left on device", "*** "):
        for line in lines:
            if marker in line and "conftest" not in line and not line.startswith(_DOCKERS):
                return line.strip()
    own = [line.strip() for line in lines if line.strip() and not line.startswith(_DOCKERS)]
    return own[-1] if own else ""
