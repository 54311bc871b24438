"""The rules that a lock obeys beyond its types, one function a rule. Each raises BadFileError for the first thing that breaks it.

A lock of 2 500 kernels must not take longer to check than it takes to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ..core import tags
from ..core.errors import BadFileError, PipelineError
from ..core.timestamps import epoch_of
from ..core.versions import DriverVersion, KernelRelease
from . import distributions
from .records import FILE_NAME, File, Lock, is_tarball, qualified_tags

HINT: Final = "'doit update' writes this file; undo the edit"


@dataclass(frozen=True)
class Refuse:
    """How a rule refuses: errors with the file's ``name`` and a path in it. ``local``: files of this machine are allowed."""

    name: str
    local: bool = False

    def bad(self, where: str, what: str) -> BadFileError:
        """Make the error for ``what`` at the path ``where``."""
        return BadFileError(f"{self.name}: {what} - at `$.{where}`", hint=HINT)

    def twice(self, where: str, keys: Iterable[object]) -> None:
        """Raise BadFileError for the first of ``keys`` that came before."""
        seen: set[object] = set()
        for number, key in enumerate(keys):
            if key in seen:
                raise self.bad(f"{where}[{number}]", f"two entries for {key}")
            seen.add(key)


def entries_are_unique(lock: Lock, at: Refuse) -> None:
    """Check that nothing is pinned, or pending, twice."""
    at.twice("bases", (b.arch for b in lock.bases))
    at.twice("toolchains", (f"{t.name} {t.arch}" for t in lock.toolchains))
    at.twice("drivers", (f"driver {d.version} {d.arch}" for d in lock.drivers))
    if len({k.key for k in lock.kernels}) < len(lock.kernels):  # two builds of one kernel string differ in their headers
        at.twice("kernels", (f"kernel {k.key} headers {k.headers_digest[:12]}" for k in lock.kernels))
    at.twice("pending", (f"pending {p.os}/{p.arch}:{p.kernel or p.reason}" for p in lock.pending))
    at.twice("pending_drivers", (f"pending driver {d.version} {d.arch}" for d in lock.pending_drivers))


def dates_exist(lock: Lock, at: Refuse) -> None:
    """Check that every date is one of the calendar."""
    for where, date in _dates(lock):
        try:
            epoch_of(date)
        except ValueError as error:
            raise at.bad(where, f"there is no {date}") from error


def files_have_one_origin(lock: Lock, at: Refuse) -> None:
    """Check that each file is named once in its list, comes from one place, and has a name that a disk takes."""
    for group, place, part, files in _walk(lock):
        if len({file.name for file in files}) < len(files):  # one package of two architectures is two files
            at.twice(f"{group}[{place}].{part}", (f"{file.name} ({_machine(file)})" for file in files))
        for number, file in enumerate(files):
            if what := _wrong_origin(file, at):
                raise at.bad(f"{group}[{place}].{part}[{number}]", what)


def _wrong_origin(file: File, at: Refuse) -> str:
    """Say what is wrong with where a file comes from; "" where nothing is."""
    if file.local is not None and not at.local:
        return f"{file.name} is a file of one machine, which no other has"
    origins = (file.archive is not None) + bool(file.urls) + (file.local is not None)
    if (file.archive is None) != (file.path is None) or origins != 1:
        return f"{file.name} needs either archive and path, or urls"
    if (file.path is None or len(file.path) > 255) and not FILE_NAME.fullmatch(file.file_name):  # a path has a pattern
        return f"{file.name} would be a file named '{file.file_name}'"
    return ""


def oses_are_known(lock: Lock, at: Refuse) -> None:
    """Check that every OS is one that this project knows."""
    known = {*distributions.NO_FEED, *distributions.names()}
    oses = {"toolchains": [t.os for t in lock.toolchains], "kernels": [k.os for k in lock.kernels]}
    for where, found in {**oses, "pending": [p.os for p in lock.pending]}.items():
        if unknown := set(found) - known:
            raise at.bad(f"{where}[{found.index(min(unknown))}].os", f"no OS '{min(unknown)}'")


def drivers_can_be_built(lock: Lock, at: Refuse) -> None:
    """Check that each driver has a version, sources of a kind, and those of every kind that it requires."""
    for number, driver in enumerate(lock.drivers):
        try:
            DriverVersion(driver.version)
        except PipelineError as error:
            raise at.bad(f"drivers[{number}].version", error.message) from error
        if driver.fabric and driver.source == "debian":
            what = f"driver {driver.version} is of Debian's packages, its Fabric Manager is not"
            raise at.bad(f"drivers[{number}].fabric", what)
        if not driver.kinds:
            raise at.bad(f"drivers[{number}]", f"driver {driver.version} has no module sources of either kind")
        if missing := [k for k in driver.required if k not in driver.kinds]:
            raise at.bad(f"drivers[{number}].required", f"driver {driver.version} has no {missing[0]} sources")


def pending_is_sound(lock: Lock, at: Refuse) -> None:
    """Check versions and kernels of what is pending, which reach the index and its file names."""
    for number, pending in enumerate(lock.pending):
        try:
            for version in pending.drivers:
                DriverVersion(version)
            if pending.kernel:
                KernelRelease(pending.kernel)
        except PipelineError as error:
            raise at.bad(f"pending[{number}]", error.message) from error
        if len({(r.channel, r.version) for r in pending.releases}) < len(pending.releases):
            raise at.bad(f"pending[{number}].releases", "a release stands twice")
    for number, driver in enumerate(lock.pending_drivers):
        try:
            DriverVersion(driver.version)
        except PipelineError as error:
            raise at.bad(f"pending_drivers[{number}].version", error.message) from error
        if (driver.version, driver.arch) in lock._drivers:
            raise at.bad(f"pending_drivers[{number}]", f"driver {driver.version} for {driver.arch} is pinned and pending")


def forms_fit_files(lock: Lock, at: Refuse) -> None:
    """Check that the files of each entry are of its declared form or source: what reads them goes by that."""
    unpackers = {toolchain.arch for toolchain in lock.toolchains if toolchain.image is None}
    for number, base in enumerate(lock.bases):
        if base.arch not in unpackers:
            what = f"no toolchain of Debian's packages for {base.arch}, which unpacks base and userspace"
            raise at.bad(f"bases[{number}]", what)
    for number, driver in enumerate(lock.drivers):
        files = {*driver.open, *driver.proprietary, *driver.userspace}
        if driver.source == "debian":
            fits = all(file.archive is not None for file in files)
        else:
            ending = ".run" if driver.source == "run" else ".tar.xz"
            fits = len(files) == 1 and all(file.file_name.endswith(ending) for file in files)
        if not fits:
            raise at.bad(f"drivers[{number}].source", f"the files of driver {driver.version} are not those of '{driver.source}'")
    for number, kernel in enumerate(lock.kernels):
        headers, image = ([file.file_name for file in files] for files in (kernel.headers, kernel.image))
        fits = {
            "debs": all(file.archive is not None for file in kernel.headers),
            "rpms": all(name.endswith(".rpm") for name in (*headers, *image)),
            "developer-container": len(headers) == 1 and len(image) <= 1,
            "source": sorted(map(is_tarball, headers)) == [False, True] and len(image) <= 1,
        }[kernel.form]
        if not fits:
            raise at.bad(f"kernels[{number}].form", f"the files of {kernel.kernel} are not those of '{kernel.form}'")


def kernels_can_be_built(lock: Lock, at: Refuse) -> None:
    """Check that each kernel has a valid name and tags, and that its drivers, toolchain and base are pinned."""
    for number, kernel in enumerate(lock.kernels):
        where = f"kernels[{number}]"
        for version in kernel.drivers:
            if (version, kernel.arch) not in lock._drivers:
                raise at.bad(f"{where}.drivers", f"no driver {version} for {kernel.arch}")
        try:
            KernelRelease(kernel.kernel)
            longest = max(kernel.drivers, key=len, default="")  # drivers are digits and dots: if its tags can be, all can
            for text in (tags.plain(kernel.kernel, longest), *qualified_tags(kernel, longest)) if longest else ():
                tags.check_tag(text)
        except PipelineError as error:
            raise at.bad(f"{where}.kernel", error.message) from error
        if (kernel.toolchain, kernel.arch) not in lock._toolchains:
            raise at.bad(f"{where}.toolchain", f"no toolchain {kernel.toolchain} for {kernel.arch}")
        if kernel.arch not in lock._bases:
            raise at.bad(f"{where}.arch", f"no base for {kernel.arch}")
        if len(set(kernel.drivers)) < len(kernel.drivers):
            at.twice(f"{where}.drivers", kernel.drivers)
        if len(kernel.releases) > 1:
            at.twice(f"{where}.releases", (f"release {r.channel} {r.version}" for r in kernel.releases))


def kernels_share_no_tag(lock: Lock, at: Refuse) -> None:
    """Check that no tag would name two kernels; what architectures share is one index."""
    plain: dict[str, str] = {}
    qualified: dict[tuple[str, str], set[str]] = {}
    for number, kernel in enumerate(lock.kernels):
        tag = tags.tag_text(kernel.kernel)
        if plain.setdefault(tag, kernel.kernel) != kernel.kernel:
            raise at.bad(f"kernels[{number}]", f"kernels {plain[tag]} and {kernel.kernel} would share the tag {tag}")
        mine = {release.os_tag for release in kernel.releases}
        seen = qualified.setdefault((kernel.arch, kernel.kernel), set())
        if both := sorted(mine & seen):
            raise at.bad(f"kernels[{number}]", f"two kernels {kernel.kernel} would share the tag …-{both[0]}")
        seen |= mine


RULES: Final[tuple[Callable[[Lock, Refuse], None], ...]] = (
    entries_are_unique,
    dates_exist,
    files_have_one_origin,
    oses_are_known,
    drivers_can_be_built,
    pending_is_sound,
    forms_fit_files,
    kernels_can_be_built,
    kernels_share_no_tag,
)
"""In the order in which they are asked: a later rule may rely on an earlier one."""


def _walk(lock: Lock) -> Iterator[tuple[str, int, str, tuple[File, ...]]]:
    """Every list of pinned files, with its place in the file: group, number in it, and part."""
    for n, base in enumerate(lock.bases):
        yield "bases", n, "packages", base.packages
    for n, toolchain in enumerate(lock.toolchains):
        yield "toolchains", n, "packages", toolchain.packages
    for n, driver in enumerate(lock.drivers):
        yield "drivers", n, "open", driver.open
        yield "drivers", n, "proprietary", driver.proprietary
        yield "drivers", n, "userspace", driver.userspace
        yield "drivers", n, "fabric", driver.fabric
    for n, kernel in enumerate(lock.kernels):
        yield "kernels", n, "headers", kernel.headers
        yield "kernels", n, "image", kernel.image


def _dates(lock: Lock) -> Iterator[tuple[str, str]]:
    """Every date once, with the place of the first entry that has it."""
    places: dict[str, str] = {}
    for group in ("bases", "toolchains", "drivers", "kernels"):
        for number, entry in enumerate(getattr(lock, group)):
            if entry.date not in places:
                places[entry.date] = f"{group}[{number}].date"
    return ((place, date) for date, place in places.items())


def _machine(file: File) -> str:
    """``amd64.deb`` of a Debian package's file, what else ends a file's name."""
    return file.file_name.rpartition("_")[2] if file.path or file.urls else file.name
