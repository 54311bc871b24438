"""What a name in the registry points to: one image, or an index of one image for each architecture that has the name.

On Flatcar ``uname -r`` is the same on amd64 and arm64, so two pairs own one tag. Recipe tags (``r-…``) stay one image each,
and are what a name is made from: whoever writes it takes what the registry has of all its owners, and looks again after
having written. Of two runners that end together, the later to write thus sees the other's image, and no lock is needed.

An index also gets a tag of its own, ``i-<first 16 of the sha256 of its recipes>``, last of all: it tells from the list of
tags that the names are settled, and keeps the index when they move on, for hosts that hold its digest.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ..core.errors import RegistryError
from ..core.tags import of_joint
from ..plan.pairs import Pair
from ..registry.client import INDEX_TYPES, Manifest, Registry
from .assemble import INDEX_TYPE, MANIFEST_TYPE, assemble_index, digest_of

Say = Callable[[str], None]
_ROUNDS: Final = 5
"""How often images of other architectures may arrive while the names are written."""
_RECIPE: Final = "org.opencontainers.image.revision"
"""The annotation in which an image of ours has its recipe."""


@dataclass(frozen=True)
class Part:
    """One architecture's image under a name."""

    recipe: str
    manifest: Manifest


def joint_tags(pair: Pair, built: Callable[[Pair], bool]) -> set[str]:
    """Tags of the indexes that the registry has where the names of ``pair`` are settled; none where it is alone."""
    siblings = [sibling for sibling in pair.siblings() if built(sibling)]
    if not siblings:
        return set()
    owners = [[pair.recipe, *(other.recipe for other in siblings if tag in other.tags)] for tag in pair.tags]
    return {of_joint(recipes) for recipes in owners if len(recipes) > 1}


def keep(parts: Mapping[str, Part], registry: Registry) -> None:
    """Give an index of ``parts`` its own tag; nothing for one image, which has its recipe's."""
    if len(parts) > 1:
        data, tag = _made(parts)[0], of_joint(part.recipe for part in parts.values())
        if registry.digest(tag) != digest_of(data):
            registry.push_manifest(data, INDEX_TYPE, [tag], shared=True)


def point(pair: Pair, image: Manifest, registry: Registry, say: Say) -> None:
    """Point the pair's own names at its image, together with those that other architectures have under the same name."""
    for _ in range(_ROUNDS):
        others = {other: held for other in pair.siblings() if (held := registry.manifest(other.recipe_tag))}
        made: list[dict[str, Part]] = []
        for tag in pair.tags:
            parts: dict[str, Part] = {o.kernel.arch: Part(o.recipe, held) for o, held in others.items() if tag in o.tags}
            parts[pair.kernel.arch] = Part(pair.recipe, image)
            parts = settle(tag, parts, registry, say, shared=bool(pair.siblings()))
            if parts not in made:
                made.append(parts)
        for parts in made:
            keep(parts, registry)
        if not any(registry.digest(other.recipe_tag) for other in pair.siblings() if other not in others):
            return


def settle(tag: str, parts: Mapping[str, Part], registry: Registry, say: Say, *, shared: bool) -> dict[str, Part]:
    """Point ``tag`` at ``parts``, by architecture, and at what it offers for others already; what it then offers.

    ``shared``: other runners move it too. A name that moves is said aloud.
    """
    parts = dict(parts)
    data, media_type = _made(parts)
    before = registry.digest(tag)
    if before not in (None, digest_of(data)):
        parts = {arch: part for arch, part in offered(registry, tag).items() if arch not in parts} | parts
        data, media_type = _made(parts)
    digest = digest_of(data)
    if before == digest:
        return parts
    if before:
        why = "its recipe changed" if len(parts) == 1 else f"it is an index of {' and '.join(sorted(parts))}"
        say(f"tag {tag} moves from {before[:19]} to {digest[:19]}: {why}")
    registry.push_manifest(data, media_type, [tag], shared=shared or len(parts) > 1)
    return parts


def offered(registry: Registry, ref: str) -> dict[str, Part]:
    """The images under ``ref`` by architecture; none where there is nothing, or nothing of ours."""
    manifest = registry.manifest(ref)
    found: dict[str, Part] = {}
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
        for arch, digest in children(registry, manifest).items() if manifest else ():
            own = manifest if manifest and manifest.digest == digest else registry.manifest(digest)
            if own and own.media_type == MANIFEST_TYPE:
                annotations = json.loads(own.data).get("annotations") or {}
                found[arch] = Part(str(annotations.get(_RECIPE, digest)), own)
    return found


def children(registry: Registry, manifest: Manifest) -> dict[str, str]:
    """Digests by architecture: those that an index names, or the image's own. Raises what damaged JSON raises."""
    document = json.loads(manifest.data)
    if manifest.media_type in INDEX_TYPES:
        return {
            part["platform"]["architecture"]: part["digest"]
            for part in document["manifests"]
            if part.get("platform", {}).get("os") == "linux"
        }
    config = json.loads(registry.blob(document["config"]["digest"]))
    return {config["architecture"]: manifest.digest}


def named(registry: Registry, digest: str) -> tuple[str, ...]:
    """Digests of all manifests that the index ``digest`` names, whatever they are for.

    Raises RegistryError for one that cannot be read: what it names must not be taken for free.
    """
    manifest = registry.manifest(digest)
    try:
        return tuple(part["digest"] for part in json.loads(manifest.data)["manifests"]) if manifest else ()
    except (ValueError, LookupError, TypeError) as error:
        raise RegistryError(f"{registry.reference(digest)} is no index that can be read", hint="delete it by hand") from error


def _made(parts: Mapping[str, Part]) -> tuple[bytes, str]:
    """The image itself where there is one, so that its digest is under the name; else an index."""
    if len(parts) == 1:
        return next(iter(parts.values())).manifest.data, MANIFEST_TYPE
    return assemble_index({arch: part.manifest.data for arch, part in parts.items()}), INDEX_TYPE
