"""Build contexts on disk: the rendered Dockerfile and the pinned files it copies, ready for the pipeline or for ``docker build``.

A context is ``build/docker/<name>/``. The Dockerfile there is always written anew from the lock; one that somebody
edited by hand is noticed by the digest kept beside it, named, and replaced, never built.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..config.records import Toolchain
from ..core.errors import DiskError
from ..fetch.store import Inputs, link
from ..formats import debs
from ..plan.dockerfile import Rendered
from ..trees import tars as trees

DOCKER: Final = Path("build/docker")
_ROOT: Final = "root.tar"
_MERGED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


def write(rendered: Rendered, root: Path, note: Callable[[str], None]) -> bool:
    """Put the Dockerfile in its place; True where that changed the file. A hand-made change is named through ``note``."""
    directory = root / rendered.name
    dockerfile, seal = directory / "Dockerfile", directory / ".rendered"
    text = rendered.text.encode()
    try:
        present = dockerfile.read_bytes() if dockerfile.exists() else None
        sealed = seal.read_text().strip() if seal.exists() else ""
        if present is not None and hashlib.sha256(present).hexdigest() != sealed and present != text:
            note(f"{dockerfile} was changed by hand; it is rendered again and the change is not built")
        if present == text and sealed == rendered.recipe:
            return False
        directory.mkdir(parents=True, exist_ok=True)
        dockerfile.write_bytes(text)
        seal.write_text(rendered.recipe + "\n")
    except OSError as error:
        raise DiskError(f"{dockerfile}: {error.strerror}", hint="free some space below build/") from error
    return True


def lay(rendered: Rendered, root: Path, inputs: Inputs) -> Path:
    """Put every file into the context (pinned ones as hard links into the cache) and return its directory.

    Trees are made beside the contexts, in ``build/trees``, and linked too: pairs of one kernel or driver share them.
    """
    directory = root / rendered.name
    wanted = {folder for folder, _ in (*rendered.files, *rendered.local)}
    for folder in wanted:
        shutil.rmtree(directory / folder, ignore_errors=True)
    try:
        for folder, file in rendered.files:
            (directory / folder).mkdir(parents=True, exist_ok=True)
            inputs.lay(file, directory / folder)
        for folder, part in rendered.local:
            place = directory / folder / part.path
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(part.source, place)
            place.chmod(part.mode)
        for tree in rendered.trees:
            made = trees.lay(tree, root.parent / trees.CACHE.name, inputs, inputs.max_unpacked)
            directory.mkdir(parents=True, exist_ok=True)
            (directory / tree.name).unlink(missing_ok=True)
            link(made, directory / tree.name)
    except OSError as error:
        raise DiskError(f"{directory}: {error.strerror}", hint="free some space below build/") from error
    return directory


def clear(rendered: Rendered, root: Path, *, trees_too: bool = False) -> None:
    """Take out of the context what was laid there: it may be copies, and links hold what its cache has dropped.

    ``trees_too``: nobody else needs its trees, which are forgotten as well.
    """
    directory = root / rendered.name
    for folder in {folder for folder, _ in (*rendered.files, *rendered.local)}:
        shutil.rmtree(directory / folder, ignore_errors=True)
    tars = [directory / _ROOT, *(directory / tree.name for tree in rendered.trees)]
    if trees_too:
        tars += [trees.place(tree, root.parent / trees.CACHE.name) for tree in rendered.trees]
    for tar in tars:
        with contextlib.suppress(OSError):
            tar.unlink()


def root_tar(toolchain: Toolchain, context: Path, inputs: Inputs) -> Path:
    """``root.tar`` of a toolchain: merged-/usr links and every package's files, so that its own dpkg can configure them.

    Made without root's rights on this machine; owners are 0 in the tar.
    """
    destination = context / _ROOT
    with tempfile.TemporaryDirectory(dir=context, prefix=".root.") as directory:
        root = Path(directory)
        for name in _MERGED:
            (root / "usr" / name).mkdir(parents=True)
            (root / name).symlink_to(f"usr/{name}")
        for file in sorted(toolchain.packages, key=lambda file: file.name):
            debs.unpack(inputs.path(file), root)
        state = root / "var/lib/dpkg"
        for name in ("info", "updates", "triggers"):
            (state / name).mkdir(parents=True, exist_ok=True)
        for name in ("status", "available"):
            (state / name).touch()
        for name in ("passwd", "group"):
            master = root / f"usr/share/base-passwd/{name}.master"
            if master.exists():
                shutil.copyfile(master, root / "etc" / name)
        try:
            with tarfile.open(destination, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for path in sorted(root.rglob("*")):
                    tar.add(path, arcname=str(path.relative_to(root)), recursive=False, filter=_anonymous)
        except OSError as error:
            destination.unlink(missing_ok=True)
            raise DiskError(f"{destination}: {error.strerror}", hint="free some space below build/") from error
    return destination


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    return info
