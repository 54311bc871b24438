"""NVIDIA's feeds of driver versions: what is out, in which branch, and until when a branch is supported.

Only the data-centre feed lists versions with their run files. ``latest.txt`` names one driver, not the highest
(2024-10: 550.120, while 560.35.03 was out); the unofficial list lags behind: both are hints. endoflife.date is a third
party, read for end-of-life dates, which NVIDIA publishes for people only.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from typing import Annotated, Final, TypeVar

from msgspec import Meta, Struct, field

from ...config.records import Arch
from ...core import strict_json
from ...core.errors import UpstreamDataError
from ...core.versions import DriverVersion
from ..records import Skips

DATA_CENTRE_URL: Final = "https://docs.nvidia.com/datacenter/tesla/drivers/releases.json"
UNOFFICIAL_URL: Final = "https://people.freedesktop.org/~aplattner/nvidia-versions.txt"
NEWEST_URL: Final = "https://raw.githubusercontent.com/endoflife-date/release-data/main/releases/nvidia-driver.json"
END_OF_LIFE_URL: Final = "https://endoflife.date/api/nvidia.json"
TYPES: Final = frozenset({"production branch", "lts branch", "new feature branch"})
MATURITIES: Final = frozenset({"official", "long-lived-branch-release", "beta", "prerelease"})
NVIDIA_ARCH: Final[dict[Arch, str]] = {"amd64": "x86_64", "arm64": "aarch64"}
"""NVIDIA's name of an architecture in run files. The feeds have more (ppc64le, i386), which no CoreOS runs on."""

_REFUSED: Final = "the feed is refused as a whole; see whether its format has changed"
_BRANCH: Final = re.compile(r"[0-9]{2,3}")
_HINT_BRANCH: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_LATEST: Final = re.compile(r"(\S{1,40})[ \t]+\1/NVIDIA-Linux-([a-z0-9_]{1,20})-\1\.run\n*")
_LINUX: Final = re.compile(r"r([0-9]{2,3})(-linux)?")
_Day = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")]
_Entry = TypeVar("_Entry")


class DriverRelease(Struct, frozen=True, kw_only=True):
    """One driver of the data-centre feed: exact version, day (``2026-08-03``), run file of each architecture."""

    version: str
    date: str
    runfiles: dict[Arch, str]


class Branch(Struct, frozen=True, kw_only=True):
    """One branch (``535``), its type as the feed words it, and its releases, highest version first."""

    name: str
    type: str
    releases: tuple[DriverRelease, ...]


class DataCentre(Struct, frozen=True, kw_only=True):
    """The data-centre feed, highest branch first."""

    branches: tuple[Branch, ...]
    warnings: tuple[str, ...]


class Hint(Struct, frozen=True, kw_only=True):
    """One line of the unofficial list: ``branch`` may be ``current``, ``173.14`` or ``opengl4.4``."""

    branch: str
    maturity: str
    version: str


class Hints(Struct, frozen=True, kw_only=True):
    """The unofficial list, highest version first."""

    hints: tuple[Hint, ...]
    warnings: tuple[str, ...]


class Newest(Struct, frozen=True, kw_only=True):
    """The newest Linux version of each branch that a third party has seen, highest branch first: (version, day)."""

    branches: dict[str, tuple[str, str]]
    warnings: tuple[str, ...]


class EndOfLife(Struct, frozen=True, kw_only=True):
    """For each branch the day its support ends, or whether it has ended where no day is known."""

    branches: dict[str, datetime.date | bool]
    warnings: tuple[str, ...]


class _Release(Struct, frozen=True):
    release_version: str
    release_date: _Day
    runfile_url: dict[str, str] = {}


class _Branch(Struct, frozen=True):
    type: str
    driver_info: tuple[_Release, ...]


class _Seen(Struct, frozen=True):
    latest: str
    latest_release_date: _Day = field(name="latestReleaseDate")


class _SeenAll(Struct, frozen=True):
    releases: dict[str, _Seen]


class _Cycle(Struct, frozen=True):
    cycle: str
    eol: datetime.date | bool


def latest_url(arch: Arch) -> str:
    """The file that names one driver of an architecture."""
    return f"https://download.nvidia.com/XFree86/Linux-{NVIDIA_ARCH[arch]}/latest.txt"


def version(text: str, url: str) -> str:
    """``text`` itself when it is a driver's version: it goes into URLs, Dockerfiles and tags.

    Raises UpstreamDataError that names ``url``.
    """
    try:
        return DriverVersion(text).text
    except UpstreamDataError as error:
        raise UpstreamDataError(f"{url}: {error.message}", hint=_REFUSED) from error


def parse_data_centre(data: bytes, url: str = DATA_CENTRE_URL) -> DataCentre:
    """The data-centre feed.

    A release's architectures are those it has a run file for; its ``architectures`` may say otherwise (535.104.12). The
    order in the feed means nothing (branch 515). An unknown type of branch is kept, and named in a warning.
    Raises UpstreamDataError for another document, a version that is none, or a feed without any run file.
    """
    found: list[Branch] = []
    warnings: list[str] = []
    skips = Skips()
    for name, branch in strict_json.decode(data, dict[str, _Branch], url).items():
        if not _BRANCH.fullmatch(name):
            skips.add("not a branch number", name)
            continue
        if branch.type not in TYPES:
            warnings.append(f"{url}: branch {name} has the unknown type '{branch.type}'")
        releases = [r for entry in branch.driver_info if (r := _release(entry, name, url, skips))]
        unique = {release.version: release for release in releases}
        if len(unique) < len(releases):
            warnings.append(f"{url}: branch {name} lists a version twice; the last entry is taken")
        if unique:
            found.append(Branch(name=name, type=branch.type, releases=_sorted(unique.values())))
        else:
            skips.add("a branch without run files", name)
    if not found:
        raise UpstreamDataError(f"{url}: no driver with a run file in it", hint=_REFUSED)
    found.sort(key=lambda branch: int(branch.name), reverse=True)
    return DataCentre(branches=tuple(found), warnings=(*warnings, *skips.warnings(url)))


def _release(entry: _Release, branch: str, url: str, skips: Skips) -> DriverRelease | None:
    text = version(entry.release_version, url)
    if DriverVersion(text).branch != branch:
        skips.add(f"not a version of branch {branch}", text)
        return None
    runfiles: dict[Arch, str] = {}
    for arch, name in NVIDIA_ARCH.items():
        if (address := entry.runfile_url.get(name)) is None:
            continue
        if re.fullmatch(rf"https://[a-z0-9.-]+\.nvidia\.com/[!-~]*/NVIDIA-Linux-{name}-{re.escape(text)}\.run", address):
            runfiles[arch] = address
        else:
            skips.add("not NVIDIA's address of that version's run file", address)
    if not runfiles:
        skips.add("no run file for amd64 or arm64", text)
        return None
    return DriverRelease(version=text, date=entry.release_date, runfiles=runfiles)


def _sorted(releases: Iterable[DriverRelease]) -> tuple[DriverRelease, ...]:
    return tuple(sorted(releases, key=lambda release: DriverVersion(release.version), reverse=True))


def parse_latest(data: bytes, url: str) -> str:
    """The version that ``latest.txt`` names: one line, ``550.120 550.120/NVIDIA-Linux-x86_64-550.120.run``.

    Raises UpstreamDataError for anything else.
    """
    match = _LATEST.fullmatch(data.decode("utf-8", "replace"))
    if not match or f"/Linux-{match[2]}/" not in url:
        raise UpstreamDataError(f"{url}: not one line with a version and its run file", hint=_REFUSED)
    return version(match[1], url)


def parse_unofficial(data: bytes, url: str = UNOFFICIAL_URL) -> Hints:
    """The unofficial list: ``branch maturity version``, more columns and branches may come (its own first lines).

    Raises UpstreamDataError where no line is understood, or a version is none.
    """
    found: list[Hint] = []
    warnings: list[str] = []
    skips = Skips()
    for line in data.decode("utf-8", "replace").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 3 or not _HINT_BRANCH.fullmatch(words[0]):
            skips.add("not 'branch maturity version'", line)
            continue
        if words[1] not in MATURITIES:
            warnings.append(f"{url}: branch {words[0]} has the unknown maturity '{words[1]}'")
        found.append(Hint(branch=words[0], maturity=words[1], version=version(words[2], url)))
    if not found:
        raise UpstreamDataError(f"{url}: no line of it is 'branch maturity version'", hint=_REFUSED)
    found.sort(key=lambda hint: (DriverVersion(hint.version), hint.branch, hint.maturity), reverse=True)
    return Hints(hints=tuple(found), warnings=(*warnings, *skips.warnings(url)))


def parse_newest(data: bytes, url: str = NEWEST_URL) -> Newest:
    """What endoflife.date's robot read out of NVIDIA's feed: ``releases.r580-linux.latest``. Windows is left out.

    There is no end-of-life date in it. Raises UpstreamDataError for another document, or one without a Linux branch.
    """
    found: dict[str, tuple[str, str]] = {}
    skips = Skips()
    for name, seen in strict_json.decode(data, _SeenAll, url).releases.items():
        match = _LINUX.fullmatch(name)
        if not match:
            if not name.endswith("-windows"):
                skips.add("not a branch for Linux", name)
        elif DriverVersion(version(seen.latest, url)).branch != match[1]:
            skips.add(f"not a version of branch {match[1]}", seen.latest)
        else:
            found[match[1]] = seen.latest, seen.latest_release_date
    return Newest(branches=_by_branch(found, url), warnings=skips.warnings(url))


def parse_end_of_life(data: bytes, url: str = END_OF_LIFE_URL) -> EndOfLife:
    """endoflife.date's table: a list of ``{"cycle": "r580-linux", "eol": "2028-08-04" or true or false}``.

    Raises UpstreamDataError for another document, or one without a Linux branch.
    """
    found: dict[str, datetime.date | bool] = {}
    skips = Skips()
    for cycle in strict_json.decode(data, tuple[_Cycle, ...], url):
        if match := _LINUX.fullmatch(cycle.cycle):
            found[match[1]] = cycle.eol
        elif not cycle.cycle.endswith("-windows"):
            skips.add("not a branch for Linux", cycle.cycle)
    return EndOfLife(branches=_by_branch(found, url), warnings=skips.warnings(url))


def _by_branch(found: dict[str, _Entry], url: str) -> dict[str, _Entry]:
    if not found:
        raise UpstreamDataError(f"{url}: no branch for Linux in it", hint=_REFUSED)
    return dict(sorted(found.items(), key=lambda item: int(item[0]), reverse=True))
