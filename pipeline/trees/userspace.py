"""A driver's userspace in the layout of the image: libraries, tools, firmware, tables; out of whichever archive holds it.

In a run file the manifest says what each member is. A redist archive has none: there its folder and its name say it, in the
layout ``bin``, ``sbin``, ``lib``, ``etc``, ``kernel`` below one directory. That layout is known from public recipes that use
such archives (cms-sw/cmsdist's cuda.spec, velda's packer files), not from an archive itself; docs/coreos.md says so.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..core.errors import IntegrityError
from ..formats import debs, makeself, nvidia_redist
from ..formats.unpacking import HINT, Entry, unpacked

if TYPE_CHECKING:
    from ..upstream.nvidia import supported_gpus

KIND_TABLE: Final = "out/opt/nvidia-driver/gpus"
"""Which kind of module drives which GPU, a line a PCI id, for a shell (upstream/nvidia_gpus.py)."""
GPUS: Final = "supported-gpus.json"
VOLUME: Final = "out/usr/local/nvidia"
FABRIC_MANAGER: Final = "nv-fabricmanager"
"""Where ``nvidia-driver`` looks for it: ``bin`` of the volume, its configuration in ``share/nvidia/nvswitch``."""
_MAX_TABLE: Final = 16 << 20

_ICDS: Final = {
    "VULKAN_ICD_JSON": "share/vulkan",
    "GLVND_EGL_ICD_JSON": "share/glvnd/egl_vendor.d",
    "EGL_EXTERNAL_PLATFORM_JSON": "share/egl/egl_external_platform.d",
    "CUDA_ICD": "share/OpenCL/vendors",
    "APPLICATION_PROFILE": "share/nvidia",
}
_PROGRAMS: Final = ("UTILITY_BINARY", "NVIDIA_MODPROBE", "INTERNAL_UTILITY_BINARY")
_NO_X: Final = ("XMODULE", "GLX_MODULE", "TLS_LIB", "XLIB", "LIBGL_LA", "OPENGL_HEADER", "INTERNAL_UTILITY_LIB")
_SHARED: Final = ("libOpenGL.so", "libGL.so", "libGLX.so", "libEGL.so", "libGLESv", "libGLdispatch.so", "libOpenCL.so")
"""libglvnd's and Khronos' loaders: they are of the container's system, not of the driver."""


def of_run(path: Path, limit: int) -> Iterator[Entry]:
    """Libraries, tools, firmware and tables of a run file, in the layout of the image; what each is, its manifest says."""
    manifest, files = makeself.read(path, limit)
    places: dict[str, tuple[str, int]] = {}
    links: dict[str, str] = {}
    for listed in manifest.listed:
        base = posixpath.basename(listed.name)
        place = _place(listed, manifest.version)
        if not place or listed.compat32 or base.startswith(_SHARED):
            continue
        if listed.is_link:
            target = posixpath.basename(listed.free_words[-1]) if listed.free_words else ""
            if target:
                links[place] = f"../{target}" if "/gbm/" in place else target
        else:
            places[listed.name] = (place, listed.mode)
    taken: set[str] = set()
    for entry in makeself.entries(path, limit):
        if entry.kind == "file" and entry.name in places:
            name, mode = places[entry.name]
            taken.add(name)
            yield Entry(name, mode & 0o755, "file", entry.size, data=entry.data)
        elif entry.kind == "hardlink" and entry.name in places:
            name, mode = places[entry.name]
            other = places.get(entry.target, ("", 0))[0]
            yield Entry(name, mode & 0o755, "hardlink", target=_target(entry, other, taken, path.name))
            taken.add(name)
        elif entry.kind == "file" and posixpath.basename(entry.name) == GPUS:
            yield _kind_table(entry, path.name)
        elif entry.kind == "file" and entry.name == "LICENSE":
            yield _licence(entry, manifest.version)
    if not taken or files.keys().isdisjoint(places):
        raise IntegrityError(f"{path.name} holds no userspace by its .manifest", hint="is it a driver of NVIDIA's?")
    for place, target in sorted(links.items()):
        if place not in taken and posixpath.join(posixpath.dirname(place), target) != place:
            yield Entry(place, 0o777, "link", target=target)


def _target(entry: Entry, place: str, taken: set[str], what: str) -> str:
    """``place``, where the image has what ``entry`` is another name of. Raises IntegrityError where it has not."""
    if place not in taken:
        raise IntegrityError(f"{what} holds '{entry.name}' as another name of '{entry.target}', which is not taken", hint=HINT)
    return place


def _place(listed: makeself.Listed, version: str) -> str:
    """Where a member goes in the image; "" for what an image has no use for (X, 32 bit, documents, the installer)."""
    base, kind = posixpath.basename(listed.name), listed.type
    if listed.name.startswith("firmware/") and base.endswith(".bin"):
        return f"out/firmware/nvidia/{version}/{base}"
    if base == "nvoptix.bin":
        return f"{VOLUME}/share/nvidia/{base}"
    if kind in _PROGRAMS or (kind == "UTILITY_BIN_SYMLINK"):
        return f"{VOLUME}/bin/{base}" if base.startswith("nvidia-") else ""
    if kind in _ICDS:
        folder = _ICDS[kind]
        if kind == "VULKAN_ICD_JSON":
            folder += "/" + (listed.free_words[0].strip("/") if listed.free_words else "icd.d")
        return f"{VOLUME}/{folder}/{base}"
    if kind.startswith(_NO_X) or ".so" not in base or base.endswith(".la"):
        return ""
    return _library(base)


def _library(base: str) -> str:
    folder = "lib64/vdpau" if base.startswith("libvdpau_nvidia") else "lib64/gbm" if base.endswith("_gbm.so") else "lib64"
    return f"{VOLUME}/{folder}/{base}"


def _licence(entry: Entry, version: str) -> Entry:
    return Entry(f"out/usr/share/licenses/nvidia-{version}/{entry.name}", 0o644, "file", entry.size, data=entry.data)


def _table(chips: Sequence[supported_gpus.Chip]) -> Entry:
    from ..upstream.nvidia import supported_gpus  # a run that builds nothing does not pay for it

    table = supported_gpus.kind_table(chips)
    return Entry(KIND_TABLE, 0o644, "file", len(table), data=io.BytesIO(table))


def _kind_table(entry: Entry, what: str) -> Entry:
    from ..upstream.nvidia import supported_gpus

    assert entry.data is not None
    return _table(supported_gpus.parse(entry.data.read(_MAX_TABLE), f"{what}: {entry.name}").chips)


def gpus_of_debian(paths: Sequence[Path]) -> Iterator[Entry]:
    """The table of GPUs out of the README files in Debian's packages, which leave ``supported-gpus.json`` out.

    A package without the text gives no table: a host then takes the kind that is recommended for the branch.
    """
    from ..upstream.nvidia import gpu_lists

    readme = _document(paths[0], "README.txt.gz")
    of_open = _document(paths[1], "README.md.gz") if len(paths) > 1 else None
    if readme is not None:
        yield _table(gpu_lists.parse(readme, of_open, paths[0].name).chips)


def _document(deb: Path, name: str) -> bytes | None:
    """One packed text of a package's documentation. It comes before the sources, which are not read."""
    for info, data in debs.members(deb):
        if data is not None and posixpath.basename(info.name) == name:
            return unpacked(data, f"{deb.name}: {name}", _MAX_TABLE).read()
    return None


_BY_NAME: Final = {
    "nvidia_icd.json": "share/vulkan/icd.d",
    "nvidia_layers.json": "share/vulkan/implicit_layer.d",
    "10_nvidia.json": "share/glvnd/egl_vendor.d",
    "10_nvidia_wayland.json": "share/egl/egl_external_platform.d",
    "15_nvidia_gbm.json": "share/egl/egl_external_platform.d",
    "20_nvidia_xcb.json": "share/egl/egl_external_platform.d",
    "20_nvidia_xlib.json": "share/egl/egl_external_platform.d",
    "nvidia.icd": "share/OpenCL/vendors",
    "nvoptix.bin": "share/nvidia",
}
_LIBRARIES: Final = ("lib", "lib64")
_OF_X: Final = ("libglxserver_nvidia.so", "nvidia_drv.so", "libnvidia-wfb.so")
_INSTALLER: Final = ("nvidia-installer", "nvidia-uninstall")


def of_redist(path: Path, limit: int) -> Iterator[Entry]:
    """The userspace of a redist archive. Raises IntegrityError where there is none in it, and as its reader does."""
    version = nvidia_redist.version(path.name)
    seen: set[str] = set()
    for entry in nvidia_redist.entries(path, limit):
        base = posixpath.basename(entry.name)
        if entry.kind == "file" and base == GPUS:
            yield _kind_table(entry, path.name)
        elif entry.kind == "file" and entry.name == "LICENSE":
            yield _licence(entry, version)
        elif (place := _redist_place(entry.name, version)) and place not in seen:
            if entry.kind == "file":
                seen.add(place)
                yield Entry(place, entry.mode & 0o755, "file", entry.size, data=entry.data)
            elif entry.kind == "hardlink":
                target = _target(entry, _redist_place(entry.target, version), seen, path.name)
                seen.add(place)
                yield Entry(place, entry.mode & 0o755, "hardlink", target=target)
            elif entry.kind == "link" and "/" not in entry.target and entry.target != base:
                seen.add(place)
                yield Entry(place, 0o777, "link", target=entry.target)
    if not any(place.startswith(f"{VOLUME}/lib64/libcuda.so.") for place in seen):
        raise IntegrityError(f"{path.name} holds no lib/libcuda.so.{version}", hint="is it a driver of NVIDIA's?")
    gbm = f"{VOLUME}/lib64/gbm/nvidia-drm_gbm.so"
    if gbm not in seen and f"{VOLUME}/lib64/libnvidia-allocator.so.{version}" in seen:
        yield Entry(gbm, 0o777, "link", target="../libnvidia-allocator.so.1")


def _redist_place(name: str, version: str) -> str:
    """Where a member goes in the image; "" for what an image has no use for (X, 32 bit, documents, the installer)."""
    folders, base = name.split("/")[:-1], posixpath.basename(name)
    if not folders or folders[0] in ("kernel", "kernel-open", "lib32"):
        return ""
    if "firmware" in folders and base.endswith(".bin"):
        return f"out/firmware/nvidia/{version}/{base}"
    if base in _BY_NAME:
        return f"{VOLUME}/{_BY_NAME[base]}/{base}"
    if base.startswith("nvidia-application-profiles"):
        return f"{VOLUME}/share/nvidia/{base}"
    if folders[0] in ("bin", "sbin"):
        return f"{VOLUME}/bin/{base}" if base.startswith("nvidia-") and base not in _INSTALLER else ""
    if folders[0] not in _LIBRARIES or ".so" not in base or "xorg" in folders or base.startswith((*_SHARED, *_OF_X)):
        return ""
    return _library(base)


def of_fabric_manager(path: Path, limit: int) -> Iterator[Entry]:
    """The Fabric Manager of a redist archive: the daemon, its library, its configuration, the topologies it reads.

    Raises IntegrityError where the daemon is not in it, and as the archive's reader does.
    """
    found = False
    for entry in nvidia_redist.entries(path, limit):
        folder, _, base = entry.name.rpartition("/")
        place, mode = "", 0o644
        if folder == "bin" and base in (FABRIC_MANAGER, "nvswitch-audit"):
            place, mode, found = f"{VOLUME}/bin/{base}", 0o755, found or base == FABRIC_MANAGER
        elif folder in _LIBRARIES and base.startswith("libnvfm.so"):
            place = f"{VOLUME}/lib64/{base}"
        elif (folder == "etc" and base.startswith("fabricmanager")) or folder == "share/nvidia/nvswitch":
            place = f"{VOLUME}/share/nvidia/nvswitch/{base}"
        elif entry.name in ("LICENSE", "third-party-notices.txt"):
            place = f"out/usr/share/licenses/nvidia-fabricmanager-{nvidia_redist.version(path.name)}/{base}"
        if place and entry.kind == "file":
            yield Entry(place, mode, "file", entry.size, data=entry.data)
    if not found:
        raise IntegrityError(f"{path.name} holds no bin/{FABRIC_MANAGER}", hint="is it NVIDIA's Fabric Manager?")
