"""A checkout with a made-up lock of many pairs, and a registry that holds them all: real forms, no real images.

The lock's base, toolchain and driver are those of the tests' own lock, so that texts have their real length; kernels and
further driver versions are made up. Tags are written straight into the registry's storage, as hundreds of pushes a second
would write them: 10 000 pairs in seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from pipeline.build.assemble import assemble, tree
from pipeline.cli.workspace import Workspace
from pipeline.config import lockfile, versions_toml
from pipeline.config.records import File, Kernel, Lock, OsRelease
from pipeline.outcomes import index as indexes
from pipeline.outcomes.index import Bytes, Entry, Index, Seconds
from pipeline.plan.pairs import Pair
from pipeline.publish import index_image, ledger

ROOT: Final = Path(__file__).resolve().parent.parent
PINNED: Final = ROOT / "tests" / "debian"
"""Wishes and lock with more of Debian's pairs than a first run builds."""
DRIVERS: Final = ("535.261.03", "535.309.01", "580.95.05", "580.105.08")
"""Two branches, two versions of each."""
FILES: Final = ("dodo.py", "pyproject.toml", "compat.toml")


def pinned(environ: Mapping[str, str] = os.environ) -> Workspace:
    """This checkout with the wishes and the lock of ``PINNED`` instead of its own."""
    space = Workspace(ROOT, environ)
    space.__dict__.update(
        wanted=versions_toml.load(PINNED / versions_toml.WANTED_FILE), lock=lockfile.load(PINNED / lockfile.LOCK_FILE)
    )
    return space


def narrowed(text: str, build: Mapping[str, Sequence[str]]) -> str:
    """Wishes or a lock with ``kinds`` and ``modules`` of ``build`` in place of their own, where it has some."""
    for key, values in build.items():
        if values:
            text = re.sub(rf"(?m)^{key} = \[.*?\]$", f"{key} = {json.dumps(list(values))}", text)
    if kinds := build.get("kinds"):  # what is required has to be built
        text = re.sub(r'(?m)^(\s*"?required"?(?: =|:) )\[.*?\]', rf"\g<1>{json.dumps(list(kinds))}", text)
    return text


def made_up_lock(pairs: int) -> Lock:
    """A lock of at least ``pairs`` pairs: each kernel with every driver."""
    real = lockfile.load(PINNED / lockfile.LOCK_FILE)
    model, kernel = real.drivers[0], real.kernels[0]
    drivers = tuple(msgspec.structs.replace(model, version=version, required=()) for version in DRIVERS)
    kernels = tuple(_kernel(kernel, number) for number in range(-(-pairs // len(DRIVERS))))
    return msgspec.structs.replace(real, drivers=drivers, kernels=kernels, pending=())


def _kernel(model: Kernel, number: int) -> Kernel:
    """A kernel like ``model``. 6.6 and its stable releases: no rule or patch of compat.toml is in the way."""
    version = f"6.6.{number}"
    release = OsRelease(channel="bookworm", version=f"{version}-1", id="debian", version_id="12")
    return msgspec.structs.replace(
        model,
        kernel=f"6.6.0-{number}-cloud-amd64",
        version=version,
        date=f"2026-{1 + number % 12:02}-{1 + number % 28:02}T{number % 24:02}:09:33Z",
        headers=tuple(_file(file, number) for file in model.headers),
        image=tuple(_file(file, number) for file in model.image),
        releases=(release,),
        drivers=DRIVERS,
    )


def _file(model: File, number: int) -> File:
    sha256 = hashlib.sha256(f"{model.sha256} {number}".encode()).hexdigest()
    return msgspec.structs.replace(model, sha256=sha256, name=f"{model.name}-{number}", path=f"{model.path}.{number}.deb")


def checkout(root: Path, pairs: int, registry: str) -> Workspace:
    """A directory that ``doit`` takes for a checkout, with the made-up lock, over the registry at ``registry``."""
    root.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(ROOT / name, root / name)
    shutil.copyfile(PINNED / versions_toml.WANTED_FILE, root / versions_toml.WANTED_FILE)
    (root / lockfile.LOCK_FILE).write_bytes(lockfile.dump(made_up_lock(pairs)))
    return Workspace(root, {"DRIVER_REGISTRY": registry, "DRIVER_CACHE": str(root / "build/cache")})


def fill(space: Workspace, storage: Path) -> list[str]:
    """Make the registry, whose storage is ``storage``, hold every pair of ``space``; the tags it then has."""
    shop = space.shop
    layer = shop.store.add(tree({"made-up": (0o644, b"stands for an image\n")}), 0)
    image = assemble([layer], arch="amd64", epoch=0, labels={"made": "up"}, names=["made up"], program=False)
    shop.push_image(image, ["made-up"])
    pairs = [pair for pair in space.plan.pairs if pair.exclusion is None]
    newest = {alias: pair for pair in pairs for alias in pair.aliases}
    tags = [tag for pair in pairs for tag in (pair.recipe_tag, *pair.tags)] + list(newest)
    write_tags(storage, tags, image.digest)
    entries = {pair.id: _entry(pair, image.digest) for pair in pairs}
    document = Index(
        serial=1,
        generated="2026-11-24T12:00:00Z",
        pairs=tuple(entries.get(pair.id) or indexes.excluded(pair) for pair in space.plan.pairs),
    )
    held = index_image.Published(shop.registry, present=False)
    index_image.push(document, index_image.basis(space.plan, tags), held, shop)
    ledger.save_index(space.root, document)
    return tags


def write_tags(storage: Path, tags: Iterable[str], digest: str) -> None:
    """Point ``tags`` at a manifest that is there, in the layout of distribution's filesystem driver."""
    place = storage / "docker/registry/v2/repositories/driver/_manifests/tags"
    for tag in tags:
        entry = place / tag / "current"
        entry.mkdir(parents=True, exist_ok=True)
        (entry / "link").write_text(digest)


def remove_tag(storage: Path, tag: str) -> None:
    """Take one tag away."""
    shutil.rmtree(storage / "docker/registry/v2/repositories/driver/_manifests/tags" / tag)


def _entry(pair: Pair, digest: str) -> Entry:
    """What a real build notes, with real sizes: five modules of two kinds, booted."""
    module = {"vermagic": f"{pair.kernel.kernel} SMP preempt mod_unload modversions", "srcversion": "0" * 24, "crcs": 900}
    names = ("nvidia.ko", "nvidia-uvm.ko", "nvidia-modeset.ko", "nvidia-drm.ko", "nvidia-peermem.ko")
    proof = {"modules": {kind: dict.fromkeys(names, module) for kind in pair.kinds}, "boot": {"seconds": 4.1}}
    return indexes.entry_of(
        pair,
        "built",
        kinds=pair.kinds,
        tags=pair.tags,
        digest=digest,
        bytes=Bytes(394_000_000, 44_000_000),
        seconds=Seconds(180.2, 12.5),
        built="2026-11-24T12:00:00Z",
        proof=proof,
    )
