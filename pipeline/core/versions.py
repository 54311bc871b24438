"""Kernel and driver versions: parse strictly, keep the exact text, order by number.

A version's text goes into URLs, Dockerfiles and tags, so it is kept verbatim and checked against a narrow pattern
before anything else sees it. Order is numeric: ``535.54.03 < 535.104.05``, ``595.84 < 595.84.01``,
``6.6.9 < 6.6.10``, and a release candidate comes before its release.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache, total_ordering

from .errors import UpstreamDataError
from .lazy import lazy
from .tags import tag_text

_DRIVER = re.compile(r"[0-9]{2,3}\.[0-9]{2,3}(\.[0-9]{2}){0,2}")
_KERNEL = re.compile(r"[0-9]+\.[0-9]+(\.[0-9]+)?[A-Za-z0-9._+~-]*")
_KERNEL_HEAD = re.compile(r"([0-9]+)\.([0-9]+)(?:\.([0-9]+))?(.*)")
_RC = re.compile(r"(?:^|[.~-])rc([0-9]+)")
_CHUNK = re.compile(r"[0-9]+|[A-Za-z]+")
MAX_TEXT = 100
"""Characters a kernel string may have: two versions and an OS must fit a tag of 128."""

Order = tuple[tuple[int, int, str], ...]


@total_ordering
@dataclass(frozen=True, slots=False, eq=False)
class DriverVersion:
    """One NVIDIA driver version, as ``535.261.03``; ``text`` is exact (``550.127.05`` is not ``550.127.5``)."""

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not _DRIVER.fullmatch(self.text) or not self.text.isascii():
            raise UpstreamDataError(f"'{self.text}' is not an NVIDIA driver version", hint="it looks like 535.261.03 or 595.84")

    @property
    def branch(self) -> str:
        """The first number: ``535``."""
        return self.text.split(".", 1)[0]

    @lazy
    def numbers(self) -> tuple[int, int, int, int]:
        """All numbers, padded with -1: ``595.84`` sorts before ``595.84.00``."""
        parts = [int(part) for part in self.text.split(".")]
        a, b, c, d = [*parts, -1, -1][:4]
        return a, b, c, d

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DriverVersion) and self.text == other.text

    def __lt__(self, other: DriverVersion) -> bool:
        return (self.numbers, self.text) < (other.numbers, other.text)

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text


@total_ordering
@dataclass(frozen=True, slots=False, eq=False)
class KernelRelease:
    """What ``uname -r`` prints, for example ``6.1.0-47-cloud-amd64`` or ``6.17.7-300.fc43.x86_64``."""

    text: str

    def __post_init__(self) -> None:
        ok = isinstance(self.text, str) and len(self.text) <= MAX_TEXT and self.text.isascii()
        if not ok or not _KERNEL.fullmatch(self.text) or ".." in self.text:
            raise UpstreamDataError(
                f"'{self.text}' is not a kernel release", hint="it is what 'uname -r' prints, like 6.1.0-47-cloud-amd64"
            )

    @property
    def tag(self) -> str:
        """The kernel string as a tag holds it."""
        return tag_text(self.text)

    @lazy
    def order(self) -> tuple[tuple[int, int, int], int, Order]:
        """(numbers, release candidate or a large number, the rest in natural order)."""
        head = _KERNEL_HEAD.fullmatch(self.text)
        assert head is not None
        rest = head[4]
        rc = _RC.search(rest)
        number = (int(head[1]), int(head[2]), int(head[3] or 0))
        return number, int(rc[1]) if rc else 1 << 30, _natural(rest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KernelRelease) and self.text == other.text

    def __lt__(self, other: KernelRelease) -> bool:
        return (self.order, self.text) < (other.order, other.text)

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text


def _natural(text: str) -> Order:
    """Numbers as numbers, words as words; a number sorts after a word at the same place, as in RPM."""
    return tuple((1, int(c), "") if c.isdigit() else (0, 0, c) for c in _CHUNK.findall(text))


_RANGE = re.compile(r"(>=|<=|==|<|>)?\s*([0-9][0-9A-Za-z.+~-]{0,99})")


@lru_cache(maxsize=8192)
def numbers_of(text: str) -> tuple[int, ...]:
    """``6.1.192-2`` as ``(6, 1, 192)``: the leading dotted numbers.

    Raises UpstreamDataError where there is none.
    """
    head = re.match(r"[0-9]+(\.[0-9]+)*", text)
    if not head:
        raise UpstreamDataError(f"'{text}' does not begin with a version number", hint="it looks like 6.1.192")
    return tuple(int(part) for part in head[0].split("."))


@dataclass(frozen=True)
class VersionRange:
    """A half-open range such as ``>=6.18.41, <6.19``, a prefix such as ``570`` (all of 570.x), or several with ``|``.

    ``>=6.1.76, <6.2 | >=6.6.15, <6.7 | >=6.7.3`` is what a change in stable kernels needs. Compared number by number, a
    shorter version padded with zeros; ``6.19-rc3`` counts as 6.19, since an interface changes in the first candidate.
    """

    text: str

    def __post_init__(self) -> None:
        for part in re.split("[,|]", self.text):
            if not _RANGE.fullmatch(part.strip()):
                shown = self.text if len(self.text) <= 200 else f"{self.text[:200]}…"
                raise UpstreamDataError(
                    f"'{shown}' is not a version range", hint="it looks like '>=6.1.192, <6.2 | >=6.6.9' or '535'"
                )

    @lazy
    def alternatives(self) -> tuple[tuple[tuple[str, tuple[int, ...]], ...], ...]:
        """For each part between ``|`` its bounds: (operator or ``prefix``, numbers)."""
        return tuple(
            tuple((m[1] or "prefix", numbers_of(m[2])) for bound in part.split(",") if (m := _RANGE.fullmatch(bound.strip())))
            for part in self.text.split("|")
        )

    def __contains__(self, version: str) -> bool:
        value = numbers_of(version)
        return any(all(_holds(operator, value, bound) for operator, bound in part) for part in self.alternatives)


@lru_cache(maxsize=65536)
def within(version: str, text: str) -> bool:
    """``version in VersionRange(text)``, for thousands of kernels and drivers held against a handful of ranges."""
    return version in _range(text)


@lru_cache(maxsize=1024)
def _range(text: str) -> VersionRange:
    return VersionRange(text)


def _holds(operator: str, value: tuple[int, ...], bound: tuple[int, ...]) -> bool:
    if operator == "prefix":
        return value[: len(bound)] == bound
    width = max(len(value), len(bound))
    a, b = (v + (0,) * (width - len(v)) for v in (value, bound))
    return {">=": a >= b, "<=": a <= b, "==": a == b, "<": a < b, ">": a > b}[operator]
