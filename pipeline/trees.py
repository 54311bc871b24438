"""Vendors' archives as trees that a Dockerfile can add: one tar each, made here by the hardened readers.

What a container would need root, a mount or the vendor's own tools for is done before: an RPM's payload, a disk image's
file system, a run file's archive. The tar is decided by the pinned file and the form alone (and by ``LAYOUT``, which stands
in the Dockerfile's text, so a change here makes new recipes).
"""

from __future__ import annotations

import io
import posixpath
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final, cast

from . import disk_image, rpms, runfile
from .errors import IntegrityError, PairFailed
from .inputs import Inputs
from .limits import MAX_UNPACKED
from .tree import Make, Tree
from .unpacking import Entry, from_tar, renamed, to_tar, unpacked

CACHE: Final = Path("build/trees")
KIND_TABLE: Final = "out/opt/nvidia-driver/gpus"
"""Which kind of module drives which GPU, a line a PCI id, for a shell (upstream/nvidia_gpus.py)."""
_MAX_TABLE: Final = 16 << 20


def lay(tree: Tree, cache: Path, inputs: Inputs, limit: int = MAX_UNPACKED) -> Path:
    """The tar of ``tree``; made where ``cache`` lacks it. Raises IntegrityError, NetworkError, DiskError as readers do."""
    place = cache / f"{tree.key}.tar"
    if not place.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".inputs.") as directory:
            paths = [inputs.lay(file, Path(directory)) for file in tree.files]  # under their own names, for what is said
            to_tar(entries(tree.make, paths, tree.kernel, cache, limit), place)
    return place


def entries(make: Make, paths: Sequence[Path], kernel: str, scratch: Path, limit: int) -> Iterator[Entry]:
    """The entries of one tree, under the names they get."""
    if make == "rpms":
        for path in paths:
            yield from renamed(rpms.entries(path, limit), _usr_only(f"usr/src/kernels/{kernel}", f"usr/lib/modules/{kernel}"))
    elif make == "developer-container":
        yield from _developer_container(paths[0], kernel, scratch, limit)
    elif make == "source":
        yield from _source(paths, kernel, limit)
    elif make == "run":
        yield from renamed(
            runfile.entries(paths[0], limit), lambda name: name if name.startswith(("kernel/", "kernel-open/")) else ""
        )
    else:
        yield from _userspace(paths[0], limit)


def _usr_only(*prefixes: str) -> Callable[[str], str]:
    """Names below one of ``prefixes``, ``lib`` as ``usr/lib``: toolchains have merged the two, and a tar must not undo it."""

    def name(old: str) -> str:
        new = f"usr/{old}" if old.startswith("lib/") else old
        return new if any(new.startswith(f"{prefix}/") for prefix in prefixes) else ""

    return name


def _developer_container(path: Path, kernel: str, scratch: Path, limit: int) -> Iterator[Entry]:
    """``build`` and ``source`` of the kernel (flatcar/scripts, coreos-modules: ``/usr/lib/modules/<kernel>/build``)."""
    with disk_image.opened(path, scratch, limit) as root:
        home = next(
            (f"{lib}/modules/{kernel}" for lib in ("usr/lib", "usr/lib64", "lib") if root.resolve(f"{lib}/modules/{kernel}")), ""
        )
        if not home:
            there = ", ".join(root.names("usr/lib/modules")) or "none"
            raise PairFailed(f"{path.name} is not the developer container of {kernel}: it has {there}")
        if root.resolve(f"{home}/build") is None:
            raise PairFailed(
                f"{path.name} holds no build directory of {kernel}: its sources and published config are the other way"
            )
        done: list[str] = []
        for link in ("build", "source"):
            found = root.resolve(f"{home}/{link}")
            if found is None or any(found[0] == other or found[0].startswith(f"{other}/") for other in done):
                continue
            done.append(found[0])
            yield from renamed(root.walk(found[0]), lambda name: f"usr/{name}" if name.startswith("lib/") else name)
        for link in ("build", "source"):
            found = root.resolve(f"{home}/{link}") or root.resolve(f"{home}/build")
            assert found is not None
            place, target = f"usr/lib/modules/{kernel}/{link}", found[0].removeprefix("usr/")
            if f"usr/{target}" != place:
                yield Entry(place, 0o777, "link", target=posixpath.relpath(f"/usr/{target}", posixpath.dirname(f"/{place}")))


def _source(paths: Sequence[Path], kernel: str, limit: int) -> Iterator[Entry]:
    """kernel.org's tarball as ``usr/src/kernels/<kernel>``, with the config (the file that is no archive) in it."""
    for path in paths:
        with path.open("rb") as file:
            if not path.name.startswith("linux-"):
                data = unpacked(cast("IO[bytes]", file), path.name, 16 << 20).read()
                yield Entry(f"usr/src/kernels/{kernel}/.config", 0o644, "file", len(data), data=io.BytesIO(data))
                continue
            stream = unpacked(cast("IO[bytes]", file), path.name, limit)
            yield from renamed(from_tar(stream, path.name), lambda name: _below(name, f"usr/src/kernels/{kernel}"))


def _below(name: str, place: str) -> str:
    rest = name.partition("/")[2]
    return f"{place}/{rest}" if rest else ""


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


def _userspace(path: Path, limit: int) -> Iterator[Entry]:
    """Libraries, tools, firmware and tables of a run file, in the layout of the image; what each is, its manifest says."""
    manifest, files = runfile.read(path, limit)
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
    for entry in runfile.entries(path, limit):
        if entry.kind == "file" and entry.name in places:
            name, mode = places[entry.name]
            taken.add(name)
            yield Entry(name, mode & 0o755, "file", entry.size, data=entry.data)
        elif entry.kind == "file" and posixpath.basename(entry.name) == "supported-gpus.json":
            assert entry.data is not None
            from .upstream import nvidia_gpus  # a run that builds nothing does not pay for it

            table = nvidia_gpus.kind_table(nvidia_gpus.parse(entry.data.read(_MAX_TABLE), f"{path.name}: {entry.name}").chips)
            yield Entry(KIND_TABLE, 0o644, "file", len(table), data=io.BytesIO(table))
        elif entry.kind == "file" and entry.name == "LICENSE":
            place = f"out/usr/share/licenses/nvidia-{manifest.version}/{entry.name}"
            yield Entry(place, 0o644, "file", entry.size, data=entry.data)
    if not taken or files.keys().isdisjoint(places):
        raise IntegrityError(f"{path.name} holds no userspace by its .manifest", hint="is it a driver of NVIDIA's?")
    for place, target in sorted(links.items()):
        if place not in taken and posixpath.join(posixpath.dirname(place), target) != place:
            yield Entry(place, 0o777, "link", target=target)


def _place(listed: runfile.Listed, version: str) -> str:
    """Where a member goes in the image; "" for what an image has no use for (X, 32 bit, documents, the installer)."""
    base, kind = posixpath.basename(listed.name), listed.type
    volume = "out/usr/local/nvidia"
    if listed.name.startswith("firmware/") and base.endswith(".bin"):
        return f"out/firmware/nvidia/{version}/{base}"
    if base == "nvoptix.bin":
        return f"{volume}/share/nvidia/{base}"
    if kind in _PROGRAMS or (kind == "UTILITY_BIN_SYMLINK"):
        return f"{volume}/bin/{base}" if base.startswith("nvidia-") else ""
    if kind in _ICDS:
        folder = _ICDS[kind]
        if kind == "VULKAN_ICD_JSON":
            folder += "/" + (listed.free_words[0].strip("/") if listed.free_words else "icd.d")
        return f"{volume}/{folder}/{base}"
    if kind.startswith(_NO_X) or ".so" not in base or base.endswith(".la"):
        return ""
    folder = "lib64/vdpau" if base.startswith("libvdpau_nvidia") else "lib64/gbm" if base.endswith("_gbm.so") else "lib64"
    return f"{volume}/{folder}/{base}"
