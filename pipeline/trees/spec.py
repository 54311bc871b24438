"""Which trees an image is made with: what they are called and what decides them, without what reads vendors' archives.

Every run asks this of every driver; pipeline/trees/tars.py, which makes the trees, is imported where one is made.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

from ..config.records import Driver, File, Kernel

LAYOUT: Final = 2
"""Raise it where the same pinned files give another tree."""
Make = Literal["rpms", "developer-container", "source", "run", "run-userspace", "redist", "redist-userspace", "debian-gpus"]


@dataclass(frozen=True)
class Tree:
    """``name``: the tar's name in the context; ``kernel``: the release whose directories are taken, "" for a driver.

    ``image``: the kernel itself, where what it exports goes into the tree.
    """

    name: str
    make: Make
    files: tuple[File, ...]
    kernel: str = ""
    image: File | None = None

    @property
    def key(self) -> str:
        """What decides the tar."""
        files = self.files if self.image is None else (*self.files, self.image)
        words = (str(LAYOUT), self.make, self.kernel, *(file.sha256 for file in files))
        return hashlib.sha256(" ".join(words).encode()).hexdigest()


def of_kernel(kernel: Kernel) -> tuple[Tree, ...]:
    """The trees of a kernel's headers; none for Debian's, whose packages dpkg unpacks in the build."""
    if kernel.form == "debs":
        return ()
    image = kernel.image[0] if kernel.form == "source" and kernel.image else None
    return (Tree("headers.tar", kernel.form, kernel.headers, kernel.kernel, image),)


def of_driver(driver: Driver, part: Literal["modules", "userspace"]) -> tuple[Tree, ...]:
    """An NVIDIA archive's module sources, or its userspace and Fabric Manager; of Debian's packages only the list of GPUs."""
    if driver.source == "debian":
        texts = tuple(file for file in driver.userspace if file.name.endswith("vdpau-driver"))  # carries NVIDIA's README
        return (Tree("gpus.tar", "debian-gpus", (*texts[:1], *driver.open[:1])),) if texts and part == "userspace" else ()
    if part == "modules":
        return (Tree("modules.tar", driver.source, driver.userspace[:1]),)
    made: Make = "run-userspace" if driver.source == "run" else "redist-userspace"
    return (Tree("userspace.tar", made, driver.userspace[:1] + driver.fabric),)
