"""Kernels of CoreOS systems, pinned from what their vendors publish: got, checked against the vendor's key, measured.

Checked means: an RPM's own signature by Fedora's key; a Flatcar file's detached ``.sig`` and its ``.DIGESTS``; a tarball of
kernel.org by the signed list of sums beside it (pin_source). That the archive holds this very kernel is looked up in it.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final

from ...config.records import Arch, File, Form, Kernel, OsRelease, Toolchain
from ...core.errors import IntegrityError, NotFoundError, UpstreamDataError
from ...core.versions import numbers_of
from ...fetch.vendor_files import Taken
from ...formats import gpt, openpgp, rpms
from ...formats.openpgp import Keys
from ...upstream.coreos.container_linux import RELEASES, parse_version_txt
from ...upstream.coreos.fedora_kernel import kernel_rpm_urls, split
from ...upstream.coreos.flatcar import file_url
from ...upstream.records import Release
from . import pin_source
from .context import Means, Unpinned, keyring

DEVELOPER_CONTAINER: Final = "flatcar_developer_container.bin.bz2"
KERNEL: Final = "flatcar_production_pxe.vmlinuz"
CONFIG: Final = "flatcar_production_image_kernel_config.txt"
OLD_KERNEL: Final = "coreos_production_pxe.vmlinuz"
OLD_CONFIG: Final = "coreos_production_image_kernel_config.txt"
"""Container Linux's names of the same; the first is the one that PXE guides name, the second the one that its build scripts,
from which Flatcar's come, wrote. No recorded directory lists it: where it is missing, the host's own is the way."""
BINCACHE: Final = "https://bincache.flatcar-linux.net/images"
_MAX_RPM: Final = 1 << 30
_MAX_IMAGE: Final = 4 << 30
_DIGEST: Final = re.compile(r"([0-9a-f]{128}) [ *]([A-Za-z0-9._+-]+)")


def fedora(release: Release, means: Means) -> Kernel | Unpinned:
    """kernel-devel and kernel-core of exactly this kernel, from the first place that has them. Raises as ``tried`` says."""
    assert release.kernel is not None
    kernel = release.kernel
    revision = split(kernel)[1]
    name = f"fedora-{revision.rpartition('.fc')[2]}"
    if (name, release.arch) not in {(t.name, t.arch) for t in means.lock.toolchains}:
        return Unpinned(f"no toolchain {name} for {release.arch}: give its image in a [[toolchain]] of versions.toml")
    keys = [key.fingerprint for key in means.keys]
    packages = ("kernel-devel", "kernel-core", "kernel-modules-core")
    places = {package: kernel_rpm_urls(kernel, package, keys) for package in packages}
    return of_rpms(release, name, places, means, optional=("kernel-modules-core",))  # before Fedora 38 a part of kernel-core


def of_rpms(
    release: Release, toolchain: str, places: Mapping[str, Sequence[str]], means: Means, optional: Sequence[str] = ()
) -> Kernel:
    """A kernel of packages signed by ``means.keys``: headers in the first of ``places``, its image and modules in the others.

    ``places``: where each package may lie, in the order to try; those of ``optional`` may be nowhere. Raises as ``tried`` says.
    """
    assert release.kernel is not None
    keys, pins = keyring(means.keys, means.get), []
    for package, urls in places.items():
        try:
            taken, places_of = _rpm(package, release.kernel, urls, keys, means)
        except NotFoundError:
            if package not in optional:
                raise
        else:
            pins.append(taken.pin(package, release.kernel.rpartition(".")[0], "vendor-sum", places_of))
    return _kernel(release, toolchain, "rpms", (pins[0],), tuple(pins[1:]))


def _rpm(package: str, kernel: str, urls: Sequence[str], keys: Keys, means: Means) -> tuple[Taken, Sequence[str]]:
    """The signed package, and the places that may have it: one that has an unsigned one is passed over."""
    assert means.take is not None
    taken = means.take(urls, _MAX_RPM)
    try:
        said = rpms.verify(taken.path, keys)
    except rpms.UnsignedError:
        at = urls.index(taken.url)
        if not (after := urls[at + 1 :]):
            raise
        try:
            signed, places = _rpm(package, kernel, after, keys, means)
        except NotFoundError as error:
            raise IntegrityError(
                f"{taken.url} is not signed, and no other place has it: {error.message}", hint="nothing of it is used"
            ) from error
        return signed, (*urls[:at], *places)
    if said.nvra != f"{package}-{kernel}":
        raise IntegrityError(f"{taken.url} holds {said.nvra}", hint="nothing of it is used")
    return taken, urls


def flatcar(release: Release, means: Means) -> Kernel | Unpinned:
    """The developer container, or where there is none the published config and kernel.org's source. Raises as ``tried`` says.

    The Kbuild programs in the container are of the kernel's own machine, so a toolchain that crosses takes the source.
    """
    assert release.kernel is not None
    kernel = release.kernel
    keys = keyring(means.keys, means.get)
    own = [t for t in means.lock.toolchains if t.arch == release.arch]
    chosen = [t for t in own if t.os == "flatcar"] or [t for t in own if t.image is None]
    if not chosen:
        return Unpinned(f"no toolchain for {release.arch}: [debian] gives one, or a [[toolchain]] of versions.toml")
    toolchain = _closest(chosen, release, keys, means)
    image = (_flatcar_file(release, KERNEL, keys, means).pin("kernel", release.version, "vendor-sum", _places(release, KERNEL)),)
    try:
        if toolchain.crosses:
            raise NotFoundError(f"the developer container of {release.version} runs on {release.arch} alone")
        container = _flatcar_file(release, DEVELOPER_CONTAINER, keys, means)
    except NotFoundError:
        return _of_source(release, _flatcar_file(release, CONFIG, keys, means), image, means)
    with gpt.opened(container.path, container.path.parent, means.max_unpacked) as root:
        there = root.names("usr/lib/modules") or root.names("lib/modules")
    if kernel not in there:
        raise IntegrityError(
            f"{container.url} is of {', '.join(there) or 'no kernel'}, not {kernel}", hint="nothing of it is used"
        )
    pin = container.pin("flatcar_developer_container", release.version, "vendor-sum", _places(release, DEVELOPER_CONTAINER))
    return _kernel(release, toolchain.name, "developer-container", (pin,), image)


def _closest(chosen: Sequence[Toolchain], release: Release, keys: Keys, means: Means) -> Toolchain:
    """Of ``chosen`` the first by name whose gcc is closest to the one that built the kernel, as its configuration says."""
    compilers = {t.name: numbers_of(t.gcc) for t in chosen if t.gcc}
    built: Sequence[int] | None = None
    if len(set(compilers.values())) > 1:
        with contextlib.suppress(NotFoundError):
            config = _flatcar_file(release, CONFIG, keys, means)
            built = pin_source.gcc(config.path, config.url)
    if built is None:
        return min(chosen, key=lambda t: t.name)

    def distance(toolchain: Toolchain) -> tuple[Sequence[int], str]:
        own = compilers.get(toolchain.name)
        return ([1 << 30] if own is None else [abs(a - b) for a, b in zip(own, built, strict=False)]), toolchain.name

    return min(chosen, key=distance)


def _places(release: Release, name: str) -> tuple[str, ...]:
    """The release server, then the build cache that setup-nvidia of flatcar/scripts falls back to."""
    own = file_url(release.channel, release.arch, release.version, name)
    return own, f"{BINCACHE}/{release.arch}/{release.version}/{name}"


def container_linux(release: Release, means: Means) -> Kernel | Unpinned:
    """kernel.org's source, with configuration and kernel out of the release's directory. Raises as ``tried`` says."""
    folder = f"{RELEASES}/{release.version}"
    served = parse_version_txt(means.get(f"{folder}/version.txt", True), f"{folder}/version.txt")
    if f"{served.version}{served.suffix}" != release.version:
        raise UpstreamDataError(f"{folder}/version.txt is of {served.version}{served.suffix}", hint="nothing of it is used")
    keys = keyring(means.keys, means.get)
    image = _signed((f"{folder}/{OLD_KERNEL}",), keys, means).pin("kernel", release.version, "vendor-sum")
    try:
        config = _signed((f"{folder}/{OLD_CONFIG}",), keys, means)
    except NotFoundError:
        why = "its configuration is not published: take /proc/config.gz of such a host for 'doit update --host'"
        return Unpinned(why, f"{folder}/")
    return _of_source(release, config, (image,), means)


def _of_source(release: Release, config: Taken, image: tuple[File, ...], means: Means) -> Kernel | Unpinned:
    """What is compiled against kernel.org's source with ``config``."""
    assert release.kernel is not None
    arch = pin_source.check_config(config.path, config.url, release.kernel, release.kernel_version)
    if arch != release.arch:
        raise IntegrityError(f"{config.url} is of a kernel for {arch}, not {release.arch}", hint="nothing of it is used")
    made = [t for t in means.lock.toolchains if t.arch == release.arch and t.name.endswith("-source")]
    if not made:
        return Unpinned("no toolchain with what a kernel's source needs: give source_toolchain in [debian]")
    tarball = pin_source.tarball(release.kernel_version, means)
    if isinstance(tarball, Unpinned):
        return tarball
    return _kernel(release, made[0].name, "source", (tarball, config.pin("config", release.kernel, "vendor-sum")), image)


def _flatcar_file(release: Release, name: str, keys: Keys, means: Means) -> Taken:
    return _signed(_places(release, name), keys, means)


def _signed(places: tuple[str, ...], keys: Keys, means: Means) -> Taken:
    """The file at the first of ``places`` that has it, as its ``.sig`` and its ``.DIGESTS`` say."""
    assert means.take is not None
    taken = means.take(places, _MAX_IMAGE)
    name = taken.url.rpartition("/")[2]
    openpgp.verify(taken.path, means.get(f"{taken.url}.sig", True), keys, taken.url)
    try:
        text = means.get(f"{taken.url}.DIGESTS", True).decode("utf-8", "replace")
    except NotFoundError:  # the signature says more
        return taken
    if sums := [m[1] for m in _DIGEST.finditer(text) if m[2] == name]:
        digest = hashlib.sha512()
        with taken.path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() not in sums:
            raise IntegrityError(f"{taken.url} is not what its DIGESTS say", hint="nothing of it is used")
    return taken


def _kernel(release: Release, toolchain: str, form: Form, headers: tuple[File, ...], image: tuple[File, ...]) -> Kernel:
    assert release.kernel is not None
    arch: Arch = release.arch
    placeholder = OsRelease(channel=release.channel, version=release.version, id="linux", version_id="0")
    return Kernel(
        os=release.os,
        arch=arch,
        kernel=release.kernel,
        version=release.kernel_version,
        toolchain=toolchain,
        date=release.date or today(),
        form=form,
        headers=headers,
        image=image,
        releases=(placeholder,),
        drivers=(),
    )


def today() -> str:
    """Midnight, as the lock writes dates: for what no source dates."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT00:00:00Z")
