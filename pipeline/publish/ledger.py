"""What the registry says is done, and the index made of it.

The tags are the truth: ``r-<recipe16>`` for an image, ``failed-<recipe16>`` for a failure. One listing a run tells what
is up to date. ``driver:index`` only saves asking for each pair's details; any runner can make it again from the tags.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ..config.lockfile import write
from ..core.background import aside
from ..core.errors import PipelineError, RegistryError, one_line
from ..core.lazy import lazy
from ..core.progress import Outcome
from ..core.tags import INDEX, REASON_LABEL, label, of_image
from ..core.versions import DriverVersion
from ..outcomes import index as indexes
from ..outcomes.index import Bytes, Entry, Index, entry_of
from ..plan.pairs import Pair, Plan
from .index_image import BASIS_LABEL, DOCUMENT_LABEL, SERIAL_LABEL, Published, basis, digest, push

if TYPE_CHECKING:  # what builds is imported by those who build
    from concurrent.futures import Future

    from ..build.shared_layers import Workshop
    from ..registry.client import Manifest, Registry

OUTCOMES: Final = Path("build/outcomes")
NOT_BUILT: Final = "not built yet"
_SILENT: Final = 3.0  # seconds after which a wait for the registry is said


class Ledger:
    """One run's view of one registry. Reading is lazy and happens once; what this run did is added on top."""

    def __init__(self, registry: Registry, root: Path, *, retry_failed: bool = False) -> None:
        self.registry, self.root, self.retry_failed = registry, root, retry_failed
        self._current = False
        self._asked: Future[list[str]] | None = None
        self._resolved: dict[str, Entry] = {}
        """What images themselves said, by their recipe tags, which never move: other runners' pairs are asked for once a run."""

    def ask(self) -> None:
        """Begin to list the registry's tags, so that it does that while the caller reads its own files."""
        self._asked = aside(self.registry.tags)

    @lazy
    def tags(self) -> set[str]:
        """Every tag of the repository."""
        asked, self._asked = self._asked or aside(self.registry.tags), None
        try:
            return set(asked.result(timeout=_SILENT))
        except TimeoutError:
            print(f"doit: waiting for {self.registry.host} to list the tags of {self.registry.repository}", file=sys.stderr)
        return set(asked.result())

    @lazy
    def _image(self) -> Published:
        return Published(self.registry, present=INDEX in self.tags)

    @property
    def published(self) -> Index:
        """The index that the registry holds; an empty one where there is none or it cannot be read."""
        return self._image.index

    def knows(self, plan: Plan) -> bool:
        """True where the published index was made from what ``plan`` and the tags say now: it need not be read."""
        self._current = self._image.labels.get(BASIS_LABEL) == basis(plan, self.tags)
        return self._current

    @property
    def serial(self) -> int:
        """The serial of the published index, by its label."""
        return int(self._image.labels.get(SERIAL_LABEL, "0"))

    def is_published(self, document: bytes) -> bool:
        """True where the published index has these very bytes."""
        return self._image.labels.get(DOCUMENT_LABEL) == digest(document)

    @lazy
    def _known(self) -> dict[tuple[str, str, str, str, str], Entry]:
        return self.published.by_key()

    def built(self, pair: Pair) -> bool:
        """True where the image of the pair's present recipe is in the registry."""
        return pair.recipe_tag in self.tags

    def failed(self, pair: Pair) -> bool:
        """True where the present recipe is known to fail and is not to be tried again."""
        return pair.failed_tag in self.tags and not self.retry_failed and not self.built(pair)

    def done(self, pair: Pair) -> bool:
        """True where nothing is to be done for ``pair``: image and names are there, or it is excluded, or known to fail."""
        if pair.exclusion is not None or self.failed(pair):
            return True
        if not self.built(pair) or not self.tags.issuperset(pair.tags):
            return False
        if pair.siblings() and not self.tags.issuperset(self._joint_tags(pair)):
            return False
        if self._current:
            return True
        entry = self._known.get(_key(pair))
        return entry is not None and entry.recipe == f"sha256:{pair.recipe}" and entry.outcome == "built"

    def _joint_tags(self, pair: Pair) -> set[str]:
        from ..build.image_names import joint_tags

        return joint_tags(pair, self.built)

    def note(self, entry: Entry) -> Entry:
        """Keep an outcome of this run on disk at once, so that a kill later loses nothing of it."""
        place = self.root / OUTCOMES / f"{entry.recipe.removeprefix('sha256:')[:16]}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        write(place, msgspec.json.encode(entry))
        return entry

    def refresh(self) -> None:
        """Read the tags again, after a run changed them."""
        self._current = False
        for name in ("tags", "_image", "_known"):
            self.__dict__.pop(name, None)

    def adopt(self, pair: Pair, shop: Workshop) -> Entry:
        """Give the image that is there under the recipe's tag its names, without building anything."""
        from ..build.pair import publish

        manifest = self.registry.manifest(pair.recipe_tag)
        if manifest is None:
            raise RegistryError(
                f"{self.registry.reference(pair.recipe_tag)} is listed and cannot be read", hint="delete that tag"
            )
        publish(pair, manifest.digest, manifest.data, shop)
        entry = self._held(pair, "built") or self._from_registry(pair)
        shop.progress.event("outcome", pair.id, f"built {manifest.digest[:19]} (was there)", outcome="built")
        return entry

    def entry(self, pair: Pair) -> Entry:
        """The present outcome of ``pair``."""
        if pair.exclusion is not None:
            return indexes.excluded(pair)
        known = self._known.get(_key(pair))
        stale = pair.kernel.stale or pair.driver.stale
        if self.built(pair) or pair.failed_tag in self.tags:
            wanted: Outcome = "built" if self.built(pair) else "failed"
            return msgspec.structs.replace(
                self._held(pair, wanted) or self._from_registry(pair),
                stale=stale,
                releases=indexes.releases_of(pair.kernel.releases),
                released=pair.kernel.date,
                wanted=True,
                tags=pair.tags if wanted == "built" else (),
            )
        if known and known.outcome == "built" and of_image(known.recipe) in self.tags:
            return msgspec.structs.replace(known, stale=stale, reason="built from an earlier recipe")
        reason = "its inputs left the archive before it was built" if stale else NOT_BUILT
        return entry_of(pair, "pending", reason=reason, stale=stale)

    def entries(self, plan: Plan) -> list[Entry]:
        """Outcomes of everything: the lock's pairs, what is known but not pinned, and what the registry holds besides."""
        found = [self.entry(pair) for pair in plan.pairs]
        for known in plan.lock.pending:
            found += indexes.pending(known, plan.lock.pending_drivers)
        have = {entry.key for entry in found}
        for entry in self.published.pairs:
            if entry.key not in have and entry.outcome == "built" and of_image(entry.recipe) in self.tags:
                found.append(msgspec.structs.replace(entry, wanted=False))
        return found

    def index(self, plan: Plan, local: Index, *, now: str | None = None) -> Index:
        """The index as it should be. Its serial rises only where something changed, and never falls."""
        entries = tuple(self.entries(plan))
        base = max((self.published, local), key=lambda index: index.serial)
        if indexes.same(self.published, entries) and self.published.serial == base.serial and base.serial:
            return self.published
        stamp = now or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return Index(serial=base.serial + 1, generated=stamp, pairs=entries)

    def push_index(self, index: Index, plan: Plan, shop: Workshop) -> bool:
        """Publish ``index`` as ``driver:index`` where it is not what is there."""
        return push(index, basis(plan, self.tags), self._image, shop)

    def outcome(self, pair: Pair) -> Outcome:
        """What became of ``pair``, by the tags alone."""
        if pair.exclusion is not None:
            return "excluded"
        return "built" if self.built(pair) else "failed" if pair.failed_tag in self.tags else "pending"

    def settle_aliases(self, plan: Plan, changed: Iterable[Pair], shop: Workshop, *, missing: bool = True) -> None:
        """Point ``<kernel>-<branch>`` names at the newest built driver of the branch; they only move forward.

        Those of ``changed`` pairs, and those that are ``missing``, which a runner that died has left.
        """
        changed_ids = {pair.id for pair in changed}
        owners: dict[str, dict[str, Pair]] = {}
        touched: set[str] = set()
        for pair in plan.pairs:
            if pair.exclusion is not None or not self.built(pair):
                continue
            for tag in pair.aliases:
                held = owners.setdefault(tag, {}).get(pair.kernel.arch)
                if held is None or DriverVersion(held.driver.version) < DriverVersion(pair.driver.version):
                    owners[tag][pair.kernel.arch] = pair
                if pair.id in changed_ids or (missing and tag not in self.tags):
                    touched.add(tag)
        for tag in sorted(touched):
            self._settle(tag, owners[tag], shop)

    def _settle(self, tag: str, owners: Mapping[str, Pair], shop: Workshop) -> None:
        """Point a branch's name at the images of ``owners``, by architecture; none of them moves back."""
        from ..build.image_names import Part, keep, offered, settle

        manifests = {arch: self.registry.manifest(owner.recipe_tag) for arch, owner in owners.items()}
        parts = {arch: Part(owners[arch].recipe, manifest) for arch, manifest in manifests.items() if manifest}
        if not parts:
            return
        present = self.registry.digest(tag) if tag in self.tags else None
        if len(parts) == 1 and present == next(iter(parts.values())).manifest.digest:
            return
        ways = []
        for arch, part in offered(self.registry, tag).items() if present else ():
            if arch not in parts or part.manifest.digest == parts[arch].manifest.digest:
                continue
            held = one_line(self.labels(part.manifest.digest).get(label("driver"), ""))
            new = owners[arch].driver.version
            with contextlib.suppress(PipelineError):
                if DriverVersion(new) < DriverVersion(held):
                    parts[arch] = part
                    continue
            digests = part.manifest.digest[:19], parts[arch].manifest.digest[:19]
            same = f"from {digests[0]} to {digests[1]}: its recipe changed"
            ways.append((arch, same if held == new else f"forward from {held or digests[0]} to {new}"))
        for arch, way in ways:
            shop.progress.note(owners[arch].id, f"tag {tag} moves {way}")
        keep(settle(tag, parts, self.registry, lambda _: None, shared=True), self.registry)
        self.tags.add(tag)

    def _held(self, pair: Pair, outcome: Outcome) -> Entry | None:
        """What a run here noted or the index says; rather what says when, which an image that was adopted does not keep."""
        told = [e for e in (self._noted(pair), self._known.get(_key(pair))) if e and _fits(e, pair, outcome)]
        return next((entry for entry in told if entry.built), told[0] if told else None)

    def _noted(self, pair: Pair) -> Entry | None:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode((self.root / OUTCOMES / f"{pair.recipe[:16]}.json").read_bytes(), type=Entry)
        return None

    def labels(self, tag: str) -> Mapping[str, str]:
        """Labels of the image under ``tag``; empty where it is none."""
        return self._labels(self.registry.manifest(tag))

    def _labels(self, manifest: Manifest | None) -> Mapping[str, str]:
        try:
            if manifest:
                config = json.loads(self.registry.blob(json.loads(manifest.data)["config"]["digest"]))
                return dict(config["config"]["Labels"])
        except (ValueError, LookupError, TypeError):
            pass
        return {}

    def _from_registry(self, pair: Pair) -> Entry:
        """An entry made from the image itself, which keeps neither when it was built nor how long that took."""
        tag = pair.recipe_tag if self.built(pair) else pair.failed_tag
        if tag not in self._resolved:
            self._resolved[tag] = self._resolve(pair, tag)
        return self._resolved[tag]

    def _resolve(self, pair: Pair, tag: str) -> Entry:

        manifest = self.registry.manifest(tag)
        if manifest is None:
            raise RegistryError(f"{self.registry.reference(tag)} is listed and cannot be read", hint="delete that tag")
        labels = self._labels(manifest)
        if not self.built(pair):
            return entry_of(pair, "failed", reason=one_line(labels.get(REASON_LABEL, "the reason was not kept")))
        document = json.loads(manifest.data)
        sizes = [layer["size"] for layer in document["layers"]]
        total = len(manifest.data) + document["config"]["size"] + sum(sizes)
        return entry_of(
            pair,
            "built",
            missing=indexes.left_out(pair),
            kinds=tuple(labels.get(label("kinds"), "").split()),
            tags=pair.tags,
            digest=manifest.digest,
            bytes=Bytes(total, sizes[2] if len(sizes) > 2 else 0),
        )


def local_document(root: Path) -> bytes:
    """The bytes of the last index this checkout wrote; none where there is none."""
    try:
        return (root / indexes.INDEX_FILE).read_bytes()
    except OSError:
        return b""


def local_index(root: Path) -> Index:
    """The last index this checkout wrote; an empty one where there is none."""
    try:
        return indexes.parse(local_document(root), str(indexes.INDEX_FILE))
    except PipelineError:
        return Index()


def save_index(root: Path, index: Index) -> None:
    """Write ``build/index.json`` whole or not at all."""
    place = root / indexes.INDEX_FILE
    os.makedirs(place.parent, exist_ok=True)
    write(place, indexes.dump(index))


def cached(plan: Plan, local: Index) -> Index:
    """What is known without a registry: the last index, and the lock's pairs that it lacks as pending."""
    known = local.by_key()
    entries: list[Entry] = []
    for pair in plan.pairs:
        if pair.exclusion is not None:
            entries.append(indexes.excluded(pair))
            continue
        held = known.get(_key(pair))
        use = held if held and held.outcome != "excluded" else entry_of(pair, "pending", reason=NOT_BUILT)
        entries.append(use)
    for pending in plan.lock.pending:
        entries += indexes.pending(pending, plan.lock.pending_drivers)
    return Index(serial=local.serial, generated=local.generated, source="cache", pairs=tuple(entries))


def _key(pair: Pair) -> tuple[str, str, str, str, str]:
    kernel = pair.kernel
    return kernel.os, kernel.arch, kernel.kernel, pair.driver.version, f"sha256:{kernel.headers_digest}"


def _fits(entry: Entry, pair: Pair, outcome: str) -> bool:
    return entry.outcome == outcome and entry.recipe == f"sha256:{pair.recipe}"


def selected(entries: Sequence[Entry], pairs: Iterable[Pair]) -> list[Entry]:
    """Those of ``entries`` that are about ``pairs``."""
    keys = {_key(pair) for pair in pairs}
    return [entry for entry in entries if entry.key in keys]
