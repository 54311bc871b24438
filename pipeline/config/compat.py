"""Which driver does not go with which kernel, and which patch cures it: ``compat.toml``.

Facts, each with its source, true for whoever builds; what *we* choose not to build stands in ``versions.toml``. A rule
saves the time of a build that is known to fail: a pair without a rule is tried, and its outcome teaches. So a range
that is only a distributor's support ceiling is no rule. Ranges are half-open, over full kernel.org versions, because
stable releases break drivers too (6.18.41); they hold for near-vanilla kernels, as all those built for here are.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from ..core.errors import BadFileError, PipelineError
from ..core.files import CHECKOUT
from ..core.lazy import lazy
from ..core.versions import VersionRange, within
from . import distributions
from .records import KINDS, SAYING, Kind, Line, Os, Sha256

COMPAT_FILE: Final = Path("compat.toml")
PATCHES: Final = CHECKOUT / "dockerfiles" / "patches"
_Slug = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}\Z")]
_Reason = Annotated[str, Meta(min_length=10, pattern=SAYING)]
_Link = Annotated[str, Meta(pattern=r"^https://[!-~]+\Z")]


class _Conditions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every condition that stands must hold; an empty one holds for all."""

    driver: str = ""
    kernel: str = ""
    kinds: tuple[Kind, ...] = ()
    os: tuple[Os, ...] = ()
    gcc: str = ""

    def concerns(self, driver: str, kind: Kind, os: Os, gcc: str | None) -> bool:
        """True where all but the kernel fits. A condition on ``gcc`` does not hold while the compiler is not known."""
        return (
            (not self.driver or within(driver, self.driver))
            and (not self.kinds or kind in self.kinds)
            and (not self.os or os in self.os)
            and (not self.gcc or (gcc is not None and within(gcc, self.gcc)))
        )

    def fits(self, kernel: str) -> bool:
        """True where the kernel.org version ``kernel`` is in the range."""
        return not self.kernel or within(kernel, self.kernel)


class Rule(_Conditions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``exclude``: does not compile or load. ``needs-patch``: nor does this, unless a patch that cures it applies."""

    name: _Slug
    outcome: Literal["exclude", "needs-patch"]
    reason: _Reason
    see: _Link
    lift: Line = ""


class Patch(_Conditions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file of ``dockerfiles/patches``, applied with ``patch -p<strip>`` in the modules' directory.

    ``cures`` names the rules that it lifts where it applies.
    """

    file: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.patch\Z")]
    sha256: Sha256
    strip: Annotated[int, Meta(ge=0, le=9)] = 1
    cures: tuple[_Slug, ...] = ()
    reason: _Reason
    see: _Link

    @property
    def file_name(self) -> str:
        """Its name in a build context."""
        return self.file

    def read(self, root: Path = PATCHES) -> bytes:
        """The patch itself.

        Raises BadFileError where it is not there, or not the one that compat.toml pins.
        """
        path = root / self.file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BadFileError(f"{path}: {error.strerror}", hint="it is part of the project; restore it") from error
        if (found := hashlib.sha256(data).hexdigest()) != self.sha256:
            raise BadFileError(
                f"{path}: its sha256 is {found}, {COMPAT_FILE} says {self.sha256}",
                hint="restore the patch, or write down the new sum after a build with it",
            )
        return data


class Compat(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """The whole file."""

    rules: tuple[Rule, ...] = field(name="rule", default=())
    patches: tuple[Patch, ...] = field(name="patch", default=())

    @lazy
    def _relevant(self) -> dict[tuple[str, Kind, Os, str | None], tuple[tuple[Rule, ...], tuple[Patch, ...]]]:
        return {}

    def relevant(self, driver: str, kind: Kind, os: Os, gcc: str | None) -> tuple[tuple[Rule, ...], tuple[Patch, ...]]:
        """Rules and patches about that build whatever its kernel is: thousands of kernels share a handful of drivers."""
        key = (driver, kind, os, gcc)
        if key not in self._relevant:
            rules = tuple(rule for rule in self.rules if rule.concerns(driver, kind, os, gcc))
            patches = tuple(patch for patch in self.patches if patch.concerns(driver, kind, os, gcc))
            self._relevant[key] = rules, patches
        return self._relevant[key]


class Verdict(Struct, frozen=True, kw_only=True):
    """``rule`` is None where the build is to be tried, then with ``patches``; ``lift``: what would lift the rule."""

    rule: Rule | None = None
    lift: str = ""
    patches: tuple[Patch, ...] = ()


class PairVerdict(Struct, frozen=True, kw_only=True):
    """The verdict on each kind of module of a pair."""

    kinds: dict[Kind, Verdict]

    @property
    def excluded(self) -> dict[Kind, Verdict]:
        """The kinds that are not to be tried."""
        return {kind: verdict for kind, verdict in self.kinds.items() if verdict.rule}


def parse(text: str, name: str = str(COMPAT_FILE)) -> Compat:
    """The rules and patches in ``text``.

    Raises BadFileError with ``name`` and the place of the first thing that is wrong.
    """
    try:
        compat = msgspec.convert(tomllib.loads(text), Compat)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise BadFileError(f"{name}: {error}", hint="see the head of the file") from error
    names = [rule.name for rule in compat.rules]
    for number, rule in enumerate(compat.rules):
        where = f"{name}: `$.rule[{number}]` ({rule.name})"
        _check(rule, where)
        if names.index(rule.name) != number:
            raise BadFileError(f"{where}: the name stands twice")
        if not (rule.driver or rule.kernel):
            raise BadFileError(f"{where}: a rule without driver and kernel excludes everything", hint="say one")
    for number, patch in enumerate(compat.patches):
        where = f"{name}: `$.patch[{number}]` ({patch.file})"
        _check(patch, where)
        for cured in patch.cures:
            if not any(rule.name == cured and rule.outcome == "needs-patch" for rule in compat.rules):
                raise BadFileError(f"{where}: no rule '{cured}' that needs a patch")
    return compat


def _check(conditions: _Conditions, where: str) -> None:
    distributions.check(conditions.os, f"{where}: os")
    for key in ("driver", "kernel", "gcc"):
        text: str = getattr(conditions, key)
        if not text:
            continue
        try:
            alternatives = VersionRange(text).alternatives
        except PipelineError as error:
            raise BadFileError(f"{where}: {key}: {error.message}", hint=error.hint) from error
        for bounds in alternatives:
            if any(operator in ("<=", ">") for operator, _ in bounds):
                raise BadFileError(f"{where}: {key} '{text}' is not half-open", hint="use '>=' and '<' only")
            if not _holds_something(bounds):
                raise BadFileError(f"{where}: {key} '{text}' has a part that no version is in")


def _holds_something(bounds: tuple[tuple[str, tuple[int, ...]], ...]) -> bool:
    """False where the highest lower bound is not below the lowest upper one."""
    low: list[Any] = [numbers for operator, numbers in bounds if operator in (">=", "==", "prefix")]
    high: list[Any] = [numbers for operator, numbers in bounds if operator == "<"]
    width = max(len(numbers) for numbers in low + high)
    low, high = ([numbers + (0,) * (width - len(numbers)) for numbers in side] for side in (low, high))
    return not low or not high or max(low) < min(high)


def load(path: Path = COMPAT_FILE) -> Compat:
    """The rules and patches in ``path``.

    Raises BadFileError where it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadFileError(f"{path}: {error}", hint="it is part of the project; restore it") from error
    return parse(text, str(path))


def why(compat: Compat, kernel: str, driver: str, kind: Kind, os: Os, gcc: str | None = None) -> Verdict:
    """Whether one kind of a driver's modules is to be built for a kernel, and with which patches.

    ``kernel`` is the kernel.org version (``Kernel.version`` of the lock), ``gcc`` the toolchain's version if known. The
    first rule that holds decides; one that needs a patch does not hold where a patch that cures it applies.
    """
    rules, patches = compat.relevant(driver, kind, os, gcc)
    patches = tuple(patch for patch in patches if patch.fits(kernel))
    cured = {name for patch in patches for name in patch.cures}
    for rule in rules:
        if rule.name not in cured and rule.fits(kernel):
            return Verdict(rule=rule, lift=_lift(rule))
    return Verdict(patches=patches)


def pair(compat: Compat, kernel: str, driver: str, kinds: tuple[Kind, ...], os: Os, gcc: str | None = None) -> PairVerdict:
    """``why`` for every kind that a driver has."""
    return PairVerdict(kinds={kind: why(compat, kernel, driver, kind, os, gcc) for kind in KINDS if kind in kinds})


def _lift(rule: Rule) -> str:
    if rule.lift:
        return rule.lift
    ways = [f"a driver outside {rule.driver}"] if rule.driver else []
    ways += [f"a kernel outside {rule.kernel}"] if rule.kernel else []
    ways += [f"the {kind} modules" for kind in KINDS if rule.kinds and kind not in rule.kinds]
    ways += ["a patch for it, listed in compat.toml"] if rule.outcome == "needs-patch" else []
    return " or ".join(ways)
