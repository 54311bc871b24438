"""Fedora CoreOS metadata: real URLs and pure parsers for stream, update, index and build metadata.

Formats: the JSON schemas in fedora-coreos-tracker metadata/, stream-metadata-go, and coreos-assembler's cmd-import.
Not read, because it holds no kernel or nothing that is not in these four: ``release.json``, ``meta.json``, the update
graph of the Cincinnati server, and the image label ``ostree.linux``, gone since Fedora 43 (ublue-os/akmods#416).
"""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Final, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType, field

from ...config.records import Arch
from ...core.errors import UpstreamDataError
from ...core.strict_json import decode
from ...core.versions import numbers_of
from ..records import Skips
from .fedora_kernel import RPM_ARCH, checked

BASE: Final = "https://builds.coreos.fedoraproject.org"
OCI_REPOSITORY: Final = "quay.io/fedora/fedora-coreos"
OTHER_ARCHES: Final = frozenset({"ppc64le", "s390x"})
"""Published, but no NVIDIA driver of a supported branch exists for them: left out without a word."""
_ARCH: Final[dict[str, Arch]] = {rpm: arch for arch, rpm in RPM_ARCH.items()}
_VERSION: Final = re.compile(r"[0-9]{2}\.(20[0-9]{6})(\.[0-9]{1,3}){1,2}")
_DIGEST_REF: Final = re.compile(re.escape(OCI_REPOSITORY) + r"@sha256:[0-9a-f]{64}")


def stream_url(stream: str) -> str:
    """Stream metadata: the release that new machines install."""
    return f"{BASE}/streams/{stream}.json"


def updates_url(stream: str) -> str:
    """Update metadata: rollouts, barriers, deadends."""
    return f"{BASE}/updates/{stream}.json"


def releases_url(stream: str) -> str:
    """The release index: every release with its architectures."""
    return f"{BASE}/prod/streams/{stream}/releases.json"


def commitmeta_url(stream: str, version: str, arch: Arch) -> str:
    """Metadata of one published build, which never changes: it holds the kernel."""
    return f"{BASE}/prod/streams/{stream}/builds/{version}/{RPM_ARCH[arch]}/commitmeta.json"


class _Artifact(Struct):
    release: str


class _Arch(Struct):
    artifacts: dict[str, _Artifact]


class _Stream(Struct):
    stream: str
    architectures: dict[str, _Arch]


class _Rollout(Struct):
    start_epoch: int = 0
    start_percentage: Annotated[float, Meta(ge=0, le=1)] = 0.0
    duration_minutes: int = 0


class _Reason(Struct):
    reason: str


class _Marks(Struct):
    rollout: _Rollout | UnsetType = UNSET
    barrier: _Reason | UnsetType = UNSET
    deadend: _Reason | UnsetType = UNSET


class _Update(Struct):
    version: str
    metadata: _Marks


class _Updates(Struct):
    stream: str
    releases: list[_Update]


class _Commit(Struct):
    architecture: str


class _Image(Struct):
    architecture: str
    digest_ref: str | UnsetType = field(name="digest-ref", default=UNSET)


class _Indexed(Struct):
    version: str
    commits: list[_Commit] | None = None
    images: list[_Image] | None = field(name="oci-images", default=None)


class _Index(Struct):
    stream: str
    releases: list[_Indexed]


class _CommitMeta(Struct):
    linux: str | UnsetType = field(name="ostree.linux", default=UNSET)
    basearch: str | UnsetType = field(name="coreos-assembler.basearch", default=UNSET)
    version: str | UnsetType = UNSET
    pkglist: list[tuple[str, str | int | None, str, str, str]] | UnsetType = field(name="rpmostree.rpmdb.pkglist", default=UNSET)


_StreamDocument = TypeVar("_StreamDocument", _Stream, _Updates, _Index)


class Updates(Struct, frozen=True, kw_only=True):
    """What happens on a stream.

    ``rollouts``: versions being rolled out, as a rule two: the finished one and the new one. ``barriers`` and
    ``deadends``: version to the URL of the reason.
    """

    rollouts: tuple[str, ...]
    barriers: dict[str, str]
    deadends: dict[str, str]


class Index(Struct, frozen=True, kw_only=True):
    """``arches``: version to its architectures; ``images``: (version, arch) to the container image by digest."""

    arches: dict[str, frozenset[Arch]]
    images: dict[tuple[str, Arch], str]
    warnings: tuple[str, ...] = ()


def parse_stream(data: bytes, url: str, stream: str) -> dict[Arch, str]:
    """The current release of each architecture, read from ``artifacts.metal`` as the Fedora CoreOS docs do.

    Raises UpstreamDataError for another document, another stream or an architecture without the metal platform.
    """
    document = _of_stream(decode(data, _Stream, url), stream, url)
    current: dict[Arch, str] = {}
    for name, entry in document.architectures.items():
        if arch := _ARCH.get(name):
            if "metal" not in entry.artifacts:
                raise UpstreamDataError(f"{url}: {name} has no artifacts.metal", hint="the stream metadata has changed")
            current[arch] = _version(entry.artifacts["metal"].release, url)
    if not current:
        raise UpstreamDataError(f"{url}: no release for x86_64 or aarch64", hint="the stream metadata has changed")
    return current


def parse_updates(data: bytes, url: str, stream: str) -> Updates:
    """Rollouts, barriers and deadends (fedora-coreos-tracker metadata/updates, JSON schema).

    Raises UpstreamDataError for another document, another stream, or a version that stands twice.
    """
    document = _of_stream(decode(data, _Updates, url), stream, url)
    marks = {_version(release.version, url): release.metadata for release in document.releases}
    if not marks or len(marks) != len(document.releases):
        what = "a version stands twice" if marks else "no release"
        raise UpstreamDataError(f"{url}: {what}", hint="the update metadata has changed")
    return Updates(
        rollouts=tuple(v for v, m in marks.items() if m.rollout is not UNSET),
        barriers={v: m.barrier.reason for v, m in marks.items() if m.barrier is not UNSET},
        deadends={v: m.deadend.reason for v, m in marks.items() if m.deadend is not UNSET},
    )


def parse_index(data: bytes, url: str, stream: str) -> Index:
    """Every release with its architectures: from ``commits``, or ``oci-images`` where ``commits`` is left out.

    Raises UpstreamDataError for another document, another stream, no release, or a version that stands twice.
    """
    document = _of_stream(decode(data, _Index, url), stream, url)
    arches: dict[str, frozenset[Arch]] = {}
    images: dict[tuple[str, Arch], str] = {}
    skips = Skips()
    for release in document.releases:
        version = _version(release.version, url)
        if version in arches:
            raise UpstreamDataError(f"{url}: release {version} stands twice", hint="the release index has changed")
        builds = [entry.architecture for entry in release.commits or release.images or ()]
        if not builds:
            skips.add("no architecture named", version)
        for name in builds:
            if name not in _ARCH and name not in OTHER_ARCHES:
                skips.add("unknown architecture", f"{version} {name}")
        arches[version] = frozenset(_ARCH[name] for name in builds if name in _ARCH)
        for image in release.images or ():
            if image.architecture in _ARCH and image.digest_ref is not UNSET:
                if _DIGEST_REF.fullmatch(image.digest_ref):
                    images[version, _ARCH[image.architecture]] = image.digest_ref
                else:
                    skips.add(f"an image that is not of {OCI_REPOSITORY}", f"{version} {image.digest_ref}")
    if not any(arches.values()):
        raise UpstreamDataError(f"{url}: no release for x86_64 or aarch64", hint="the release index has changed")
    return Index(arches=arches, images=images, warnings=skips.warnings(url))


def parse_commitmeta(data: bytes, url: str, version: str, arch: Arch) -> str | None:
    """The kernel of one build: ``ostree.linux``, and the package named exactly ``kernel``; the epoch is no part of it.

    Fields as coreos-assembler's cmd-import writes them. None where the file has neither field.
    Raises UpstreamDataError where the two differ, where more than one kernel is listed, or for another build's file.
    """
    meta = decode(data, _CommitMeta, url)
    for what, found, expected in (("release", meta.version, version), ("basearch", meta.basearch, RPM_ARCH[arch])):
        if found is not UNSET and found != expected:
            raise UpstreamDataError(f"{url}: it is for {what} {found}, not {expected}", hint="the server mixes builds up")
    named: set[str] = set()
    if meta.pkglist is not UNSET:
        named = {f"{v}-{r}.{a}" for name, _, v, r, a in meta.pkglist if name == "kernel"}
        if len(named) != 1:
            raise UpstreamDataError(f"{url}: {len(named)} packages named kernel", hint="a build has exactly one")
    if meta.linux is not UNSET:
        named.add(meta.linux)
    if len(named) > 1:
        raise UpstreamDataError(
            f"{url}: ostree.linux and the package list differ: {', '.join(sorted(named))}",
            hint="ask upstream which holds",
        )
    return checked(named.pop(), arch, url) if named else None


def day(version: str) -> datetime.date:
    """The day a release was made, from its version."""
    number = numbers_of(version)[1]
    return datetime.date(number // 10000, number // 100 % 100, number % 100)


def _of_stream(document: _StreamDocument, stream: str, url: str) -> _StreamDocument:
    if document.stream != stream:
        raise UpstreamDataError(f"{url}: it is for stream '{document.stream}'", hint=f"expected '{stream}'")
    return document


def _version(text: str, url: str) -> str:
    """FEDORA.DATE.STREAM.REVISION; releases of 2019 lacked the stream digit."""
    if match := _VERSION.fullmatch(text):
        try:
            datetime.datetime.strptime(match[1], "%Y%m%d").replace(tzinfo=datetime.UTC)
        except ValueError:
            pass
        else:
            return text
    raise UpstreamDataError(f"{url}: '{text}' is not a Fedora CoreOS release", hint="it looks like 44.20260707.3.1")
