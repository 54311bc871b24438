"""From a release that discovery found to a kernel that can be built, and from a wished driver to a pinned one.

One function an OS: ``pin(release, means)`` gives the Kernel, with files, headers and toolchain pinned, or Unpinned with
the reason why not. It is asked for each release that the lock does not pin yet, so an artefact is fetched once; whatever
it gives is merged by kernel and headers. It raises NetworkError, UpstreamDataError or IntegrityError where a server or a
file is not right; that becomes the reason. A vendor's key is taken from ``means.keys`` alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from ...config.records import Arch, Driver, Kernel
from ...core.errors import IntegrityError, NetworkError, PairFailed, UpstreamDataError
from ...core.versions import DriverVersion
from ...upstream.coreos.container_linux import RELEASES
from ...upstream.coreos.fedora_kernel import kernel_rpm_urls
from ...upstream.coreos.flatcar import file_url
from ...upstream.nvidia.downloads import tesla_url
from ...upstream.nvidia.selection import Chosen
from ...upstream.records import Release
from . import pin_driver, pin_kernels
from .context import Means, Unpinned

T = TypeVar("T")
_MIRROR: Final = re.compile(r" \(mirror [^()]*\)")
DriverPin = Callable[[Chosen, Arch, Means], Driver | Unpinned]
_NOBODY_SAID: Final[Mapping[str, str]] = {
    "rpmdb": "its kernel is not known: neither the build's metadata nor its container image has given it",
    "packages": "its kernel is not known: its package list is not published yet",
    "revision": "the feed has its kernel.org version only: say in [container-linux] kernels what 'uname -r' prints there",
    "retry": "its kernel is not known: the server that has it did not answer rightly",
}


def unknown_kernel(release: Release) -> Unpinned:
    """Why a release without a kernel has none."""
    return Unpinned(_NOBODY_SAID[release.need or "retry"])


def fedora_coreos(release: Release, means: Means) -> Kernel | Unpinned:
    """The kernel of a Fedora CoreOS release, from Fedora's kernel-devel and kernel-core packages."""
    see = kernel_rpm_urls(release.kernel)[0] if release.kernel else ""
    return _checked(means, "[fedora-coreos]", "Fedora's", "kernel-devel package", see) or pin_kernels.fedora(release, means)


def flatcar(release: Release, means: Means) -> Kernel | Unpinned:
    """The kernel of a Flatcar release, from its developer container, or kernel.org's source and its published config."""
    see = file_url(release.channel, release.arch, release.version, pin_kernels.DEVELOPER_CONTAINER)
    return _checked(means, "[flatcar]", "Flatcar's", "developer container", see) or pin_kernels.flatcar(release, means)


def container_linux(release: Release, means: Means) -> Kernel | Unpinned:
    """The kernel of a Container Linux release, from kernel.org's source and the configuration in the release's directory."""
    see = f"{RELEASES}/{release.version}/"
    return _checked(means, "[container-linux]", "CoreOS's", "kernel and configuration", see) or pin_kernels.container_linux(
        release, means
    )


def _checked(means: Means, table: str, whose: str, what: str, see: str) -> Unpinned | None:
    """Why nothing can be got that could be checked; None where it can."""
    if not means.keys:
        return Unpinned(f"no fingerprint of {whose} signing key in {table} keys: its {what} could not be checked", see)
    if means.take is None:
        return Unpinned(f"its {what} has not been downloaded, checked and pinned", see)
    return None


def driver(chosen: Chosen, arch: Arch, means: Means) -> Driver | Unpinned:
    """A driver out of NVIDIA's own files. Those that Debian's archive has are pinned from there before this is asked."""
    sources = chosen.sources.get(arch, ())
    if not sources:
        return Unpinned("wished, and no source that was read lists it")
    see = tesla_url(DriverVersion(chosen.version), arch) if "data-centre" in sources else ""
    if means.take is None:
        return Unpinned("its archive has not been downloaded, checked and pinned", see)
    return pin_driver.pinned(chosen, arch, means)


def tried(pin: Callable[[], T | Unpinned]) -> T | Unpinned:
    """What ``pin`` gives; a server or file that is not right is a reason, not the end of the run.

    The reason goes into the lock, which is committed: it names the vendor's address, never this network's mirror of it.
    """
    try:
        return pin()
    except (NetworkError, UpstreamDataError, IntegrityError, PairFailed) as error:
        return Unpinned(_MIRROR.sub("", error.message))
