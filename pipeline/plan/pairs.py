"""What there is to do: the pairs that the lock pins, their names, recipes and tags. Pure; nothing here asks anybody."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ..config import compat
from ..config.compat import Compat, Patch, Verdict
from ..config.records import Driver, Kernel, Kind, Lock, qualified_tags
from ..config.versions_toml import Wanted, kinds_of
from ..core import tags as tag_names
from ..core.errors import UsageError
from ..core.lazy import lazy
from ..core.versions import DriverVersion
from .dockerfile import Rendered
from .render import Renderer, recommended, required_kinds


@dataclass(frozen=True)
class Exclusion:
    """Why a pair is not tried: the rule (its name in compat.toml, or ``versions.toml``), and what would lift it."""

    rule: str
    reason: str
    see: str
    lift: str


@dataclass(frozen=True, eq=False)
class Pair:
    """One (os, arch, kernel, headers, driver): what gets built. ``id`` is ``<os>/<arch>:<kernel>-<driver>``."""

    kernel: Kernel
    driver: Driver
    id: str
    kinds: tuple[Kind, ...]
    """The kinds to build: those of the driver that versions.toml wants and no rule leaves out."""
    required: tuple[Kind, ...]
    left_out: dict[Kind, Verdict]
    """Optional kinds that a rule of compat.toml leaves out."""
    patches: dict[Kind, tuple[Patch, ...]]
    exclusion: Exclusion | None
    plain: bool
    """True where this build of the kernel string owns the plain tag."""
    renderer: Renderer
    siblings: Callable[[], tuple[Pair, ...]] = tuple
    """Pairs of other architectures that have a name in common with it; excluded ones are none."""

    @lazy
    def rendered(self) -> Rendered:
        """The image's Dockerfile. Its digest is the recipe: what is built is what was asked about."""
        made = self.renderer.image(self.kernel, self.driver, self.id, self.kinds, self.patches)
        assert made.recipe == self.recipe, f"{self.id}: {made.recipe} is not {self.recipe}"
        return made

    @lazy
    def recipe(self) -> str:
        """Sha256 over all that decides the image's content: that of the Dockerfile's text."""
        return self.renderer.recipe(self.kernel, self.driver, self.id, self.kinds, self.patches)

    @property
    def recipe_tag(self) -> str:
        """The immutable tag of the finished image."""
        return tag_names.of_image(self.recipe)

    @property
    def failed_tag(self) -> str:
        """The immutable tag of a failure."""
        return tag_names.of_failure(self.recipe)

    @lazy
    def tags(self) -> tuple[str, ...]:
        """Names that belong to this pair alone: the plain one and the GPU Operator's form for each release."""
        plain = [tag_names.plain(self.kernel.kernel, self.driver.version)] if self.plain else []
        return (*plain, *qualified_tags(self.kernel, self.driver.version))

    @lazy
    def aliases(self) -> tuple[str, ...]:
        """The same with the branch instead of the version; the newest built driver of the branch owns them."""
        branch = DriverVersion(self.driver.version).branch
        plain = [tag_names.plain(self.kernel.kernel, branch)] if self.plain else []
        return (*plain, *qualified_tags(self.kernel, branch))

    @property
    def best_kind(self) -> Kind:
        """The kind at ``/opt/lib/modules``."""
        return recommended(self.driver.version, self.kinds)


class Plan:
    """Every pair of one lock, in order of os, kernel, driver."""

    def __init__(self, wanted: Wanted, lock: Lock, renderer: Renderer, rules: Compat | None = None) -> None:
        self.wanted, self.lock, self.renderer = wanted, lock, renderer
        self.rules = rules or Compat()

        self._made: dict[str, Pair] = {}

    @lazy
    def pairs(self) -> tuple[Pair, ...]:
        """All of them; excluded ones too."""
        return tuple(map(self._pair, self._named))

    @lazy
    def _named(self) -> dict[str, tuple[Kernel, Driver, bool]]:
        """Of each pair's id: kernel, driver, and whether that build of the kernel owns the plain tag. Held against no rule."""
        builds: dict[tuple[str, str, str], list[Kernel]] = {}
        for kernel in self.lock.kernels:
            builds.setdefault((kernel.os, kernel.arch, kernel.kernel), []).append(kernel)
        tried = {(d.version, d.arch): d for d in self.lock.drivers if d.kinds}
        named: dict[str, tuple[Kernel, Driver, bool]] = {}
        for same in builds.values():
            newest = max(same, key=_age) if len(same) > 1 else same[0]
            for kernel in same:
                short = f"-{kernel.headers_digest[:8]}" if len(same) > 1 else ""
                for version in kernel.drivers:
                    if driver := tried.get((version, kernel.arch)):
                        named[f"{kernel.key}-{version}{short}"] = kernel, driver, kernel is newest
        return named

    def _pair(self, name: str) -> Pair:
        """The pair of that id, made once: a run over one of thousands makes one."""
        if made := self._made.get(name):
            return made
        return self._made.setdefault(name, self._make(name, *self._named[name]))

    def _make(self, name: str, kernel: Kernel, driver: Driver, plain: bool) -> Pair:
        chosen = kinds_of(self.wanted, driver)
        kinds = chosen or driver.kinds
        gcc = self.lock.toolchain(kernel).gcc
        verdicts = compat.pair(self.rules, kernel.version, driver.version, kinds, kernel.os, gcc).kinds
        usable = tuple(kind for kind in kinds if not verdicts[kind].rule)
        exclusion = _by_people(self.wanted, kernel, driver.version)
        exclusion = exclusion or (_by_rules(verdicts, driver, usable) if chosen else _without_a_kind(driver))
        if exclusion is not None:
            usable = kinds
        return Pair(
            kernel=kernel,
            driver=driver,
            id=name,
            kinds=usable,
            required=required_kinds(driver, usable),
            left_out={kind: verdicts[kind] for kind in kinds if kind not in usable},
            patches={kind: verdicts[kind].patches for kind in usable},
            exclusion=exclusion,
            plain=plain,
            renderer=self.renderer,
            siblings=partial(self._siblings, name),
        )

    @lazy
    def _namesakes(self) -> dict[tuple[str, str], list[str]]:
        """Ids of pairs by kernel string and driver, where more than one architecture has them."""
        if len({kernel.arch for kernel in self.lock.kernels}) < 2:
            return {}
        found: dict[tuple[str, str], list[str]] = {}
        for name, (kernel, driver, _) in self._named.items():
            found.setdefault((kernel.kernel, driver.version), []).append(name)
        return {key: names for key, names in found.items() if len({self._named[name][0].arch for name in names}) > 1}

    def _siblings(self, name: str) -> tuple[Pair, ...]:
        kernel, driver, _ = self._named[name]
        others = self._namesakes.get((kernel.kernel, driver.version), ())
        pairs = [self._pair(other) for other in others if self._named[other][0].arch != kernel.arch]
        mine = set(self._pair(name).tags)
        return tuple(pair for pair in pairs if pair.exclusion is None and not mine.isdisjoint(pair.tags))

    def select(self, patterns: Sequence[str]) -> tuple[Pair, ...]:
        """Pairs whose task name (``image:<id>``) matches one of ``patterns``; all for none.

        Raises UsageError for a pattern about images that matches no pair.
        """
        if not patterns:
            return self.pairs
        chosen: dict[str, Pair] = {}
        names = [f"image:{name}" for name in self._named]
        for pattern in patterns:
            if not pattern.startswith("image"):
                continue
            found = [name for name in names if pattern in ("image", name)] or fnmatch.filter(names, pattern)
            if not found:
                here = pattern.startswith("image:host")
                hint = "'doit update --host' pins this machine's kernel" if here else "'doit list --all' names them"
                raise UsageError(f"'{pattern}' matches no pair of the lock", hint=hint)
            chosen.update({name: self._pair(name.removeprefix("image:")) for name in found})
        return tuple(chosen.values())


def _by_people(wanted: Wanted, kernel: Kernel, driver: str) -> Exclusion | None:
    held = wanted.exclusion(kernel, driver)
    return Exclusion("versions.toml", held.reason, held.see, held.lift) if held else None


def _without_a_kind(driver: Driver) -> Exclusion:
    """Why a driver is not tried none of whose kinds versions.toml wants."""
    has = " and ".join(driver.kinds)
    reason = f"{driver.version} has {has} modules only, and [build] kinds of versions.toml does not have that"
    return Exclusion("versions.toml", reason, "", f"'{driver.kinds[0]}' in [build] kinds")


def _by_rules(verdicts: dict[Kind, Verdict], driver: Driver, usable: tuple[Kind, ...]) -> Exclusion | None:
    """The rule that leaves out a kind that policy requires, or the last kind there is; None where the pair is tried."""
    for kind, verdict in verdicts.items():
        if verdict.rule and (kind in driver.required or not usable):
            return Exclusion(verdict.rule.name, f"{kind}: {verdict.rule.reason}", verdict.rule.see, verdict.lift)
    return None


def _age(kernel: Kernel) -> tuple[list[tuple[int, ...]], str]:
    numbers = sorted(tuple(int(n) for n in re.findall(r"[0-9]+", r.version)) for r in kernel.releases)
    return numbers[::-1], kernel.headers_digest
