"""Kernels of Fedora CoreOS and Flatcar, pinned from what their vendors publish: got, checked against the vendor's key, measured.

Checked means: an RPM's own signature by Fedora's key; a Flatcar file's detached ``.sig`` and its ``.DIGESTS``; a tarball of
kernel.org by the signed list of sums beside it. That the archive holds this very kernel is looked up in it.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final

from . import disk_image, gpg, rpms
from .artefacts import Taken
from .errors import IntegrityError, NotFoundError
from .gpg import Keys
from .means import Means, Unpinned, keyring
from .pinned import Arch, File, Form, Kernel, OsRelease
from .unpacking import unpacked
from .upstream.fedora_kernel import kernel_rpm_urls, split
from .upstream.flatcar import file_url
from .upstream.records import Release

DEVELOPER_CONTAINER: Final = "flatcar_developer_container.bin.bz2"
KERNEL: Final = "flatcar_production_pxe.vmlinuz"
CONFIG: Final = "flatcar_production_image_kernel_config.txt"
BINCACHE: Final = "https://bincache.flatcar-linux.net/images"
KERNEL_ORG: Final = "https://cdn.kernel.org/pub/linux/kernel"
_MAX_RPM: Final = 1 << 30
_MAX_IMAGE: Final = 4 << 30
_SUM: Final = re.compile(r"([0-9a-f]{64}) [ *]([A-Za-z0-9._+-]+)")
_DIGEST: Final = re.compile(r"([0-9a-f]{128}) [ *]([A-Za-z0-9._+-]+)")


def fedora(release: Release, means: Means) -> Kernel | Unpinned:
    """kernel-devel and kernel-core of exactly this kernel, from the first place that has them. Raises as ``tried`` says."""
    assert release.kernel is not None
    kernel = release.kernel
    revision = split(kernel)[1]
    name = f"fedora-{revision.rpartition('.fc')[2]}"
    if (name, release.arch) not in {(t.name, t.arch) for t in means.lock.toolchains}:
        return Unpinned(f"no toolchain {name} for {release.arch}: give its image in a [[toolchain]] of versions.toml")
    places = {package: kernel_rpm_urls(kernel, package) for package in ("kernel-devel", "kernel-core", "kernel-modules-core")}
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
            taken = _rpm(package, release.kernel, urls, keys, means)
        except NotFoundError:
            if package not in optional:
                raise
        else:
            pins.append(taken.pin(package, release.kernel.rpartition(".")[0], "vendor-sum", urls))
    return _kernel(release, toolchain, "rpms", (pins[0],), tuple(pins[1:]))


def _rpm(package: str, kernel: str, urls: Sequence[str], keys: Keys, means: Means) -> Taken:
    assert means.take is not None
    taken = means.take(urls, _MAX_RPM)
    said = rpms.verify(taken.path, keys)
    if said.nvra != f"{package}-{kernel}":
        raise IntegrityError(f"{taken.url} holds {said.nvra}", hint="nothing of it is used")
    return taken


def flatcar(release: Release, means: Means) -> Kernel | Unpinned:
    """The developer container, or where there is none the published config and kernel.org's source. Raises as ``tried`` says."""
    assert release.kernel is not None
    kernel = release.kernel
    keys = keyring(means.keys, means.get)
    own = [t for t in means.lock.toolchains if t.arch == release.arch]
    chosen = [t for t in own if t.os == "flatcar"] or [t for t in own if t.image is None]
    if not chosen:
        return Unpinned(f"no toolchain for {release.arch}: [debian] gives one, or a [[toolchain]] of versions.toml")
    toolchain = min(chosen, key=lambda t: t.name)
    image = (_flatcar_file(release, KERNEL, keys, means).pin("kernel", release.version, "vendor-sum", _places(release, KERNEL)),)
    try:
        container = _flatcar_file(release, DEVELOPER_CONTAINER, keys, means)
    except NotFoundError:
        config = _flatcar_file(release, CONFIG, keys, means)
        headers = source(kernel, release.kernel_version, config, means)
        made = [t for t in own if t.name.endswith("-source")]
        if isinstance(headers, Unpinned) or not made:
            return headers if isinstance(headers, Unpinned) else Unpinned("no toolchain with what a kernel's source needs")
        return _kernel(release, made[0].name, "source", headers, image)
    with disk_image.opened(container.path, container.path.parent, means.max_unpacked) as root:
        there = root.names("usr/lib/modules") or root.names("lib/modules")
    if kernel not in there:
        raise IntegrityError(
            f"{container.url} is of {', '.join(there) or 'no kernel'}, not {kernel}", hint="nothing of it is used"
        )
    pin = container.pin("flatcar_developer_container", release.version, "vendor-sum", _places(release, DEVELOPER_CONTAINER))
    return _kernel(release, toolchain.name, "developer-container", (pin,), image)


def _places(release: Release, name: str) -> tuple[str, ...]:
    """The release server, then the build cache that setup-nvidia of flatcar/scripts falls back to."""
    own = file_url(release.channel, release.arch, release.version, name)
    return own, f"{BINCACHE}/{release.arch}/{release.version}/{name}"


def _flatcar_file(release: Release, name: str, keys: Keys, means: Means) -> Taken:
    assert means.take is not None
    taken = means.take(_places(release, name), _MAX_IMAGE)
    gpg.verify(taken.path, means.get(f"{taken.url}.sig", True), keys, taken.url)
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


def source(kernel: str, version: str, config: Taken, means: Means) -> tuple[File, ...] | Unpinned:
    """kernel.org's tarball of ``version`` and ``config`` as headers of ``kernel``. Raises as ``tried`` says."""
    assert means.take is not None
    with config.path.open("rb") as file:
        text = unpacked(file, config.path.name, 16 << 20).read().decode("utf-8", "replace")
    said = re.search(r"^# Linux/\S+ (\S+) Kernel Configuration$", text, re.MULTILINE)
    if not said or not (said[1] == version or said[1].startswith((f"{version}-", f"{version}+"))):
        raise IntegrityError(
            f"{config.url} is the configuration of {said[1] if said else 'no kernel'}, not of {version}", hint="refused"
        )
    if not means.source_keys:
        return Unpinned("no fingerprint of kernel.org's signing key in [container-linux] keys: its source could not be checked")
    folder = f"{KERNEL_ORG}/v{version.partition('.')[0]}.x"
    keys = keyring(means.source_keys, means.get)
    sums = gpg.cleartext(means.get(f"{folder}/sha256sums.asc", False), keys, f"{folder}/sha256sums.asc").decode(
        "utf-8", "replace"
    )
    name = f"linux-{version.removesuffix('.0')}.tar.xz"
    want = [m[1] for line in sums.splitlines() if (m := _SUM.fullmatch(line.strip())) and m[2] == name]
    tarball = means.take([f"{folder}/{name}"], _MAX_RPM)
    if want != [tarball.sha256]:
        raise IntegrityError(f"{tarball.url} is not what the signed list of sums says", hint="nothing of it is used")
    return tarball.pin("linux", version, "vendor-sum"), config.pin("config", kernel, "vendor-sum")


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
