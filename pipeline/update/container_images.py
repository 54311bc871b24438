"""Kernels out of container images: what answers for a Fedora CoreOS build whose metadata does not give its kernel.

The image is got by the engine and its RPM database copied out; nothing in it is run, and it is forgotten afterwards. An
image that is named by a tag may have moved on to another release, so its os-release has to name the one that is asked for.
"""

from __future__ import annotations

import re
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ..config.records import Os
from ..config.source_policy import FedoraCoreOS, SourcePolicy
from ..core.errors import EngineError, IntegrityError, PipelineError, UpstreamDataError
from ..fetch.mirrors import Mirrors
from ..formats import rpm_database
from ..upstream.coreos.fedora_coreos import kernel_from_rpm_query
from ..upstream.records import Discovery, Release
from .reconcile import Notes

if TYPE_CHECKING:
    from ..engine.client import Engine

MAX_DATABASE: Final = 1 << 30
"""Bytes a database may have; Fedora CoreOS's has some 40 MB."""
_OS_RELEASE: Final = "/usr/lib/os-release"


class Images:
    """Reads kernels out of images; the engine is opened at the first."""

    def __init__(self, open_engine: Callable[[], Engine], mirrors: Mirrors) -> None:
        self._open, self._mirrors = open_engine, mirrors
        self._engine: Engine | None = None
        self._closed: PipelineError | None = None

    def kernel(self, release: Release) -> str:
        """What ``uname -r`` prints on ``release``, by the RPM database of its image.

        Raises PipelineError: no engine, no image, another release's image, or not exactly one kernel in it.
        """
        assert release.image is not None
        engine = self._opened()
        image = self._mirrors.registry(release.image)
        engine.pull_for(image, release.arch)
        try:
            with tempfile.TemporaryDirectory(prefix="driver-image-") as folder:
                place = Path(folder)
                if "@" not in release.image:
                    self._same_release(engine, image, release.version, place)
                found = rpm_database.versions(self._database(engine, image, place), "kernel", image)
        finally:
            engine.remove(image)
        return kernel_from_rpm_query("\n".join(f"kernel-{version}" for version in found), release.arch, image)

    def close(self) -> None:
        """End the connection to the engine where there is one."""
        if self._engine is not None:
            self._engine.close()

    def _opened(self) -> Engine:
        if self._closed is not None:
            raise self._closed
        try:
            self._engine = self._engine or self._open()
        except PipelineError as error:
            self._closed = error
            raise
        return self._engine

    @staticmethod
    def _same_release(engine: Engine, image: str, version: str, place: Path) -> None:
        text = _file(engine, image, _OS_RELEASE, place, 100_000).read_text(encoding="utf-8", errors="replace")
        if not re.search(rf"(?<![0-9.]){re.escape(version)}(?![0-9.])", text):
            raise UpstreamDataError(f"{image} is not release {version}", hint="its tag has moved on to another release")

    @staticmethod
    def _database(engine: Engine, image: str, place: Path) -> Path:
        for path in rpm_database.PATHS[:-1]:
            try:
                return _file(engine, image, path, place, MAX_DATABASE)
            except EngineError:
                continue
        return _file(engine, image, rpm_database.PATHS[-1], place, MAX_DATABASE)


def _file(engine: Engine, image: str, path: str, place: Path, limit: int) -> Path:
    """One regular file of an image, copied below ``place``."""
    archive, out = place / "out.tar", place / "file"
    engine.export(image, path, archive)
    try:
        with tarfile.open(archive) as tar:
            member = tar.next()
            data = tar.extractfile(member) if member and member.isreg() and member.size <= limit else None
            if data is None:
                raise IntegrityError(f"{image}: {path} is no file of at most {limit} bytes", hint="look at the image")
            with out.open("wb") as target:
                while block := data.read(1 << 20):
                    target.write(block)
    except tarfile.TarError as error:
        raise IntegrityError(f"{image}: {path}: {error}", hint="the engine gave no tar archive") from error
    return out


def asked_images(
    policy: SourcePolicy | None, found: Mapping[Os, Discovery], images: Images | None, notes: Notes
) -> dict[Os, Discovery]:
    """``found`` with the kernels that only images know. One that cannot be read leaves its release as it was, and is reported."""
    listed = dict(found)
    if not isinstance(policy, FedoraCoreOS) or images is None or not policy.images or "fedora-coreos" not in listed:
        return listed
    releases: list[Release] = []
    for release in listed["fedora-coreos"].releases:
        if release.need != "rpmdb" or release.image is None:
            releases.append(release)
            continue
        try:
            kernel = images.kernel(release)
        except PipelineError as error:
            notes.reports.append(f"fedora-coreos {release.channel} {release.version}/{release.arch}: {error}")
            releases.append(release)
            continue
        version = kernel.partition("-")[0]
        releases.append(msgspec.structs.replace(release, kernel=kernel, kernel_version=version, need=None))
    listed["fedora-coreos"] = msgspec.structs.replace(listed["fedora-coreos"], releases=tuple(releases))
    return listed
