"""Which trees an image is made with: what they are called and what decides them, without what reads vendors' archives.

Every run asks this of every driver; pipeline/trees.py, which makes the trees, is imported where one is made.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

from .pinned import Driver, File, Kernel

LAYOUT: Final = 2
"""Raise it where the same pinned files give another tree."""
Make = Literal["rpms", "developer-container", "source", "run", "run-userspace"]


@dataclass(frozen=True)
class Tree:
    """``name``: the tar's name in the context; ``kernel``: the release whose directories are taken, "" for a driver."""

    name: str
    make: Make
    files: tuple[File, ...]
    kernel: str = ""

    @property
    def key(self) -> str:
        """What decides the tar."""
        words = (str(LAYOUT), self.make, self.kernel, *(file.sha256 for file in self.files))
        return hashlib.sha256(" ".join(words).encode()).hexdigest()


def of_kernel(kernel: Kernel) -> tuple[Tree, ...]:
    """The trees of a kernel's headers; none for Debian's, whose packages dpkg unpacks in the build."""
    if kernel.form == "debs":
        return ()
    return (Tree("headers.tar", kernel.form, kernel.headers, kernel.kernel),)


def of_driver(driver: Driver, part: Literal["modules", "userspace"]) -> tuple[Tree, ...]:
    """The tree of a run file's module sources, or of its userspace; none for Debian's packages."""
    if driver.source == "debian":
        return ()
    return (Tree(f"{part}.tar", "run" if part == "modules" else "run-userspace", driver.userspace[:1]),)
