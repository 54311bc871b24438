"""``driver:index`` in the registry: what it says of itself in its labels, and the document in its layer, read at need.

The labels let a run that finds nothing to do end without the document, which is megabytes at thousands of pairs.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..core.errors import PipelineError, RegistryError, UsageError
from ..core.lazy import lazy
from ..core.tags import INDEX, is_outcome, label
from ..outcomes import index as indexes
from ..outcomes.index import Index
from .signing import KEY_FILE, SIGNATURE_FILE, signer

if TYPE_CHECKING:
    from ..build.shared_layers import Workshop
    from ..plan.pairs import Plan
    from ..registry.client import Registry

SERIAL_LABEL: Final = label("serial")
BASIS_LABEL: Final = label("basis")
"""``basis`` of what the index was made from."""
DOCUMENT_LABEL: Final = label("document")
"""``digest`` of ``/index.json``."""
SIGNER_LABEL: Final = label("signed-by")
"""``key_id`` of the key that signed ``/index.json``; no such label where nobody did."""
MAX_BYTES: Final = 256 << 20
"""Of the layer, packed and unpacked: a few KB can stand for gigabytes, and whoever may push chose them."""


def digest(document: bytes) -> str:
    """``sha256:<hex64>`` of an index's bytes."""
    return f"sha256:{hashlib.sha256(document).hexdigest()}"


def basis(plan: Plan, tags: Iterable[str]) -> str:
    """Sha256 over all that outcomes follow from: lock, wishes, rules, recipes, the registry's recipe tags, the signer, our code.

    An index that was made from the same basis is the one that would be made now. Details such as sizes and seconds belong
    to a recipe's tag and do not change beside it.
    """
    total = hashlib.sha256(Path(indexes.__file__).read_bytes())
    for part in (plan.lock, plan.wanted, plan.rules):
        total.update(msgspec.json.encode(part))
    total.update("\n".join(pair.recipe for pair in plan.pairs).encode())
    total.update("\n".join(sorted(tag for tag in tags if is_outcome(tag))).encode())
    if signed_by := signer():
        total.update(signed_by.key_id.encode())
    return f"sha256:{total.hexdigest()}"


class Published:
    """The index image of one registry, each part read once. ``present``: whether its tag is there."""

    def __init__(self, registry: Registry, *, present: bool) -> None:
        self._registry, self._present = registry, present

    @lazy
    def labels(self) -> Mapping[str, str]:
        """The labels of the image; empty where there is none or it is none of ours."""
        with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
            config = json.loads(self._registry.blob(self._manifest["config"]["digest"]))
            return dict(config["config"]["Labels"])
        return {}

    @lazy
    def index(self) -> Index:
        """The document; an empty index where there is none or it cannot be read."""
        from ..formats import layers

        try:
            data = self._registry.blob(self._manifest["layers"][0]["digest"], max_bytes=MAX_BYTES)
            name = self._registry.reference(INDEX)
            held = (entry for entry in layers.read(io.BytesIO(data), name, MAX_BYTES) if entry.name == "index.json")
            document = next((entry.data.read() for entry in held if entry.data is not None), b"")
            return indexes.parse(document, name)
        except (ValueError, LookupError, TypeError):
            return Index()
        except PipelineError as error:
            if isinstance(error, RegistryError):
                raise
            return Index()

    @lazy
    def _manifest(self) -> Any:
        """The manifest of the image; of several, which differ in their architecture alone, the first."""
        from ..registry.client import INDEX_TYPES

        manifest = self._registry.manifest(INDEX) if self._present else None
        document = json.loads(manifest.data) if manifest else {}
        if manifest and manifest.media_type in INDEX_TYPES:
            child = self._registry.manifest(document["manifests"][0]["digest"]) if document.get("manifests") else None
            return json.loads(child.data) if child else {}
        return document


def push(index: Index, made_from: str, held: Published, shop: Workshop) -> bool:
    """Publish ``index`` as ``driver:index``, signed where there is a key; False where the registry has it.

    A host reads it by ``create`` and ``cp``, for which some engines want an image of their own architecture: so there is one
    for each that a pair was tried for, all with the same layer, and the tag is an OCI index where that is more than one.
    Raises UsageError where the one that is there is signed and there is no key: hosts that check would trust nothing any more.
    """
    from ..build.assemble import INDEX_TYPE, assemble, assemble_index, tree

    document = indexes.dump(index)
    facts = {SERIAL_LABEL: str(index.serial), BASIS_LABEL: made_from, DOCUMENT_LABEL: digest(document)}
    signed_by = signer()
    if signed_by:
        facts[SIGNER_LABEL] = signed_by.key_id
    elif SIGNER_LABEL in held.labels:
        raise UsageError(
            "driver:index in the registry is signed, and there is no key to sign the new one", hint=f"set {KEY_FILE}"
        )
    if facts.items() <= held.labels.items():
        return False
    files = {"index.json": (0o644, document)}
    files |= {path: (0o644, data) for path, data in indexes.kernel_files(index.pairs).items()}
    if signed_by:
        files[SIGNATURE_FILE] = (0o644, signed_by.sign(document))
    layer = shop.store.add(tree(files), 0, passing=True)
    labels = {"org.opencontainers.image.title": "driver index"} | facts
    arches = sorted({entry.arch for entry in index.pairs if entry.outcome != "pending"}) or ["amd64"]
    images = {arch: assemble([layer], arch=arch, epoch=0, labels=labels, names=["index"], program=False) for arch in arches}
    try:
        for image in images.values():
            shop.push_image(image, [INDEX] if len(images) == 1 else [], shared=True)
    finally:
        shop.store.drop(layer)
    if len(images) > 1:
        several = assemble_index({arch: image.manifest for arch, image in images.items()})
        shop.registry.push_manifest(several, INDEX_TYPE, [INDEX], shared=True)
    return True
