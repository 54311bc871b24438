"""``version.txt`` of a Flatcar or Container Linux release directory: KEY=VALUE lines that name the release.

Only BUILD_ID is quoted. Container Linux, and so the oldest Flatcar releases, say COREOS_ where Flatcar says FLATCAR_.
The published file has BUILD, BRANCH, PATCH, VERSION, VERSION_ID, BUILD_ID and SDK_VERSION; a nightly's VERSION ends in
``+nightly-…``.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from ...core.errors import UpstreamDataError

_LINE: Final = re.compile(r'([A-Z][A-Z_]*)=(?:"([A-Za-z0-9._+-]*)"|([A-Za-z0-9._+-]*))')
_VERSION: Final = re.compile(r"([0-9]{1,6}\.[0-9]{1,4}\.[0-9]{1,4})(\+[A-Za-z0-9._+-]{1,80})?")
_STAMP: Final = re.compile(r"(20[0-9]{2}-[01][0-9]-[0-3][0-9])-([0-2][0-9])([0-5][0-9])")
_MAX_BYTES: Final = 10_000


class VersionTxt(Struct, frozen=True, kw_only=True):
    """``version`` is the number alone; ``suffix`` is "" for a release and ``+nightly-20260821-2100`` for a nightly."""

    vendor: str
    version: str
    suffix: str
    build_id: str

    @property
    def date(self) -> str | None:
        """When it was built, like ``2026-04-14T08:06:00Z``; None where the build id does not say."""
        match = _STAMP.fullmatch(self.build_id)
        return f"{match[1]}T{match[2]}:{match[3]}:00Z" if match else None


def parse(data: bytes, url: str) -> VersionTxt:
    """The release that ``data`` names.

    Raises UpstreamDataError for another document, a key that stands twice, or keys that contradict each other.
    """
    values: dict[str, str] = {}
    try:
        lines = data[: _MAX_BYTES + 1].decode("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise UpstreamDataError(f"{url}: {error}", hint="version.txt is plain ASCII") from error
    if len(data) > _MAX_BYTES:
        raise UpstreamDataError(f"{url}: {len(data)} bytes are more than a version.txt has", hint="look at it")
    for line in filter(None, map(str.strip, lines)):
        match = _LINE.fullmatch(line)
        if not match or match[1] in values:
            what = "stands twice" if match else "is not KEY=VALUE"
            raise UpstreamDataError(f"{url}: '{line}' {what}", hint="expected lines like FLATCAR_VERSION=4593.2.5")
        values[match[1]] = match[2] if match[2] is not None else match[3]
    vendors = [vendor for vendor in ("FLATCAR", "COREOS") if f"{vendor}_VERSION" in values]
    if len(vendors) != 1:
        raise UpstreamDataError(f"{url}: not one of FLATCAR_VERSION and COREOS_VERSION", hint="look at the file")
    own = {key.removeprefix(vendors[0] + "_"): value for key, value in values.items()}
    version = _VERSION.fullmatch(own["VERSION"])
    if not version:
        raise UpstreamDataError(f"{url}: '{own['VERSION']}' is not a version", hint="it looks like 4593.2.5")
    parts = [own[key] for key in ("BUILD", "BRANCH", "PATCH") if key in own]
    if own.get("VERSION_ID", version[1]) != version[1] or (len(parts) == 3 and ".".join(parts) != version[1]):
        raise UpstreamDataError(f"{url}: VERSION and its parts contradict each other", hint="look at the file")
    return VersionTxt(vendor=vendors[0], version=version[1], suffix=version[2] or "", build_id=own.get("BUILD_ID", ""))
