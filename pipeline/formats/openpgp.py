"""Signatures, asked of gpgv: detached ones, and texts that carry theirs (clear-signed lists of sums).

gpgv trusts every key of the keyring it is given and nothing else; it takes no options from the user's home.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..core.errors import IntegrityError, PipelineError

_ARMOUR: Final = re.compile(
    rb"-----BEGIN PGP [A-Z ]+-----\s*?\n(.*?)\n(?:=[A-Za-z0-9+/]{4}\s*\n)?-----END PGP [A-Z ]+-----", re.DOTALL
)


def dearmour(data: bytes, where: str) -> bytes:
    """OpenPGP packets out of their ASCII form (RFC 9580, 6); ``data`` itself where it is binary. Raises IntegrityError."""
    if b"-----BEGIN PGP" not in data:
        return data
    packets = []
    for block in _ARMOUR.findall(data.replace(b"\r", b"")):
        body = block.split(b"\n\n", 1)[-1] if b":" in block.split(b"\n", 1)[0] or block.startswith(b"\n") else block
        try:
            packets.append(base64.b64decode(b"".join(body.split()), validate=True))
        except binascii.Error as error:
            raise IntegrityError(f"{where} is no OpenPGP file ({error})", hint="fetch the key or signature again") from error
    if not packets:
        raise IntegrityError(f"{where} is no OpenPGP file", hint="fetch the key or signature again")
    return b"".join(packets)


@dataclass(frozen=True)
class Keys:
    """Public keys, and the full fingerprints of those that may vouch; without any, every key there may."""

    material: bytes
    name: str
    fingerprints: frozenset[str] = frozenset()


def verify(data: bytes | Path, signature: bytes, keys: Keys, what: str) -> None:
    """Return where one of ``keys`` made the detached ``signature`` of ``data``.

    Raises IntegrityError where none did, PipelineError without gpgv.
    """
    with tempfile.TemporaryDirectory(prefix="driver-gpgv-") as directory:
        place = Path(directory)
        if isinstance(data, Path):
            subject = data.resolve()
        else:
            subject = place / "data"
            subject.write_bytes(data)
        (place / "signature").write_bytes(dearmour(signature, f"the signature of {what}"))
        _gpgv(place, keys, what, str(place / "signature"), str(subject))


def cleartext(data: bytes, keys: Keys, what: str) -> bytes:
    """The signed part of a clear-signed text, once a key of ``keys`` signed it. Raises as ``verify`` does."""
    with tempfile.TemporaryDirectory(prefix="driver-gpgv-") as directory:
        place = Path(directory)
        (place / "signed").write_bytes(data)
        _gpgv(place, keys, what, "--output", str(place / "text"), str(place / "signed"))
        if not (place / "text").is_file():
            raise IntegrityError(f"{what} is not a signed text", hint="nothing of it is used")
        return (place / "text").read_bytes()


def _gpgv(place: Path, keys: Keys, what: str, *words: str) -> None:
    if shutil.which("gpgv") is None:
        raise PipelineError("gpgv is not installed", hint="install gpgv; ./doit.sh does")
    (place / "keyring.gpg").write_bytes(keys.material)
    command = ["gpgv", "--homedir", str(place), "--status-fd", "1", "--keyring", str(place / "keyring.gpg"), *words]
    done = subprocess.run(command, env={**os.environ, "LC_ALL": "C"}, capture_output=True, check=False)
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    said = {line.split(" ")[1] for line in lines if line.startswith("[GNUPG:] ")}
    signatures = _signatures(lines)
    signers = {signer for _, who in signatures for signer in who}
    good = {signer for verdict, who in signatures for signer in who if verdict == "GOODSIG"}
    trusted = not keys.fingerprints or bool(signers & keys.fingerprints)
    if done.returncode == 0 and "BADSIG" not in said and (good & keys.fingerprints if keys.fingerprints else good):
        return
    why = "no key of ours signed it" if "NO_PUBKEY" in said else "it carries no signature that gpgv can read"
    if not trusted and signers:
        why = f"it is signed by {min(signers)}, which versions.toml does not name"
    elif "BADSIG" in said:
        why = "its signature is wrong"
    elif expired := {"EXPKEYSIG", "EXPSIG", "REVKEYSIG"} & said:
        why = f"no key that still holds signed it ({', '.join(sorted(expired))})"
    raise IntegrityError(f"{what}: {why} ({keys.name})", hint="nothing of it is used")


def _signatures(lines: list[str]) -> list[tuple[str, set[str]]]:
    """Of each signature that gpgv could check: its verdict, and the fingerprints of the key and of its primary key.

    VALIDSIG, which has these, says nothing of the key: it follows EXPKEYSIG and REVKEYSIG as it does GOODSIG.
    """
    found: list[tuple[str, set[str]]] = []
    verdict = ""
    for line in lines:
        words = line.split()
        if words[:1] != ["[GNUPG:]"]:
            continue
        if words[1] == "VALIDSIG":
            found.append((verdict, {words[2], words[-1]}))
        elif words[1].endswith("SIG"):
            verdict = words[1]
    return found
