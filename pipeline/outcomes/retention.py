"""Which images may go: pure, from the tags with their digests, the plan, and what the index knows of past releases.

An image stays as long as its OS release is in ``versions.lock``, or is the previous one of a channel that is, whatever
became of its driver or recipe; and where nobody knows which release it is for. Images go by digest, so a digest goes only
where every tag on it may go.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from ..config.records import OsRelease
from ..core import tags as tag_names
from ..core.errors import UsageError
from ..core.tags import kind_of
from ..plan.pairs import Plan
from .index import Entry

_ATTACHED: Final = re.compile(r"sha256-([0-9a-f]{64})(\..+)?")
"""Where cosign and registries without the referrers API keep what is attached to a digest."""

Release = tuple[str, str, str, str]
"""(os, arch, channel, version)."""


class Image(Struct, frozen=True):
    """What is known of a finished image whose recipe is not the lock's: from the index, else from its labels."""

    os: str
    arch: str
    kernel: str
    releases: tuple[Release, ...]


class Verdict(Struct, frozen=True):
    """What becomes of one digest and its tags, and why."""

    digest: str
    tags: tuple[str, ...]
    remove: bool
    why: str


@dataclass(frozen=True)
class Kept:
    """What the plan needs: tags of its own, kernels that supported releases boot, releases that are supported."""

    tags: frozenset[str]
    kernels: frozenset[tuple[str, str, str]]
    releases: frozenset[Release]


def kept(plan: Plan) -> Kept:
    """What ``plan`` needs.

    Raises UsageError for a lock without a kernel: by it nothing would be supported.
    """
    lock = plan.lock
    if not lock.kernels:
        raise UsageError("versions.lock holds no kernel, so nothing tells which releases are supported", hint="run 'doit update'")
    tags = {tag_names.INDEX}
    for pair in plan.pairs:
        tags |= {*pair.tags, *pair.aliases}
        if pair.exclusion is None:
            tags |= {pair.recipe_tag, pair.failed_tag}
    renderer = plan.renderer
    tags |= {tag_names.of_base(renderer.base(base).recipe) for base in lock.bases}
    tags |= {tag_names.of_userspace(d.version, renderer.userspace(d).recipe) for d in lock.drivers}
    known: list[tuple[str, str, str, tuple[OsRelease, ...]]] = [(k.os, k.arch, k.kernel, k.releases) for k in lock.kernels]
    known += [(p.os, p.arch, p.kernel, p.releases) for p in lock.pending]
    return Kept(
        tags=frozenset(tags),
        kernels=frozenset((os, arch, kernel) for os, arch, kernel, _ in known),
        releases=frozenset(release for os, arch, _, releases in known for release in _releases(os, arch, releases)),
    )


def image_of(entry: Entry) -> Image:
    """What an entry of the index says of an image."""
    releases = tuple((entry.os, entry.arch, r.get("channel", ""), r.get("version", "")) for r in entry.releases)
    return Image(entry.os, entry.arch, entry.kernel, releases)


def image_from(labels: Mapping[str, str]) -> Image | None:
    """What an image's own labels say; None where they are not ours. They do not name its releases."""
    os, arch, kernel = (labels.get(tag_names.label(name), "") for name in ("os", "arch", "kernel"))
    return Image(os, arch, kernel, ()) if os and arch and kernel else None


def unknown(tags: Iterable[str], needs: Kept, images: Mapping[str, Image]) -> list[str]:
    """Recipe tags that neither the plan nor the index knows: their images' labels are worth a look."""
    return [tag for tag in tags if kind_of(tag) == "r" and tag not in needs.tags and tag not in images]


def judge(
    digests: Mapping[str, str],
    needs: Kept,
    images: Mapping[str, Image],
    indexes: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> list[Verdict]:
    """A verdict for every digest, those to remove first, and of these an index before what it names.

    ``digests``: tag to digest, of the whole repository. ``images``: by recipe tag, for recipes that the plan lacks.
    ``indexes``: for each digest that is one, the digests that it names. An index stays where one of its images does, and
    what an index that stays names stays too: nothing in the registry may point at what is not there.
    """
    previous = _previous(needs.releases, images.values())
    groups: dict[str, list[str]] = {}
    for tag, digest in digests.items():
        groups.setdefault(digest, []).append(tag)
    verdicts: dict[str, Verdict] = {}
    for digest, tags in groups.items():
        stays = [reason for tag in sorted(tags) if (reason := _stays(tag, tags, needs, images, previous))]
        why = stays[0] if stays else next(reason for tag in sorted(tags) if (reason := _goes(tag, images)))
        verdicts[digest] = Verdict(digest, tuple(sorted(tags)), not stays, why)
    for digest in indexes.keys() & verdicts.keys():
        verdict = verdicts[digest]
        if verdict.remove and (staying := [c for c in indexes[digest] if c in verdicts and not verdicts[c].remove]):
            verdicts[digest] = Verdict(digest, verdict.tags, False, f"an index of {verdicts[staying[0]].tags[0]}, which stays")
    for index in [d for d in indexes if d in verdicts and not verdicts[d].remove]:
        for child in indexes[index]:
            if child in verdicts and verdicts[child].remove:
                verdicts[child] = Verdict(child, verdicts[child].tags, False, f"{verdicts[index].tags[0]} is an index of it")
    for digest, verdict in verdicts.items():
        subjects = {f"sha256:{found[1]}" for tag in verdict.tags if (found := _ATTACHED.fullmatch(tag))}
        if subjects and all(subject in verdicts and verdicts[subject].remove for subject in subjects):
            verdicts[digest] = Verdict(digest, verdict.tags, True, "attached to an image that goes")
    return sorted(verdicts.values(), key=lambda v: (not v.remove, v.digest not in indexes, v.tags))


def _stays(tag: str, group: Iterable[str], needs: Kept, images: Mapping[str, Image], previous: Mapping[Release, str]) -> str:
    """Why ``tag`` must stay; nothing where it may go."""
    if tag in needs.tags:
        return f"{tag} is wanted"
    kind = kind_of(tag)
    if kind in ("failed", "base", "userspace", "i"):
        return ""
    if kind != "r":
        return "" if any(kind_of(other) in ("r", "i") for other in group) else f"{tag} is none of ours"
    image = images.get(tag)
    if image is None:
        return f"nobody knows which kernel {tag} is for"
    if image.os == "host":
        return f"{image.kernel} is of a machine with a lock of its own"
    if (image.os, image.arch, image.kernel) in needs.kernels:
        return f"{image.kernel} is the kernel of a supported release"
    for release in image.releases:
        if release in needs.releases:
            return f"{_name(release)} is supported"
        if release in previous:
            return f"{_name(release)} is the one before {previous[release]}"
    return "" if image.releases else f"nobody knows which release {image.kernel} is of"


def _goes(tag: str, images: Mapping[str, Image]) -> str:
    kind = kind_of(tag)
    if kind == "r":
        image = images[tag]
        return f"{image.kernel}: no release in versions.lock boots it ({', '.join(map(_name, image.releases))})"
    if kind == "i":
        return "an index of images that go"
    if kind == "failed":
        return "a failure of a recipe that is no longer the lock's"
    return "a shared layer of a recipe that is no longer the lock's" if kind in ("base", "userspace") else ""


def _previous(supported: Iterable[Release], images: Iterable[Image]) -> dict[Release, str]:
    """The newest release below the newest supported one that the lock has left, of each channel; with the newest's version."""
    newest: dict[tuple[str, str, str], str] = {}
    held = set(supported)
    for *channel, version in held:
        key = (channel[0], channel[1], channel[2])
        if key not in newest or _numbers(newest[key]) < _numbers(version):
            newest[key] = version
    found: dict[tuple[str, str, str], Release] = {}
    for image in images:
        for release in image.releases:
            key = release[:3]
            if key not in newest or release in held:
                continue
            # A release above the newest one of the lock was withdrawn; hosts may still run it, and it hides none below.
            if _numbers(release[3]) > _numbers(newest[key]):
                found[(*release[:2], f"{release[2]} {release[3]}")] = release
            elif key not in found or _numbers(found[key][3]) < _numbers(release[3]):
                found[key] = release
    return {release: f"{release[2]} {newest[release[:3]]}" for release in found.values()}


def _releases(os: str, arch: str, releases: Iterable[OsRelease]) -> list[Release]:
    return [(os, arch, release.channel, release.version) for release in releases]


def _name(release: Release) -> str:
    return f"{release[0]} {release[2]} {release[3]}"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", version)]
