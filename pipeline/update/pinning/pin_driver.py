"""A driver out of NVIDIA's own archives: got, measured, held against a published sum where there is one, and looked into.

Two forms hold one: the run file, at the data-centre and the consumer site, and the redist archive, whose manifest has its
sha256. Nothing of them is run. What a run file is made of its manifest says; both kinds are pinned where both lie in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ...config.nvidia_policy import Source
from ...config.records import Arch, Driver, File, Trust
from ...core.errors import IntegrityError, NotFoundError, UpstreamDataError
from ...core.versions import DriverVersion
from ...fetch.vendor_files import Taken
from ...formats import makeself, nvidia_redist
from ...trees.userspace import FABRIC_MANAGER
from ...upstream.nvidia.downloads import (
    Archive,
    fabric_urls,
    parse_sha256sum,
    runfile_name,
    sha256sum_url,
    tesla_url,
    xfree86_url,
)
from ...upstream.nvidia.feeds import NVIDIA_ARCH
from ...upstream.nvidia.selection import Chosen
from .context import Means, Unpinned
from .pin_kernels import today

_MAX: Final = 2 << 30
_RUN: Final[tuple[Source, ...]] = ("data-centre", "consumer")


def pinned(chosen: Chosen, arch: Arch, means: Means) -> Driver | Unpinned:
    """The driver from the first of its sources that has it: the run file, or the redist archive.

    Raises NotFoundError where none has it, IntegrityError for an archive that is not what its sum or its manifest says.
    """
    gone: list[NotFoundError] = []
    forms = dict.fromkeys("run" if source in _RUN else source for source in chosen.sources.get(arch, ()))
    for form in forms:
        try:
            return redist_archive(chosen, arch, means) if form == "redist" else run_file(chosen, arch, means)
        except NotFoundError as error:
            gone.append(error)
    raise NotFoundError("; ".join(error.message for error in gone), hint="see whether NVIDIA has moved it")


def run_file(chosen: Chosen, arch: Arch, means: Means) -> Driver | Unpinned:
    """The run file, from the site of the source that lists it, else from the other one. Raises as ``pinned`` says."""
    assert means.take is not None
    version = DriverVersion(chosen.version)
    urls = (tesla_url(version, arch), xfree86_url(version, arch))
    first = next((source for source in chosen.sources.get(arch, ()) if source in _RUN), "data-centre")
    urls = urls if first == "data-centre" else urls[::-1]
    taken = means.take(urls, _MAX)
    trust: Trust = "tls-first-sight"
    try:
        said = parse_sha256sum(
            means.get(sha256sum_url(version, arch), True), sha256sum_url(version, arch), runfile_name(version, arch)
        )
    except NotFoundError:
        pass
    else:
        trust = "vendor-sum"
        if said != taken.sha256:
            raise IntegrityError(f"{taken.url} is not what {sha256sum_url(version, arch)} says", hint="nothing of it is used")
    manifest, files = makeself.read(taken.path, means.max_unpacked)
    if manifest.version != chosen.version:
        raise UpstreamDataError(f"{taken.url} holds driver {manifest.version}", hint="nothing of it is used")
    if (said_arch := re.search(r"\bLinux-(\w+)", manifest.title)) and said_arch[1] != NVIDIA_ARCH[arch]:
        raise UpstreamDataError(f"{taken.url} is for {said_arch[1]}, not {NVIDIA_ARCH[arch]}", hint="nothing of it is used")
    pin = taken.pin("NVIDIA-Linux", chosen.version, trust, urls)
    return _driver(chosen, arch, means, pin, files, taken)


def redist_archive(chosen: Chosen, arch: Arch, means: Means) -> Driver | Unpinned:
    """The redist archive, which a redist manifest that was read names. Raises as ``pinned`` says."""
    assert means.take is not None
    archive = next((r.archives[arch] for r in means.redists if r.version == chosen.version and arch in r.archives), None)
    if archive is None:
        return Unpinned("no redist manifest of [nvidia] cuda that was read names its archive")
    taken = means.take((archive.url,), _MAX)
    _is(taken, archive)
    pin = taken.pin("nvidia_driver", chosen.version, "vendor-sum")
    return _driver(chosen, arch, means, pin, nvidia_redist.read(taken.path, means.max_unpacked), taken)


def _is(taken: Taken, archive: Archive) -> None:
    if (taken.sha256, taken.size) != (archive.sha256, archive.size):
        raise IntegrityError(f"{taken.url} is not what its redist manifest says", hint="nothing of it is used")


def _driver(chosen: Chosen, arch: Arch, means: Means, pin: File, files: Iterable[str], taken: Taken) -> Driver | Unpinned:
    names = tuple(files)
    kinds = {
        "open": any(name.startswith("kernel-open/") for name in names),
        "proprietary": any(name.startswith("kernel/") for name in names),
    }
    if missing := [kind for kind in chosen.required if not kinds[kind]]:
        what = "redist archive" if pin.name == "nvidia_driver" else "run file"
        return Unpinned(f"its {what} has no {missing[0]} module sources, which versions.toml requires", taken.url)
    if not any(kinds.values()):
        raise IntegrityError(f"{taken.url} holds no kernel modules' sources", hint="is it a driver of NVIDIA's?")
    return Driver(
        version=chosen.version,
        arch=arch,
        source="redist" if pin.name == "nvidia_driver" else "run",
        date=today(),
        open=(pin,) if kinds["open"] else (),
        proprietary=(pin,) if kinds["proprietary"] else (),
        userspace=(pin,),
        fabric=fabric_manager(chosen.version, arch, means) if means.fabric_manager else (),
        required=chosen.required,
    )


def fabric_manager(version: str, arch: Arch, means: Means) -> tuple[File, ...]:
    """The Fabric Manager of exactly that version, as its redist manifest says where one was read; none where nobody has it.

    Raises IntegrityError for one that is not what it should be.
    """
    assert means.take is not None
    said = next((r.fabric[arch] for r in means.redists if r.version == version and arch in r.fabric), None)
    urls = fabric_urls(DriverVersion(version), arch)
    try:
        taken = means.take(urls, _MAX)
    except NotFoundError:
        return ()
    if said:
        _is(taken, said)
    if f"bin/{FABRIC_MANAGER}" not in nvidia_redist.read(taken.path, means.max_unpacked):
        raise IntegrityError(f"{taken.url} holds no bin/{FABRIC_MANAGER}", hint="nothing of it is used")
    return (taken.pin("fabricmanager", version, "vendor-sum" if said else "tls-first-sight", urls),)
