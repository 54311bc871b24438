"""What pinning may use, and what it answers where it cannot."""

from __future__ import annotations

from msgspec import Struct

from ...config.records import Lock
from ...config.source_policy import VendorKey
from ...core.files import MAX_UNPACKED
from ...fetch.vendor_files import Take
from ...formats.openpgp import Keys, dearmour
from ...upstream.nvidia.downloads import Redist
from ...upstream.records import Get


class Unpinned(Struct, frozen=True):
    """Why something known cannot be pinned now, and where to read more."""

    reason: str
    see: str = ""


class Means(Struct, frozen=True, kw_only=True):
    """How to get a URL, the vendor's keys by policy, kernel.org's, the lock as it is so far.

    ``take`` gets a file that is no feed; None where nothing may be downloaded. ``redists``: NVIDIA's redist manifests that
    were read; ``fabric_manager``: whether drivers are wanted with it.
    """

    get: Get
    keys: tuple[VendorKey, ...] = ()
    source_keys: tuple[VendorKey, ...] = ()
    lock: Lock
    take: Take | None = None
    max_unpacked: int = MAX_UNPACKED
    redists: tuple[Redist, ...] = ()
    fabric_manager: bool = False


def keyring(keys: tuple[VendorKey, ...], get: Get) -> Keys:
    """The keys themselves, from where a person read their fingerprints; only those fingerprints vouch for anything."""
    material = b"".join(dearmour(get(key.source, False), key.source) for key in keys)
    return Keys(material, "the keys of versions.toml", frozenset(key.fingerprint for key in keys))
