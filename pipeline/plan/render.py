"""Templates to text: Dockerfiles in which every value that decides the content stands as text.

Offline and deterministic: lock and wishes in, text out. The recipe of a thing is the sha256 of its text; a text names
the recipes of what it is made ``FROM``, so a change anywhere below changes every recipe above it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import jinja2

from ..config.compat import PATCHES, Patch
from ..config.records import TRIPLES, Base, Driver, File, Form, Kernel, Kind, Lock, Toolchain
from ..config.versions_toml import Module, Wanted
from ..core.errors import BadFileError
from ..core.files import CHECKOUT
from ..core.lazy import lazy
from ..core.tags import label
from ..core.timestamps import date_of, epoch_of
from ..core.versions import DriverVersion
from ..trees.spec import LAYOUT, Tree, of_driver, of_kernel
from .applets import APPLETS
from .dockerfile import LocalFile, Rendered
from .skeleton import Hole, Looked, Skeleton, StandIn

TEMPLATES: Final = CHECKOUT / "dockerfiles"
IMAGE_TEMPLATES: Final[Mapping[Form, str]] = {
    "debs": "image-debian.Dockerfile.j2",
    "rpms": "image-rpms.Dockerfile.j2",
    "developer-container": "image-developer-container.Dockerfile.j2",
    "source": "image-source.Dockerfile.j2",
}
PROGRAM: Final = CHECKOUT / "image"
MADE_BY: Final = "Made by 'doit render' from dockerfiles/{} and versions.lock. A file edited by hand is never built."
MAKE_ARCH: Final = {"amd64": "x86_64", "arm64": "arm64"}
MACHINES: Final = {"amd64": "Advanced Micro Devices X86-64", "arm64": "AArch64"}
"""As readelf calls them (binutils/readelf.c, get_machine_name())."""
OPEN_FROM: Final = 560
"""From this branch on NVIDIA recommends the open kernel modules (design.md, "The image")."""
MODULES: Final[tuple[str, ...]] = get_args(Module)
"""What every driver from branch 470 on is made of."""


def recommended(driver: str, kinds: Sequence[Kind]) -> Kind:
    """The kind at ``/opt/lib/modules``: open from branch 560 on, proprietary before, where present; else the one there is."""
    first: Kind = "open" if int(DriverVersion(driver).branch) >= OPEN_FROM else "proprietary"
    return first if first in kinds else kinds[0]


def required_kinds(driver: Driver, kinds: Sequence[Kind]) -> tuple[Kind, ...]:
    """The kinds without which an image is not ``built``: what the lock requires, and the recommended one."""
    best = recommended(driver.version, kinds)
    return tuple(kind for kind in kinds if kind in driver.required or kind == best)


def build_order(driver: Driver, kinds: Sequence[Kind]) -> list[Kind]:
    """Required kinds first: Docker's classic builder makes every stage that stands before the wanted one."""
    required = required_kinds(driver, kinds)
    return sorted(kinds, key=lambda kind: (kind not in required, kind))


def asking(driver: Driver, kinds: Sequence[Kind], patches: Mapping[Kind, Sequence[Patch]]) -> Kind:
    """The kind that asks NVIDIA's probes: the one with the most patches, as a patch may add one; the others need not mind."""
    return max(build_order(driver, kinds), key=lambda kind: len(patches.get(kind, ())))


def modules_root(kind: Kind, best: Kind) -> str:
    """The depmod root of a kind inside the image: ``/opt`` or ``/opt/<kind>``."""
    return "/opt" if kind == best else f"/opt/{kind}"


def program_files(root: Path = PROGRAM) -> tuple[LocalFile, ...]:
    """``nvidia-driver`` and its parts as they go into each image.

    Raises BadFileError where the checkout lacks them.
    """
    places = [(root / "nvidia-driver", "usr/bin/nvidia-driver", 0o755)]
    places += [(part, f"usr/lib/nvidia-driver/{part.name}", 0o644) for part in sorted((root / "lib").glob("*.sh"))]
    try:
        return tuple(
            LocalFile(path, source, hashlib.sha256(source.read_bytes()).hexdigest(), mode) for source, path, mode in places
        )
    except OSError as error:
        raise BadFileError(f"{error.filename}: {error.strerror}", hint="it is part of the project; restore it") from error


class Renderer:
    """Renders what one lock and one set of wishes ask for; each text is made once."""

    def __init__(self, wanted: Wanted, lock: Lock, *, epoch: int = 0, source_url: str = "") -> None:
        self.wanted, self.lock, self._epoch, self._source = wanted, lock, epoch, source_url
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
            autoescape=False,  # noqa: S701 - Dockerfiles, and every value was matched against a pattern when it was read
        )
        self._made: dict[str, Rendered] = {}
        self._patch_files: dict[str, LocalFile] = {}
        self._templates: dict[str, jinja2.Template] = {}
        self._skeletons: dict[object, Skeleton | None] = {}

    @lazy
    def program(self) -> tuple[LocalFile, ...]:
        """The host program's files, read once."""
        return program_files()

    def epoch(self, *dates: str) -> int:
        """SOURCE_DATE_EPOCH where it is set, else the latest of ``dates``."""
        return self._epoch or max(map(epoch_of, dates))

    def toolchain(self, toolchain: Toolchain) -> Rendered:
        """What compiles for one OS."""
        name = f"toolchain/{toolchain.name}-{toolchain.arch}"
        template = "toolchain-debian.Dockerfile.j2"
        if toolchain.image:
            own = f"toolchain-{toolchain.os}.Dockerfile.j2"
            template = own if (TEMPLATES / own).exists() else "toolchain-image.Dockerfile.j2"
        files = tuple(("rpms" if toolchain.image else "debs", file) for file in toolchain.packages)
        return self._once(name, template, files, toolchain=toolchain)

    def unpacker(self, arch: str) -> Rendered:
        """The toolchain whose dpkg unpacks base and userspace: the first of that architecture."""
        return self.toolchain(self.lock.unpacker(arch))

    def base(self, base: Base) -> Rendered:
        """The runtime base of one architecture."""
        return self._once(
            f"base/{base.arch}",
            "base.Dockerfile.j2",
            tuple(("debs", file) for file in base.packages),
            base=base,
            applets=APPLETS,
            toolchain_tag=self.unpacker(base.arch).tag,
            prefix=self.lock.unpacker(base.arch).prefix,
            machine=MACHINES[base.arch],
            epoch=self.epoch(base.date),
        )

    def userspace(self, driver: Driver) -> Rendered:
        """Libraries, tools and firmware of one driver."""
        base = self.lock.base(driver.arch)
        trees = of_driver(driver, "userspace")
        return self._once(
            f"userspace/{driver.version}-{driver.arch}",
            "userspace.Dockerfile.j2",
            tuple(("debs", file) for file in driver.userspace if driver.source == "debian"),
            (),
            trees,
            driver=driver,
            gpus=trees[0].files if trees and driver.source == "debian" else (),
            layout=LAYOUT,
            triple=TRIPLES[driver.arch],
            prefix=self.lock.unpacker(driver.arch).prefix,
            toolchain_tag=self.unpacker(driver.arch).tag,
            base_tag=self.base(base).tag,
            epoch=self.epoch(driver.date, base.date),
        )

    def modules(self, driver: Driver) -> tuple[str, ...]:
        """Names of the kernel modules to build, without ``.ko``."""
        return self.wanted.build.modules or MODULES

    def image(
        self,
        kernel: Kernel,
        driver: Driver,
        pair_id: str,
        kinds: Sequence[Kind],
        patches: Mapping[Kind, Sequence[Patch]],
    ) -> Rendered:
        """One pair's image, with ``kinds`` of modules and the patches of each."""
        local = [("program", file) for file in self.program]
        local += [("patches", file) for file in self._patches(patches)]
        files = [("headers", file) for file in kernel.headers if kernel.form == "debs"]
        files += [("debs", file) for kind in kinds for file in driver.modules(kind) if driver.source == "debian"]
        epoch = self.image_epoch(kernel, driver)
        return self._once(
            f"image/{kernel.os}/{kernel.arch}/{pair_id.rpartition(':')[2]}",
            IMAGE_TEMPLATES[kernel.form],
            tuple(files),
            tuple(local),
            (*of_kernel(kernel), *of_driver(driver, "modules")),
            **self._image_values(kernel, driver, pair_id, kinds, patches, epoch, date_of(epoch)),
        )

    def recipe(
        self, kernel: Kernel, driver: Driver, pair_id: str, kinds: Sequence[Kind], patches: Mapping[Kind, Sequence[Patch]]
    ) -> str:
        """The recipe of ``image`` of the same, in a tenth of the time: most of its text is that of other kernels' images."""
        patched = tuple((kind, *some) for kind, some in patches.items())
        key = (
            driver.version,
            kernel.os,
            kernel.arch,
            kernel.toolchain,
            kernel.form,
            len(kernel.headers),
            len(kernel.image),
            *kinds,
            *patched,
        )
        if key not in self._skeletons:
            self._skeletons[key] = self._skeleton(kernel, driver, kinds, patches)
        skeleton = self._skeletons[key]
        if skeleton is None:
            return self.image(kernel, driver, pair_id, kinds, patches).recipe
        epoch = self.image_epoch(kernel, driver)
        text = skeleton.fill({"kernel": kernel, "id": pair_id, "epoch": epoch, "created": date_of(epoch)})
        return hashlib.sha256(text.encode()).hexdigest()

    def _skeleton(
        self, kernel: Kernel, driver: Driver, kinds: Sequence[Kind], patches: Mapping[Kind, Sequence[Patch]]
    ) -> Skeleton | None:
        """The image's text with all open that varies with the kernel; None where the template looks at such a value."""
        self._patches(patches)
        try:
            values = self._image_values(
                StandIn(kernel, "kernel"), driver, Hole("id"), kinds, patches, Hole("epoch"), Hole("created")
            )
            return Skeleton(self._text(IMAGE_TEMPLATES[kernel.form], values))
        except (Looked, TypeError, AttributeError, BadFileError):  # what is wrong in earnest is said by plain rendering
            return None

    def _image_values(
        self,
        kernel: Any,
        driver: Driver,
        pair_id: Any,
        kinds: Sequence[Kind],
        patches: Mapping[Kind, Sequence[Patch]],
        epoch: Any,
        created: Any,
    ) -> dict[str, Any]:
        """What the image's template prints. Values of the kernel may be holes: print them, do not look at them."""
        best = recommended(driver.version, kinds)
        prefix = self.lock.toolchain(kernel).prefix
        sources = [
            {
                "name": kind,
                "source": file,
                "root": modules_root(kind, best),
                "directory": self.directory(kernel, kind, best),
                "patches": patches.get(kind, ()),
            }
            for kind in build_order(driver, kinds)
            for file in driver.modules(kind)[:1]
        ]
        return {
            "pair_id": pair_id,
            "kernel": kernel,
            "driver": driver,
            "kinds": sources,
            "probe": next(source for source in sources if source["name"] == asking(driver, kinds, patches)),
            "modules": self.modules(driver),
            "make_arch": MAKE_ARCH[kernel.arch] + (f" CROSS_COMPILE={prefix}" if prefix else ""),
            "prefix": prefix,
            "layout": LAYOUT,
            "epoch": epoch,
            "image_env": self.image_env(kernel, driver, kinds),
            "program": self.program,
            "labels": sorted(self._labels(kernel, driver, kinds, created).items(), key=lambda item: item[0]),
            "toolchain_tag": self.toolchain(self.lock.toolchain(kernel)).tag,
            "userspace_tag": self.userspace(driver).tag,
        }

    def _patches(self, patches: Mapping[Kind, Sequence[Patch]]) -> list[LocalFile]:
        """The patch files of all kinds, each once; each is held against its pinned hash at its first use."""
        for patch in (patch for some in patches.values() for patch in some):
            if patch.file not in self._patch_files:
                patch.read()
                self._patch_files[patch.file] = LocalFile(patch.file, PATCHES / patch.file, patch.sha256, 0o644)
        names = sorted({patch.file for some in patches.values() for patch in some})
        return [self._patch_files[name] for name in names]

    def directory(self, kernel: Kernel, kind: Kind, best: Kind) -> str:
        """Where a kind's modules lie in the image."""
        return f"{modules_root(kind, best)}/lib/modules/{kernel.kernel}"

    def image_epoch(self, kernel: Kernel, driver: Driver) -> int:
        """The time of every file and of the configuration of an image: its newest input's date in the lock."""
        lock = self.lock
        return self.epoch(kernel.date, driver.date, lock.base(kernel.arch).date, lock.toolchain(kernel).date)

    def image_env(self, kernel: Kernel, driver: Driver, kinds: Sequence[Kind]) -> list[str]:
        """Lines of ``/opt/nvidia-driver/image.env``, by which ``nvidia-driver`` knows what it is in."""
        return [
            f"KERNEL={kernel.kernel}",
            f"DRIVER={driver.version}",
            f"ARCH={kernel.arch}",
            f'KINDS="{" ".join(kinds)}"',
            f"RECOMMENDED={recommended(driver.version, kinds)}",
            f'MODULES="{" ".join(self.modules(driver))}"',
        ]

    def labels(self, kernel: Kernel, driver: Driver, kinds: Sequence[Kind]) -> dict[str, str]:
        """Labels that the lock alone decides (design.md, "Formats others read")."""
        return self._labels(kernel, driver, kinds, date_of(self.image_epoch(kernel, driver)))

    def _labels(self, kernel: Kernel, driver: Driver, kinds: Sequence[Kind], created: str) -> dict[str, str]:
        other = sorted(f"{f.name}={f.version}" for f in driver.userspace if driver.version not in f.version)
        labels = {
            "org.opencontainers.image.created": created,
            "org.opencontainers.image.source": self._source,
            "org.opencontainers.image.title": "driver",
            "org.opencontainers.image.version": f"{kernel.kernel}-{driver.version}",
            "org.opencontainers.image.description": f"NVIDIA driver {driver.version} for Linux {kernel.kernel}",
            "org.opencontainers.image.licenses": "Apache-2.0 AND LicenseRef-NVIDIA-Driver",
            label("os"): kernel.os,
            label("arch"): kernel.arch,
            label("kernel"): kernel.kernel,
            label("driver"): driver.version,
            label("kinds"): " ".join(kinds),
        }
        if driver.fabric:
            labels[label("fabric-manager")] = driver.fabric[0].version
        if other:
            labels[label("other-versions")] = " ".join(other)
        return labels

    def _once(
        self,
        name: str,
        template: str,
        files: tuple[tuple[str, File], ...],
        local: tuple[tuple[str, LocalFile], ...] = (),
        trees: tuple[Tree, ...] = (),
        /,
        **values: Any,
    ) -> Rendered:
        if found := self._made.get(name):
            return found
        text = self._text(template, values)
        recipe = hashlib.sha256(text.encode()).hexdigest()
        what = name.split("/", 1)[0]
        self._made[name] = made = Rendered(name, f"driver-{what}:{recipe[:16]}", text, files, local, trees)
        return made

    def _text(self, template: str, values: Mapping[str, Any]) -> str:
        try:
            if template not in self._templates:
                self._templates[template] = self._environment.get_template(template)
            return self._templates[template].render(made_by=MADE_BY.format(template), **values)
        except jinja2.TemplateError as error:
            raise BadFileError(f"dockerfiles/{template}: {error}", hint="mend the template") from error
