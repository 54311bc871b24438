"""Layers and image configuration: the same bytes from the same files, on every machine.

The engine compiles; what is pushed is made here. Layers are tars with sorted entries, owner 0, times clamped to the
image's date, as gzip of one form (``deflate.py``; Docker 20.10 cannot read zstd layers).
Formats: OCI image-spec 1.1 (manifest, config, layer media types).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from ..core.errors import DiskError, IntegrityError
from ..core.timestamps import date_of
from .parallel_gzip import Gzip

MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE: Final = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Layer:
    """One layer blob: ``digest`` and ``size`` of the gzip, ``diff_id`` of the tar in it, ``tar_size`` in bytes."""

    digest: str
    size: int
    diff_id: str
    tar_size: int

    @property
    def descriptor(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {"mediaType": LAYER_TYPE, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Image:
    """One assembled image: the bytes of its manifest and configuration, and its layers, oldest first."""

    manifest: bytes
    config: bytes
    layers: tuple[Layer, ...]

    @property
    def digest(self) -> str:
        """The digest a registry knows it by."""
        return digest_of(self.manifest)

    @property
    def size(self) -> int:
        """Bytes a host without any of its layers pulls."""
        return len(self.manifest) + len(self.config) + sum(layer.size for layer in self.layers)


def digest_of(data: bytes) -> str:
    """``sha256:<hex64>`` of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class _LayerWriter(io.RawIOBase):
    """A file object that hashes, compresses and hashes again what a tar writer gives it."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._tar, self._gzip = hashlib.sha256(), hashlib.sha256()
        self.tar_size = self.size = 0
        self.deflate = Gzip(self._put)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._tar.update(data)
        self.tar_size += len(data)
        self.deflate.write(data)
        return len(data)

    def finish(self) -> Layer:
        self.deflate.finish()
        gzip, tar = f"sha256:{self._gzip.hexdigest()}", f"sha256:{self._tar.hexdigest()}"
        return Layer(gzip, self.size, tar, self.tar_size)

    def _put(self, data: bytes) -> None:
        self._gzip.update(data)
        self.size += len(data)
        self._out.write(data)


class Store:
    """Layer blobs on this machine's disk, by digest, and which recipe made which.

    What thousands of images share is kept. What one image alone has is ``passing``: it lies apart, of use until it is pushed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def blob(self, digest: str) -> Path:
        """Where a blob lies, or would."""
        passing = self._passing(digest)
        return passing if passing.exists() else self.root / "sha256" / digest.removeprefix("sha256:")

    def _passing(self, digest: str) -> Path:
        return self.root / "passing" / digest.removeprefix("sha256:")

    def drop(self, layer: Layer) -> None:
        """Forget a passing layer; nothing where it is kept, or gone."""
        self._passing(layer.digest).unlink(missing_ok=True)

    def find(self, recipe: str) -> Layer | None:
        """The layer that ``recipe`` made here, where its blob is still whole."""
        try:
            layer = Layer(**json.loads((self.root / "recipes" / f"{recipe}.json").read_bytes()))
            return layer if self.blob(layer.digest).stat().st_size == layer.size else None
        except (OSError, ValueError, TypeError):
            return None

    def remember(self, recipe: str, layer: Layer) -> Layer:
        """Note that ``recipe`` makes ``layer``. Raises DiskError where the disk is full."""
        place = self.root / "recipes" / f"{recipe}.json"
        partial = place.with_suffix(f".{os.getpid()}.part")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(asdict(layer)))
            partial.replace(place)
        except OSError as error:
            raise DiskError(f"{place}: {error.strerror}", hint="free some space below build/") from error
        return layer

    def add(self, entries: Iterable[tuple[tarfile.TarInfo, IO[bytes] | None]], epoch: int, *, passing: bool = False) -> Layer:
        """Write the layer of ``entries``, which must come sorted by name.

        Raises DiskError where the disk is full; nothing half-written stays.
        """
        place = self.root / ("passing" if passing else "sha256")
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place, prefix=".layer.", delete=False) as out:
                try:
                    layer = _write(entries, out, epoch)
                    out.flush()
                    os.fsync(out.fileno())
                    Path(out.name).replace(place / layer.digest.removeprefix("sha256:"))
                except BaseException:
                    Path(out.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise DiskError(f"{place}: {error.strerror}", hint="free some space below build/") from error
        return layer

    def open(self, layer: Layer) -> tarfile.TarFile:
        """The layer as a tar to read in order."""
        return tarfile.open(self.blob(layer.digest), mode="r:gz")


def _write(entries: Iterable[tuple[tarfile.TarInfo, IO[bytes] | None]], out: IO[bytes], epoch: int) -> Layer:
    sink = _LayerWriter(out)
    with sink.deflate, tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK) as tar:
        for info, data in entries:
            clean = tarfile.TarInfo(info.name)
            clean.type, clean.mode, clean.linkname = info.type, info.mode & 0o7777, info.linkname
            clean.size = info.size if info.isreg() else 0
            clean.devmajor, clean.devminor, clean.mtime = info.devmajor, info.devminor, epoch
            tar.addfile(clean, data if info.isreg() else None)
        tar.close()
        return sink.finish()


def exported(archive: tarfile.TarFile, strip: str) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Entries of an engine's export of one directory, sorted, without the leading ``strip`` component.

    Hard links become files of their own, so that sorting cannot put one before its target.
    Raises IntegrityError for a name that leaves the tree.
    """
    found: dict[str, tarfile.TarInfo] = {}
    for member in archive:
        name = member.name.strip("/").removeprefix("./")
        if name == strip or not name:
            continue
        if not name.startswith(f"{strip}/") or ".." in name.split("/"):
            raise IntegrityError(f"the engine's export has the name '{member.name}'", hint="nothing outside /out is expected")
        found[name[len(strip) + 1 :]] = member
    for name in sorted(found):
        member = found[name]
        data = archive.extractfile(member) if member.isreg() or member.islnk() else None
        info = tarfile.TarInfo(name)
        info.mode, info.linkname = member.mode, member.linkname
        info.devmajor, info.devminor = member.devmajor, member.devminor
        if member.islnk():
            target = archive.getmember(member.linkname)
            info.type, info.size, info.linkname = tarfile.REGTYPE, target.size, ""
        else:
            info.type, info.size = member.type, member.size
        yield info, data


def tree(files: Mapping[str, tuple[int, bytes]]) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Entries for ``files`` (path to (mode, content)) with the directories above them, sorted."""
    names = set(files)
    for path in files:
        parts = path.split("/")
        names.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    for name in sorted(names):
        info = tarfile.TarInfo(name)
        if name in files:
            mode, content = files[name]
            info.mode, info.size = mode, len(content)
            yield info, io.BytesIO(content)
        else:
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            yield info, None


def merged(
    streams: Sequence[Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]],
) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Several sorted streams as one sorted stream; a directory that stands in more than one appears once."""
    heads = [next(stream, None) for stream in streams]
    while live := [head for head in heads if head is not None]:
        name = min(head[0].name for head in live)
        shown = False
        for number, head in enumerate(heads):
            if head is not None and head[0].name == name:
                if not shown:
                    yield head
                    shown = True
                elif not head[0].isdir():
                    raise IntegrityError(f"'{name}' comes from two places", hint="this is a fault of the pipeline")
                heads[number] = next(streams[number], None)


def assemble(
    layers: Sequence[Layer], *, arch: str, epoch: int, labels: Mapping[str, str], names: Sequence[str], program: bool
) -> Image:
    """The image of ``layers``. ``names`` says for each layer what it is (the history's text).

    ``program``: its entry point is ``nvidia-driver init``; otherwise a shell.
    """
    created = date_of(epoch)
    settings: dict[str, Any] = {
        "Env": ["PATH=/usr/local/nvidia/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Labels": dict(labels),
        "WorkingDir": "/",
    }
    settings |= {"Entrypoint": ["/usr/bin/nvidia-driver"], "Cmd": ["init"]} if program else {"Cmd": ["/bin/sh"]}
    config = _canonical(
        {
            "architecture": arch,
            "os": "linux",
            "created": created,
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
            "history": [{"created": created, "created_by": name} for name in names],
        }
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": digest_of(config), "size": len(config)},
        "layers": [layer.descriptor for layer in layers],
        "annotations": {k: v for k, v in labels.items() if k.startswith("org.opencontainers.image.")},
    }
    return Image(_canonical(manifest), config, tuple(layers))


def assemble_index(manifests: Mapping[str, bytes]) -> bytes:
    """The index under which one name offers ``manifests``, by architecture; engines take their own out of it.

    OCI image-spec 1.1, image-index.md. It carries the annotations that all of them share.
    """
    documents = [json.loads(manifest) for manifest in manifests.values()]
    shared = set.intersection(*(set(document.get("annotations", {}).items()) for document in documents))
    children = [
        {
            "mediaType": MANIFEST_TYPE,
            "digest": digest_of(manifest),
            "size": len(manifest),
            "platform": {"architecture": arch, "os": "linux"},
        }
        for arch, manifest in sorted(manifests.items())
    ]
    return _canonical({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": children, "annotations": dict(shared)})


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
