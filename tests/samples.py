"""A small synthetic lock and wishes: real forms, made-up hashes."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from pipeline.config import compat, lockfile, versions_toml
from pipeline.config.records import Base, BaseImage, Driver, File, Kernel, Lock, OsRelease, Toolchain
from pipeline.plan.pairs import Plan
from pipeline.plan.render import Renderer

DATE = "2026-11-20T08:00:00Z"


def package(name: str, version: str = "1.0-1", **changes: Any) -> File:
    """A pinned package whose hash is made from its name and version."""
    sha256 = hashlib.sha256(f"{name} {version}".encode()).hexdigest()
    path = f"pool/main/{name[0]}/{name}/{name}_{version}_amd64.deb"
    values = {"sha256": sha256, "size": 1000, "trust": "signed-index", "archive": "debian", "path": path, **changes}
    return File(name=name, version=version, **values)


def kernel(name: str = "6.1.0-47-cloud-amd64", version: str = "6.1.170", **changes: Any) -> Kernel:
    """A Debian kernel with headers and image."""
    package_version = f"{version}-3"
    values: dict[str, Any] = {
        "os": "debian",
        "arch": "amd64",
        "kernel": name,
        "version": version,
        "toolchain": "debian-12",
        "date": DATE,
        "headers": (package(f"linux-headers-{name}", package_version),),
        "image": (package(f"linux-image-{name}", package_version),),
        "releases": (OsRelease(channel="bookworm", version=package_version, id="debian", version_id="12"),),
        "drivers": ("535.261.03",),
    }
    return Kernel(**{**values, **changes})


def driver(version: str = "535.261.03", **changes: Any) -> Driver:
    """A driver with both kinds."""
    values: dict[str, Any] = {
        "version": version,
        "arch": "amd64",
        "source": "debian",
        "date": DATE,
        "open": (package("nvidia-open-kernel-source", f"{version}-1"),),
        "proprietary": (package("nvidia-kernel-source", f"{version}-1"),),
        "userspace": (package("libcuda1", f"{version}-1"), package("nvidia-persistenced", "535.171.04-1~deb12u1")),
    }
    return Driver(**{**values, **changes})


def a_lock(**changes: Any) -> Lock:
    """One base, one toolchain, one driver, two kernels."""
    values: dict[str, Any] = {
        "schema": 1,
        "bases": (Base(arch="amd64", date=DATE, packages=(package("busybox"), package("kmod"))),),
        "toolchains": (
            Toolchain(name="debian-12", os="debian", arch="amd64", date=DATE, packages=(package("gcc-12"), package("dpkg"))),
        ),
        "drivers": (driver(),),
        "kernels": (kernel(), kernel("6.1.0-50-cloud-amd64", "6.1.176")),
    }
    return Lock(**{**values, **changes})


def wishes(text: str = "") -> versions_toml.Wanted:
    """Wishes out of TOML text."""
    return versions_toml.parse(text, "versions.toml")


def plan(the_lock: Lock | None = None, text: str = "", epoch: int = 0, rules: str = "") -> Plan:
    """A plan of the synthetic lock, read back from its own bytes."""
    read = lockfile.parse(lockfile.dump(the_lock or a_lock()))
    wants = wishes(text)
    return Plan(wants, read, Renderer(wants, read, epoch=epoch, source_url="https://example.com/project"), compat.parse(rules))


def changed(entry: Any, **changes: Any) -> Any:
    """A frozen record with some fields replaced."""
    return msgspec.structs.replace(entry, **changes)


def vendor_file(url: str, version: str = "6.1.176", **changes: Any) -> File:
    """A pinned file of a vendor's server."""
    name = url.rpartition("/")[2].partition(".")[0].partition("-6")[0]
    sha256 = hashlib.sha256(url.encode()).hexdigest()
    return File(name=name, version=version, sha256=sha256, size=1000, trust="vendor-sum", urls=(url,), **changes)


def run_driver(version: str = "535.261.03", **changes: Any) -> Driver:
    """A driver out of NVIDIA's run file, with both kinds."""
    url = f"https://us.download.nvidia.com/tesla/{version}/NVIDIA-Linux-x86_64-{version}.run"
    file = (vendor_file(url, version),)
    values = {"source": "run", "open": file, "proprietary": file, "userspace": file}
    return driver(version, **{**values, **changes})


def fedora() -> Toolchain:
    """A toolchain made of a vendor's image and one package."""
    image = BaseImage(name="registry.fedoraproject.org/fedora", tag="44", digest="sha256:" + "f" * 64)
    packages = (vendor_file("https://kojipkgs.fedoraproject.org/packages/gcc/15.2.1/1.fc44/x86_64/gcc-15.2.1-1.fc44.x86_64.rpm"),)
    return Toolchain(name="fedora-44", os="fedora-coreos", arch="amd64", date=DATE, packages=packages, image=image)


def vendor_lock(form: str, **changes: Any) -> Lock:
    """One kernel in one of the vendors' forms, beside Debian's base and toolchain."""
    koji = "https://kojipkgs.fedoraproject.org/packages/kernel/6.1.176/200.fc44/x86_64"
    flatcar = "https://stable.release.flatcar-linux.net/amd64-usr/4593.2.5"
    rpm = "-6.1.176-200.fc44.x86_64"
    values: dict[str, Any] = {
        "rpms": {
            "os": "fedora-coreos",
            "name": rpm[1:],
            "toolchain": "fedora-44",
            "headers": (vendor_file(f"{koji}/kernel-devel{rpm}.rpm"),),
            "image": (vendor_file(f"{koji}/kernel-core{rpm}.rpm"),),
        },
        "developer-container": {
            "os": "flatcar",
            "name": "6.1.176-flatcar",
            "headers": (vendor_file(f"{flatcar}/flatcar_developer_container.bin.bz2"),),
            "image": (vendor_file(f"{flatcar}/flatcar_production_pxe.vmlinuz"),),
        },
        "source": {
            "os": "container-linux",
            "name": "6.1.176-coreos",
            "headers": (
                vendor_file("https://cdn.kernel.org/pub/linux/kernel/v6.x/linux-6.1.176.tar.xz"),
                vendor_file(f"{flatcar}/flatcar_production_image_kernel_config.txt"),
            ),
            "image": (vendor_file(f"{flatcar}/flatcar_production_pxe.vmlinuz"),),
        },
    }[form]
    release = OsRelease(channel="stable", version="44.20260817.3.0", id="fedora", version_id="44")
    own = kernel(values.pop("name"), "6.1.176", form=form, releases=(release,), **{**values, **changes})
    toolchains = (*a_lock().toolchains, fedora())
    return a_lock(toolchains=toolchains, drivers=(run_driver(),), kernels=(own,))


FLATCAR = "6.12.102-flatcar"


def flatcar_release(version: str = "4593.2.5") -> OsRelease:
    """A release of Flatcar's stable channel."""
    return OsRelease(channel="stable", version=version, id="flatcar", version_id=version)


def of_arch(entry: Any, arch: str, **changes: Any) -> Any:
    """An entry of the lock for another architecture: other files under the same names."""
    text = msgspec.json.encode(entry).decode().replace("_amd64.deb", f"_{arch}.deb").replace("x86_64", "aarch64")
    text = text.replace("amd64-usr", f"{arch}-usr")
    other = msgspec.json.decode(text, type=type(entry))
    renamed = {
        name: tuple(changed(file, sha256=hashlib.sha256(f"{arch} {file.sha256}".encode()).hexdigest()) for file in files)
        for name in ("packages", "open", "proprietary", "userspace", "headers", "image")
        if isinstance(files := getattr(other, name, None), tuple)
    }
    return changed(other, arch=arch, **{**renamed, **changes})


def cross() -> Toolchain:
    """Debian's toolchain for arm64 that runs on amd64."""
    packages = (package("gcc-12-aarch64-linux-gnu", "12.2.0-14cross1"), package("dpkg"))
    return Toolchain(name="debian-12", os="debian", arch="arm64", date=DATE, packages=packages, runs_on="amd64")


def cross_source() -> Toolchain:
    """The same with what kernel.org's source needs, and a compiler for the programs of Kbuild that run on amd64."""
    more = tuple(package(name) for name in ("bison", "flex", "gcc-12", "libc6-dev", "libssl-dev"))
    return changed(cross(), name="debian-12-source", packages=(*cross().packages, *more))  # type: ignore[no-any-return]


def both_arches(*drivers: str, kernels: tuple[Kernel, ...] = ()) -> Lock:
    """One kernel string of Flatcar on both architectures, with the same drivers; amd64 compiles for both."""
    versions = drivers or ("535.261.03",)
    one = a_lock()
    named = kernels or (kernel(FLATCAR, "6.12.102", os="flatcar", releases=(flatcar_release(),), drivers=versions),)
    made = tuple(driver(version) for version in versions)
    return a_lock(
        bases=(*one.bases, *(of_arch(base, "arm64") for base in one.bases)),
        toolchains=(*one.toolchains, cross()),
        drivers=(*made, *(of_arch(each, "arm64") for each in made)),
        kernels=(*named, *(of_arch(each, "arm64") for each in named)),
    )
