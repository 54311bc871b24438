"""What there is to do: the pairs that the lock pins, their names, recipes and tags. Pure; nothing here asks anybody."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

from .errors import UsageError
from .lock import qualified_tags
from .pinned import Driver, Kernel, Kind, Lock
from .render import Rendered, Renderer, recommended, required_kinds
from .versions import DriverVersion, tag_text
from .wanted import Exclusion, Wanted, kinds_of


@dataclass(frozen=True, eq=False)
class Pair:
    """One (os, arch, kernel, headers, driver): what gets built. ``id`` is ``<os>/<arch>:<kernel>-<driver>``."""

    kernel: Kernel
    driver: Driver
    id: str
    kinds: tuple[Kind, ...]
    required: tuple[Kind, ...]
    exclusion: Exclusion | None
    plain: bool
    """True where this build of the kernel string owns the plain tag."""
    renderer: Renderer

    @cached_property
    def rendered(self) -> Rendered:
        """The image's Dockerfile."""
        return self.renderer.image(self.kernel, self.driver, self.id)

    @property
    def recipe(self) -> str:
        """Sha256 over all that decides the image's content."""
        return self.rendered.recipe

    @property
    def recipe_tag(self) -> str:
        """The immutable tag of the finished image."""
        return f"r-{self.recipe[:16]}"

    @property
    def failed_tag(self) -> str:
        """The immutable tag of a failure."""
        return f"failed-{self.recipe[:16]}"

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """Names that belong to this pair alone: the plain one and the GPU Operator's form for each release."""
        plain = [f"{tag_text(self.kernel.kernel)}-{self.driver.version}"] if self.plain else []
        return (*plain, *qualified_tags(self.kernel, self.driver.version))

    @cached_property
    def aliases(self) -> tuple[str, ...]:
        """The same with the branch instead of the version; the newest built driver of the branch owns them."""
        branch = DriverVersion(self.driver.version).branch
        plain = [f"{tag_text(self.kernel.kernel)}-{branch}"] if self.plain else []
        return (*plain, *qualified_tags(self.kernel, branch))

    @property
    def best_kind(self) -> Kind:
        """The kind at ``/opt/lib/modules``."""
        return recommended(self.driver.version, self.kinds)


class Plan:
    """Every pair of one lock, in order of os, kernel, driver."""

    def __init__(self, wanted: Wanted, lock: Lock, renderer: Renderer) -> None:
        self.wanted, self.lock, self.renderer = wanted, lock, renderer

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """All of them; excluded ones too."""
        builds: dict[tuple[str, str, str], list[Kernel]] = {}
        for kernel in self.lock.kernels:
            builds.setdefault((kernel.os, kernel.arch, kernel.kernel), []).append(kernel)
        return tuple(self._pairs(builds))

    def _pairs(self, builds: dict[tuple[str, str, str], list[Kernel]]) -> Iterable[Pair]:
        for same in builds.values():
            newest = max(same, key=_age)
            for kernel in same:
                short = f"-{kernel.headers_digest[:8]}" if len(same) > 1 else ""
                for version in kernel.drivers:
                    driver = self.lock.driver(version, kernel.arch)
                    kinds = kinds_of(self.wanted, driver)
                    if not kinds:
                        continue
                    yield Pair(
                        kernel=kernel,
                        driver=driver,
                        id=f"{kernel.key}-{version}{short}",
                        kinds=kinds,
                        required=required_kinds(driver, kinds),
                        exclusion=self.wanted.exclusion(kernel, version),
                        plain=kernel is newest,
                        renderer=self.renderer,
                    )

    @cached_property
    def by_id(self) -> dict[str, Pair]:
        """Pairs by their id."""
        return {pair.id: pair for pair in self.pairs}

    def select(self, patterns: Sequence[str]) -> tuple[Pair, ...]:
        """Pairs whose task name (``image:<id>``) matches one of ``patterns``; all for none.

        Raises UsageError for a pattern about images that matches no pair.
        """
        if not patterns:
            return self.pairs
        chosen: dict[str, Pair] = {}
        for pattern in patterns:
            if not pattern.startswith("image"):
                continue
            found = [p for p in self.pairs if pattern in ("image", f"image:{p.id}") or fnmatchcase(f"image:{p.id}", pattern)]
            if not found:
                raise UsageError(f"'{pattern}' matches no pair of the lock", hint="'doit list --all' names them")
            chosen.update({p.id: p for p in found})
        return tuple(chosen.values())


def _age(kernel: Kernel) -> tuple[list[tuple[int, ...]], str]:
    numbers = sorted(tuple(int(n) for n in re.findall(r"[0-9]+", r.version)) for r in kernel.releases)
    return numbers[::-1], kernel.headers_digest
