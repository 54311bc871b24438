"""``versions.lock``: everything that may be built, pinned by sha256 and size. Written by ``doit update`` alone.

The file is JSON, one pinned file a line, sorted, so that a change reads well in a pull request and 10 000 kernels parse
in a fraction of a second. Reading is strict: an unknown key, a missing hash, a wrong type, two entries for one thing or
two kernels that would share a tag are errors of one line with the file and the path in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from ..core import tags as tag_names
from ..core.errors import ROOM_HINT, BadFileError, DiskError, PipelineError
from ..core.strict_json import refuse_duplicate_keys
from ..core.tags import check_tag, tag_text
from ..core.timestamps import epoch_of
from ..core.versions import DriverVersion, KernelRelease
from . import distributions
from .records import FILE_NAME, File, Kernel, Lock, is_tarball

LOCK_FILE: Final = Path("versions.lock")
_HINT: Final = "'doit update' writes this file; undo the edit"


def empty() -> Lock:
    """A lock that pins nothing."""
    return Lock(schema=1)


_decoder: Final = msgspec.json.Decoder(Lock)


def parse(data: bytes, name: str = str(LOCK_FILE)) -> Lock:
    """The lock that ``data`` holds.

    Raises BadFileError with ``name`` and the path of the first thing that is wrong.
    """
    try:
        lock = _decoder.decode(data)
        if msgspec.json.format(data, indent=-1) != msgspec.json.encode(lock):  # not as we write it: edited, or a key is lost
            refuse_duplicate_keys(data.decode())
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadFileError(f"{name}: {error}", hint=_HINT) from error
    check(lock, name)
    return lock


def load(path: Path = LOCK_FILE) -> Lock:
    """The lock in ``path``.

    Raises BadFileError where it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}", hint="'doit update' writes it") from error
    return parse(data, str(path))


def check(lock: Lock, name: str, *, local: bool = False) -> None:
    """Raise BadFileError for the first thing in ``lock`` that does not go with the rest; ``local``: files of this machine may."""

    def bad(where: str, what: str) -> BadFileError:
        return BadFileError(f"{name}: {what} - at `$.{where}`", hint=_HINT)

    def once(where: str, keys: Iterable[object]) -> None:
        seen: set[object] = set()
        for number, key in enumerate(keys):
            if key in seen:
                raise bad(f"{where}[{number}]", f"two entries for {key}")
            seen.add(key)

    once("bases", (b.arch for b in lock.bases))
    once("toolchains", (f"{t.name} {t.arch}" for t in lock.toolchains))
    once("drivers", (f"driver {d.version} {d.arch}" for d in lock.drivers))
    if len({k.key for k in lock.kernels}) < len(lock.kernels):  # two builds of one kernel string differ in their headers
        once("kernels", (f"kernel {k.key} headers {k.headers_digest[:12]}" for k in lock.kernels))
    once("pending", (f"pending {p.os}/{p.arch}:{p.kernel or p.reason}" for p in lock.pending))
    once("pending_drivers", (f"pending driver {d.version} {d.arch}" for d in lock.pending_drivers))
    for where, date in _dates(lock):
        try:
            epoch_of(date)
        except ValueError as error:
            raise bad(where, f"there is no {date}") from error
    for group, place, part, files in _walk(lock):
        if len({file.name for file in files}) < len(files):  # one package of two architectures is two files
            once(f"{group}[{place}].{part}", (f"{file.name} ({_machine(file)})" for file in files))
        for number, file in enumerate(files):
            if file.local is not None and not local:
                what = f"{file.name} is a file of one machine, which no other has"
            elif (file.archive is None) != (file.path is None) or (
                (file.archive is not None) + bool(file.urls) + (file.local is not None) != 1
            ):
                what = f"{file.name} needs either archive and path, or urls"
            elif (file.path is None or len(file.path) > 255) and not FILE_NAME.fullmatch(file.file_name):  # a path has a pattern
                what = f"{file.name} would be a file named '{file.file_name}'"
            else:
                continue
            raise bad(f"{group}[{place}].{part}[{number}]", what)
    known = {*distributions.NO_FEED, *distributions.names()}
    oses = {"toolchains": [t.os for t in lock.toolchains], "kernels": [k.os for k in lock.kernels]}
    for where, found in {**oses, "pending": [p.os for p in lock.pending]}.items():
        if unknown := set(found) - known:
            raise bad(f"{where}[{found.index(min(unknown))}].os", f"no OS '{min(unknown)}'")
    for number, driver in enumerate(lock.drivers):
        try:
            DriverVersion(driver.version)
        except PipelineError as error:
            raise bad(f"drivers[{number}].version", error.message) from error
        if driver.fabric and driver.source == "debian":
            raise bad(f"drivers[{number}].fabric", f"driver {driver.version} is of Debian's packages, its Fabric Manager is not")
        if not driver.kinds:
            raise bad(f"drivers[{number}]", f"driver {driver.version} has no module sources of either kind")
        if missing := [k for k in driver.required if k not in driver.kinds]:
            raise bad(f"drivers[{number}].required", f"driver {driver.version} has no {missing[0]} sources")
    _check_pending(lock, bad)
    _check_forms(lock, bad)
    tags: dict[str, str] = {}  # of all architectures: what they share is one index
    for number, kernel in enumerate(lock.kernels):  # 2 500 of them must not take longer than it takes to read them
        where = f"kernels[{number}]"
        for version in kernel.drivers:
            if (version, kernel.arch) not in lock._drivers:
                raise bad(f"{where}.drivers", f"no driver {version} for {kernel.arch}")
        tag = tag_text(kernel.kernel)
        try:
            KernelRelease(kernel.kernel)
            longest = max(kernel.drivers, key=len, default="")  # drivers are digits and dots: if its tags can be, all can
            for text in (tag_names.plain(kernel.kernel, longest), *qualified_tags(kernel, longest)) if longest else ():
                check_tag(text)
        except PipelineError as error:
            raise bad(f"{where}.kernel", error.message) from error
        if (kernel.toolchain, kernel.arch) not in lock._toolchains:
            raise bad(f"{where}.toolchain", f"no toolchain {kernel.toolchain} for {kernel.arch}")
        if kernel.arch not in lock._bases:
            raise bad(f"{where}.arch", f"no base for {kernel.arch}")
        if len(set(kernel.drivers)) < len(kernel.drivers):
            once(f"{where}.drivers", kernel.drivers)
        if len(kernel.releases) > 1:
            once(f"{where}.releases", (f"release {r.channel} {r.version}" for r in kernel.releases))
        if tags.setdefault(tag, kernel.kernel) != kernel.kernel:
            raise bad(where, f"kernels {tags[tag]} and {kernel.kernel} would share the tag {tag}")
    plain: dict[tuple[str, str], set[str]] = {}
    for number, kernel in enumerate(lock.kernels):
        mine = {release.os_tag for release in kernel.releases}
        seen = plain.setdefault((kernel.arch, kernel.kernel), set())
        if both := sorted(mine & seen):
            raise bad(f"kernels[{number}]", f"two kernels {kernel.kernel} would share the tag …-{both[0]}")
        seen |= mine


def _check_forms(lock: Lock, bad: Callable[[str, str], BadFileError]) -> None:
    """What reads a vendor's files goes by the form that stands beside them: they must be of that form."""
    unpackers = {toolchain.arch for toolchain in lock.toolchains if toolchain.image is None}
    for number, base in enumerate(lock.bases):
        if base.arch not in unpackers:
            raise bad(f"bases[{number}]", f"no toolchain of Debian's packages for {base.arch}, which unpacks base and userspace")
    for number, driver in enumerate(lock.drivers):
        files = {*driver.open, *driver.proprietary, *driver.userspace}
        if driver.source == "debian":
            fits = all(file.archive is not None for file in files)
        else:
            ending = ".run" if driver.source == "run" else ".tar.xz"
            fits = len(files) == 1 and all(file.file_name.endswith(ending) for file in files)
        if not fits:
            raise bad(f"drivers[{number}].source", f"the files of driver {driver.version} are not those of '{driver.source}'")
    for number, kernel in enumerate(lock.kernels):
        headers, image = ([file.file_name for file in files] for files in (kernel.headers, kernel.image))
        fits = {
            "debs": all(file.archive is not None for file in kernel.headers),
            "rpms": all(name.endswith(".rpm") for name in (*headers, *image)),
            "developer-container": len(headers) == 1 and len(image) <= 1,
            "source": sorted(map(is_tarball, headers)) == [False, True] and len(image) <= 1,
        }[kernel.form]
        if not fits:
            raise bad(f"kernels[{number}].form", f"the files of {kernel.kernel} are not those of '{kernel.form}'")


def _check_pending(lock: Lock, bad: Callable[[str, str], BadFileError]) -> None:
    """Versions and kernels of what is pending reach the index and its file names."""
    for number, pending in enumerate(lock.pending):
        try:
            for version in pending.drivers:
                DriverVersion(version)
            if pending.kernel:
                KernelRelease(pending.kernel)
        except PipelineError as error:
            raise bad(f"pending[{number}]", error.message) from error
        if len({(r.channel, r.version) for r in pending.releases}) < len(pending.releases):
            raise bad(f"pending[{number}].releases", "a release stands twice")
    for number, driver in enumerate(lock.pending_drivers):
        try:
            DriverVersion(driver.version)
        except PipelineError as error:
            raise bad(f"pending_drivers[{number}].version", error.message) from error
        if (driver.version, driver.arch) in lock._drivers:
            raise bad(f"pending_drivers[{number}]", f"driver {driver.version} for {driver.arch} is pinned and pending")


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


def qualified_tags(kernel: Kernel, driver: str) -> list[str]:
    """``<nvidia>-<kernel>-<ID><VERSION_ID>`` for every release with that kernel (GPU Operator's form)."""
    os_tags = sorted({release.os_tag for release in kernel.releases})
    return [tag_names.qualified(driver, kernel.kernel, os_tag) for os_tag in os_tags]


def dump(lock: Lock) -> bytes:
    """The file's bytes: sorted, one pinned file a line, ending with a newline; equal locks give equal bytes."""
    tidy = msgspec.structs.replace(
        lock,
        bases=tuple(_packages(b) for b in sorted(lock.bases, key=lambda b: b.arch)),
        toolchains=tuple(_packages(t) for t in sorted(lock.toolchains, key=lambda t: (t.name, t.arch))),
        drivers=tuple(
            msgspec.structs.replace(d, userspace=_sorted(d.userspace))
            for d in sorted(lock.drivers, key=lambda d: (DriverVersion(d.version), d.arch))
        ),
        kernels=tuple(
            msgspec.structs.replace(
                k,
                headers=_sorted(k.headers),
                image=_sorted(k.image),
                drivers=tuple(sorted(k.drivers, key=DriverVersion)),
                releases=tuple(sorted(k.releases, key=lambda r: (r.channel, r.version))),
            )
            for k in sorted(lock.kernels, key=lambda k: (k.os, KernelRelease(k.kernel), k.arch, k.headers_digest))
        ),
        pending=tuple(
            msgspec.structs.replace(
                p,
                drivers=tuple(sorted(p.drivers, key=DriverVersion)),
                releases=tuple(sorted(p.releases, key=lambda r: (r.channel, r.version))),
            )
            for p in sorted(lock.pending, key=lambda p: (p.os, _order(p.kernel), p.arch, p.reason))
        ),
        pending_drivers=tuple(sorted(lock.pending_drivers, key=lambda d: (DriverVersion(d.version), d.arch))),
    )
    return (_layout(msgspec.to_builtins(tidy), 0) + "\n").encode()


def _order(kernel: str) -> tuple[bool, KernelRelease | str]:
    return bool(kernel), KernelRelease(kernel) if kernel else ""


def _packages(entry: Any) -> Any:
    return msgspec.structs.replace(entry, packages=_sorted(entry.packages))


def _sorted(files: tuple[File, ...]) -> tuple[File, ...]:
    return tuple(sorted(files, key=lambda f: (f.name, f.version, f.sha256)))


def _layout(value: Any, depth: int) -> str:
    """JSON in which a table or list without inner tables stands on one line."""
    if not isinstance(value, dict | list | tuple) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict) and not any(isinstance(v, dict) or _holds_tables(v) for v in inner):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict) and not _holds_tables(value):
        return json.dumps(value, ensure_ascii=False)
    pad, end = " " * (depth + 1), " " * depth
    if isinstance(value, dict):
        rows = [f"{pad}{json.dumps(k)}: {_layout(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{end}}}"
    return "[\n" + ",\n".join(pad + _layout(v, depth + 1) for v in value) + f"\n{end}]"


def _holds_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(v, dict) for v in value)


def write(path: Path, data: bytes) -> bool:
    """Put ``data`` in ``path`` whole or not at all; False when it was there already.

    Raises DiskError where the disk refuses.
    """
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            return False
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}", hint=ROOM_HINT) from error
    return True
