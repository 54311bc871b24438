"""The signed index of a Debian suite: ``InRelease``, the root of the chain of hashes.

Format: wiki.debian.org/DebianRepository/Format. What comes out of ``verify_inrelease`` is what was signed and nothing
else; the text around it is never read.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from ...core.errors import IntegrityError, PipelineError, UpstreamDataError

_BEGIN: Final = b"-----BEGIN PGP SIGNED MESSAGE-----"
_END: Final = b"-----END PGP SIGNATURE-----"
_HASH_LINE: Final = re.compile(r" ([0-9a-f]{64}) +([0-9]{1,12}) (\S+)")
_FIELD: Final = re.compile(r"([A-Za-z0-9-]+):[ \t]*(.*)")


@dataclass(frozen=True)
class Release:
    """A suite's signed Release file: its names, its date (lock form), and (sha256, size) of each index by path."""

    suite: str
    codename: str
    date: str
    by_hash: bool
    components: frozenset[str]
    hashes: Mapping[str, tuple[str, int]]


def verify_inrelease(data: bytes, keyring: Path, where: str) -> bytes:
    """The signed text of an InRelease file; nothing outside the signature comes through.

    An archive signs with several keys, old and new; one that the keyring holds and that has not expired is enough, as
    for apt, but no signature may be wrong.
    Raises IntegrityError where that is not so, PipelineError where gpgv or the keyring is not there.
    """
    if not keyring.is_file():
        raise PipelineError(
            f"the keyring {keyring} is not there", hint="install debian-archive-keyring, or set keyring in [debian]"
        )
    if shutil.which("gpgv") is None:
        raise PipelineError("gpgv is not installed", hint="install gpgv; ./doit.sh does")
    stripped = data.strip()
    if not stripped.startswith(_BEGIN) or stripped.count(_BEGIN) != 1 or not stripped.endswith(_END):
        raise IntegrityError(f"{where} is not one signed message", hint="nothing of it is used; try another base")
    with tempfile.TemporaryDirectory(prefix="driver-gpgv-") as directory:
        signed, text = Path(directory) / "InRelease", Path(directory) / "Release"
        signed.write_bytes(data)
        command = ["gpgv", "--homedir", directory, "--status-fd", "1", "--keyring", str(keyring.resolve())]
        command += ["--output", str(text), str(signed)]
        done = subprocess.run(command, env={**os.environ, "LC_ALL": "C"}, capture_output=True, check=False)
        status = done.stdout.decode("utf-8", "replace").splitlines()
        said = [line.split(" ")[1] for line in status if line.startswith("[GNUPG:] ")]
        if "GOODSIG" not in said or "BADSIG" in said or not text.is_file():
            raise IntegrityError(f"{where}: {_verdict(said)} ({keyring})", hint="nothing of it is used")
        return text.read_bytes()


def _verdict(said: list[str]) -> str:
    """gpgv's status words (doc/DETAILS of GnuPG) in a sentence."""
    if "BADSIG" in said:
        return "its signature is wrong"
    if expired := {"EXPKEYSIG", "EXPSIG", "REVKEYSIG"} & set(said):
        return f"no key of the keyring that still holds signed it ({', '.join(sorted(expired))})"
    return "no key of the keyring signed it" if "NO_PUBKEY" in said else "it holds no signature that gpgv can read"


def parse_release(text: bytes, where: str) -> Release:
    """A Release file.

    Raises UpstreamDataError where a field that is needed is missing or says something else.
    """
    fields: dict[str, str] = {}
    hashes: dict[str, tuple[str, int]] = {}
    key = ""
    for line in text.decode("utf-8", "replace").splitlines():
        if found := _FIELD.fullmatch(line):
            key = found[1]
            fields.setdefault(key, found[2].strip())
        elif key == "SHA256" and (entry := _HASH_LINE.fullmatch(line)):
            hashes[entry[3]] = (entry[1], int(entry[2]))
    try:
        date = parsedate_to_datetime(fields["Date"])
        date = date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
        release = Release(
            suite=fields.get("Suite", fields["Codename"]),
            codename=fields["Codename"],
            date=date.strftime("%Y-%m-%dT%H:%M:%SZ"),
            by_hash=fields.get("Acquire-By-Hash", "").lower() == "yes",
            # Debian's security suites call a component 'updates/main' here and 'main' in paths.
            components=frozenset(name.rpartition("/")[2] for name in fields.get("Components", "").split()),
            hashes=hashes,
        )
    except KeyError as error:
        raise UpstreamDataError(f"{where} has no field {error}", hint="is this the address of an archive?") from error
    except (ValueError, TypeError) as error:
        raise UpstreamDataError(f"{where}: its date cannot be read ({error})", hint="try again later") from error
    if not hashes:
        raise UpstreamDataError(f"{where} lists no SHA256 sums", hint="try another base, or again later")
    return release
