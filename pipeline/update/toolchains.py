"""The toolchains that versions.toml names: a vendor's image by digest, and pinned packages on top of it.

The digest is a person's, as is the list of packages: what compiles is not chosen by a machine. RPMs are checked by their own
signatures, against the keys of the table of their OS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ..config.policies import Policies
from ..config.records import Arch, BaseImage, File, Lock, Toolchain
from ..config.source_policy import VendorKey
from ..config.versions_toml import ToolchainWish
from ..core.errors import IntegrityError, PipelineError
from ..formats import rpms
from ..upstream.coreos.fedora_kernel import RPM_ARCH
from .pinning.context import Means, keyring
from .pinning.pin_kernels import today
from .reconcile import Notes

_MAX: Final = 1 << 30


def vendor_toolchains(wishes: Sequence[ToolchainWish], policies: Policies, lock: Lock, means: Means, notes: Notes) -> Lock:
    """``lock`` with the toolchains of ``wishes``; one whose packages cannot be had stays as it was, and is named."""
    kept = [t for t in lock.toolchains if t.image is None]
    for wish in wishes:
        keys = policies.families[wish.os].keys if wish.os in policies.families else ()
        for arch, digest in wish.digests.items():
            held = next((t for t in lock.toolchains if (t.name, t.arch) == (wish.name, arch)), None)
            name, _, tag = wish.image.rpartition(":")
            image = BaseImage(name=name, tag=tag, digest=digest)
            try:
                packages = tuple(_package(url, held, means, keys, wish.os, arch) for url in wish.packages.get(arch, ()))
            except PipelineError as error:
                notes.problems.append(f"toolchain {wish.name}/{arch}: {error}" + ("; the pinned one is kept" if held else ""))
                kept += [held] if held else []
                continue
            made = Toolchain(name=wish.name, os=wish.os, arch=arch, date=today(), packages=packages, image=image)
            if held and msgspec.structs.replace(made, date=held.date) == held:
                made = held
            kept.append(made)
    return msgspec.structs.replace(lock, toolchains=tuple(kept))


def _package(url: str, held: Toolchain | None, means: Means, keys: tuple[VendorKey, ...], os: str, arch: Arch) -> File:
    for file in held.packages if held else ():
        if file.urls == (url,):
            return file
    if means.take is None or not keys:
        raise PipelineError(f"{url} cannot be got and checked", hint=f"its vendor's key belongs in [{os}] keys")
    taken = means.take([url], _MAX)
    package = rpms.verify(taken.path, keyring(keys, means.get))
    if package.arch not in (RPM_ARCH[arch], "noarch"):
        raise IntegrityError(
            f"{taken.url} holds {package.nvra}, a package for {package.arch}, and the toolchain is for {arch}",
            hint=f"packages of its [[toolchain]] takes those of {RPM_ARCH[arch]} and noarch for {arch}",
        )
    return taken.pin(package.name, f"{package.version}-{package.release}", "vendor-sum")
