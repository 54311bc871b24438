"""Vendors' archives as trees that a Dockerfile can add: one tar each, made here by the hardened readers.

What a container would need root, a mount or the vendor's own tools for is done before: an RPM's payload, a disk image's
file system, a run file's archive. The tar is decided by the pinned file and the form alone (and by ``LAYOUT``, which stands
in the Dockerfile's text, so a change here makes new recipes).
"""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Final, cast

from ..config.records import is_tarball
from ..core.errors import IntegrityError, PairFailed
from ..core.files import MAX_UNPACKED
from ..core.lazy import Locks
from ..fetch.store import Inputs
from ..formats import gpt, makeself, nvidia_redist, rpms
from ..formats.kernels import kernel_image
from ..formats.unpacking import HINT, Entry, from_tar, relative, renamed, to_tar, unpacked, within
from . import userspace
from .spec import Make, Tree

CACHE: Final = Path("build/trees")
KEEP: Final = 16
"""How many trees stay, those last used: a kernel's has about 100 MB, and pairs of one kernel come one after another."""
_making: Final = Locks()


def lay(tree: Tree, cache: Path, inputs: Inputs, limit: int = MAX_UNPACKED) -> Path:
    """The tar of ``tree``; made where ``cache`` lacks it. Raises IntegrityError, NetworkError, DiskError as readers do.

    Threads that want one tree make one: unpacking a developer container takes gigabytes for a while.
    """
    tar = place(tree, cache)
    with _making[tree.key]:
        if tar.exists():
            os.utime(tar)
            return tar
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".inputs.") as directory:
            paths = [inputs.lay(file, Path(directory)) for file in tree.files]  # under their own names, for what is said
            image = inputs.lay(tree.image, Path(directory, "image")) if tree.image else None
            to_tar(entries(tree.make, paths, tree.kernel, cache, limit, image), tar)
    _keep_newest(cache)
    return tar


def place(tree: Tree, cache: Path) -> Path:
    """Where the tar of ``tree`` lies, or would."""
    return cache / f"{tree.key}.tar"


def _keep_newest(cache: Path) -> None:
    used: dict[Path, float] = {}
    for tar in cache.glob("*.tar"):
        with contextlib.suppress(FileNotFoundError):  # another thread forgets too
            used[tar] = tar.stat().st_mtime
    for tar in sorted(used, key=lambda tar: -used[tar])[KEEP:]:
        tar.unlink(missing_ok=True)


def entries(
    make: Make, paths: Sequence[Path], kernel: str, scratch: Path, limit: int, image: Path | None = None
) -> Iterator[Entry]:
    """The entries of one tree, under the names they get."""
    if make == "rpms":
        for path in paths:
            yield from renamed(rpms.entries(path, limit), _usr_only(f"usr/src/kernels/{kernel}", f"usr/lib/modules/{kernel}"))
    elif make == "developer-container":
        yield from _developer_container(paths[0], kernel, scratch, limit)
    elif make == "source":
        yield from _source(paths, kernel, limit)
        if image is not None:  # last, so that no other of that name counts
            data = kernel_image.symvers(kernel_image.exports(image)).encode()
            yield Entry(f"usr/src/kernels/{kernel}/Module.symvers", 0o644, "file", len(data), data=io.BytesIO(data))
    elif make == "run":
        yield from renamed(makeself.entries(paths[0], limit), _sources)
    elif make == "redist":
        yield from renamed(nvidia_redist.entries(paths[0], limit), _sources)
    elif make == "debian-gpus":
        yield from userspace.gpus_of_debian(paths)
    else:
        archive, *more = paths
        yield from (userspace.of_run if make == "run-userspace" else userspace.of_redist)(archive, limit)
        for path in more:
            yield from userspace.of_fabric_manager(path, limit)


def _sources(name: str) -> str:
    return name if name.startswith(("kernel/", "kernel-open/")) else ""


def _usr_only(*prefixes: str) -> Callable[[str], str]:
    """Names below one of ``prefixes``, ``lib`` as ``usr/lib``: toolchains have merged the two, and a tar must not undo it."""

    def name(old: str) -> str:
        new = f"usr/{old}" if old.startswith("lib/") else old
        return new if any(new.startswith(f"{prefix}/") for prefix in prefixes) else ""

    return name


def _developer_container(path: Path, kernel: str, scratch: Path, limit: int) -> Iterator[Entry]:
    """``build`` and ``source`` of the kernel (flatcar/scripts, coreos-modules: ``/usr/lib/modules/<kernel>/build``)."""
    with gpt.opened(path, scratch, limit) as root:
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
            files = within(root.walk(found[0]), limit, path.name)
            yield from renamed(files, lambda name: f"usr/{name}" if name.startswith("lib/") else name)
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
            if not is_tarball(path.name):
                data = unpacked(cast("IO[bytes]", file), path.name, 16 << 20).read()
                yield Entry(f"usr/src/kernels/{kernel}/.config", 0o644, "file", len(data), data=io.BytesIO(data))
                continue
            stream = unpacked(cast("IO[bytes]", file), path.name, limit)
            own = path.name.removesuffix(".tar.xz")
            for entry in within(from_tar(stream, path.name), limit, path.name):
                yield from renamed([_of_own(entry, own, path.name)], lambda name: _below(name, f"usr/src/kernels/{kernel}"))


def _of_own(entry: Entry, own: str, what: str) -> Entry:
    """``entry`` where it lies below the directory ``own`` and leads nowhere else. Raises IntegrityError."""
    for name in (entry.name, entry.target) if entry.kind == "hardlink" else (entry.name,):
        if name != own and not name.startswith(f"{own}/"):
            raise IntegrityError(f"{what} holds '{name}' outside {own}", hint=HINT)
    if entry.kind == "link":
        relative(_below(entry.name, "").lstrip("/"), entry.target, what)
    return entry


def _below(name: str, place: str) -> str:
    rest = name.partition("/")[2]
    return f"{place}/{rest}" if rest else ""
