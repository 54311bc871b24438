"""What the proof needs of a kernel's pinned files, in whatever form its vendor publishes them.

Symbols with their CRCs where a vendor's ``Module.symvers`` says them; else those that the kernel image itself exports, and
then only where no CRCs are asked for. The image to boot, and its own modules for what a module depends on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..config.records import Kernel, is_tarball
from ..core.errors import PairFailed
from ..fetch.store import Inputs
from ..formats import debs, rpms, unpacking
from ..formats.kernels import kernel_image
from ..formats.kernels.kernel_module import Export
from ..trees import tars
from ..trees.spec import of_kernel
from . import static

_WITHOUT_SYMVERS: Final = "MODVERSIONS is on in its config and there is no Module.symvers"
_MISSING: Final = ("unknown symbol ", " undefined!")
"""As the static proof says it, and modpost before it (scripts/mod/modpost.c)."""
_NOT_IN_IMAGE: Final = (
    "the kernel image does not export it; where one of the kernel's modules does, leave that module out (modules of [build]), "
    "or build from a headers package"
)
_HELP: Final = "headers with a Module.symvers would help: the vendor's headers package, or the kernel's own build directory"


@dataclass(frozen=True)
class KernelFiles:
    """``symvers``: what the kernel exports, without CRCs where ``modversions`` is False; ``modules``: lib/modules/<kernel>."""

    symvers: Mapping[str, Export]
    modversions: bool
    vmlinuz: Path
    modules: Path | None


def unprovable(kernel: Kernel, inputs: Inputs) -> str:
    """Why no image for ``kernel`` could ever be proved, before anything is compiled; "" where nothing speaks against it."""
    if not kernel.image:
        return "cannot be proved: no kernel image to boot: pin one beside the headers"
    if kernel.form != "source":
        return ""
    for file in kernel.headers:
        if is_tarball(file.file_name):
            continue
        with inputs.path(file).open("rb") as config:
            text = unpacking.unpacked(config, file.file_name, 16 << 20).read()
        if b"\nCONFIG_MODVERSIONS=y" in text:
            return f"cannot be proved: {_WITHOUT_SYMVERS}: {_HELP}"
    return ""


def gather(kernel: Kernel, inputs: Inputs, scratch: Path) -> KernelFiles:
    """Everything out of the pinned files, below ``scratch``. Raises PairFailed where the proof cannot be made of them."""
    if why := unprovable(kernel, inputs):
        raise PairFailed(why)
    image, modules = _image(kernel, inputs, scratch)
    if kernel.form == "source":
        return KernelFiles(kernel_image.exports(image), False, image, modules)
    headers = _headers(kernel, inputs, scratch)
    tables = sorted(headers.glob("**/Module.symvers"))
    if len(tables) != 1:
        raise PairFailed(f"cannot be proved: the headers of {kernel.kernel} hold {len(tables)} Module.symvers files, not one")
    config = next(iter(headers.glob("**/.config")), None)
    modversions = config is not None and "CONFIG_MODVERSIONS=y" in config.read_text(errors="replace")
    return KernelFiles(static.parse_symvers(tables[0].read_text(errors="replace")), modversions, image, modules)


def what_helps(kernel: Kernel, error: PairFailed) -> PairFailed:
    """``error`` of a build or its static proof; with what helps where a module of the kernel could export what is missing."""
    if kernel.form != "source" or not any(words in error.message for words in _MISSING):
        return error
    return PairFailed(f"{error.message}: {_NOT_IN_IMAGE}")


def _headers(kernel: Kernel, inputs: Inputs, scratch: Path) -> Path:
    headers = scratch / "headers"
    if kernel.form == "debs":
        for file in kernel.headers:
            debs.unpack(inputs.path(file), headers, _symvers_or_config)
        return headers
    for tree in of_kernel(kernel):
        path = tars.lay(tree, scratch.parent / tars.CACHE.name, inputs, inputs.max_unpacked)
        with path.open("rb") as tar:
            found = unpacking.from_tar(tar, tree.name)
            unpacking.to_directory((e for e in found if e.kind == "file"), headers, tree.name, _symvers_or_config)
    return headers


def _symvers_or_config(name: str) -> bool:
    return name.endswith(("/Module.symvers", "/.config"))


def _of_image(name: str) -> bool:
    return name.startswith(("boot/vmlinuz", "lib/modules", "usr/lib/modules"))


def _image(kernel: Kernel, inputs: Inputs, scratch: Path) -> tuple[Path, Path | None]:
    """The kernel to boot and its modules; one file that is no package is the kernel itself."""
    image = scratch / "kernel"
    if kernel.form == "debs":
        for file in kernel.image:
            debs.unpack(inputs.path(file), image, _of_image)
    elif kernel.form == "rpms":
        for number, file in enumerate(kernel.image):
            path = inputs.path(file)
            entries = (e for e in rpms.entries(path, inputs.max_unpacked) if e.kind in ("file", "directory"))
            unpacking.to_directory(entries, image / str(number), file.file_name, _of_image)
    else:
        return inputs.path(kernel.image[0]), None
    modules = next((p for p in sorted(image.glob(f"**/lib/modules/{kernel.kernel}")) if p.is_dir()), None)
    for pattern in (f"**/boot/vmlinuz-{kernel.kernel}", f"**/lib/modules/{kernel.kernel}/vmlinuz"):
        if found := sorted(image.glob(pattern)):
            return found[0], modules
    raise PairFailed(f"cannot be proved: the kernel package of {kernel.kernel} holds no vmlinuz")
