"""rpm's database of installed packages, the SQLite form that Fedora has had since 33: which kernel an image holds.

Tables ``Packages`` (a header each) and ``Name`` (which header is of which name), as rpm's lib/backend/sqlite.c makes them.
Nothing of the image is run for it, so an image of another architecture is read as well as one of our own.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Final

from ..core.errors import IntegrityError
from .rpms import installed

PATHS: Final = ("/usr/share/rpm/rpmdb.sqlite", "/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite")
"""Where an image may have it: rpm-ostree's place, Fedora's, and the old one."""
_HINT: Final = "it is no database of rpm 4.16 or newer"
_QUERY: Final = "SELECT p.blob FROM Name n JOIN Packages p ON p.hnum = n.hnum WHERE n.key = ?"


def versions(database: Path, package: str, what: str) -> list[str]:
    """``<version>-<release>.<arch>`` of every installed package named exactly ``package``, sorted.

    Raises IntegrityError, naming ``what``, for a file that is no such database.
    """
    address = f"{database.absolute().as_uri()}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
            blobs = [row[0] for row in connection.execute(_QUERY, (package,))]
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise IntegrityError(f"{what}: {error}", hint=_HINT) from error
    if not all(isinstance(blob, bytes) for blob in blobs):
        raise IntegrityError(f"{what}: a header that is no bytes", hint=_HINT)
    found = [installed(blob, what) for blob in blobs]
    return sorted(version for name, version in found if name == package)
