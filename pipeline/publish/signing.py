"""The signature of the index: ECDSA P-256 over the bytes of ``/index.json``, DER, as ``/index.json.sig`` beside it.

Hosts check it with openssl alone, so openssl makes it. The key comes from a file or from the environment; it reaches openssl
through a pipe, so that it stands in no argument, no log, no child's environment and no file of ours.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ..core.errors import BadFileError, PipelineError, UsageError

KEY: Final = "DRIVER_SIGNING_KEY"
KEY_FILE: Final = "DRIVER_SIGNING_KEY_FILE"
SIGNATURE_FILE: Final = "index.json.sig"
_P256: Final = bytes.fromhex("06082a8648ce3d030107")
"""The curve's object identifier as it stands in a public key (RFC 5480, 2.1.1.1)."""


class Signer:
    """Signs with one private key. ``source`` says where the key came from, for messages; the key itself is never shown."""

    def __init__(self, key: bytes, source: str) -> None:
        self._key, self._source = key, source
        if b"ENCRYPTED" in key:
            raise BadFileError(f"{source} is an encrypted key", hint="nobody is there to type its password: decrypt it first")
        self.public = self._openssl("pkey", "-pubout", "-outform", "DER", "-in", "{key}")
        """The public key, DER (SubjectPublicKeyInfo)."""
        if _P256 not in self.public:
            hint = "make one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out FILE"
            raise BadFileError(f"{source} is no ECDSA P-256 key", hint=hint)

    @property
    def key_id(self) -> str:
        """``sha256:<hex64>`` of the public key, by which two signers are told apart."""
        return f"sha256:{hashlib.sha256(self.public).hexdigest()}"

    def sign(self, data: bytes) -> bytes:
        """The signature of ``data``, DER ``(r, s)``; another one each time."""
        return self._openssl("dgst", "-sha256", "-sign", "{key}", given=data)

    def _openssl(self, *words: str, given: bytes = b"") -> bytes:
        read, write = os.pipe()
        try:
            os.write(write, self._key)  # far below a pipe's capacity of 64 KiB
            os.close(write)
            command = ["openssl", *(word.format(key=f"/dev/fd/{read}") for word in words)]
            env = {name: value for name, value in os.environ.items() if name not in {KEY, KEY_FILE}}
            done = subprocess.run(command, input=given, capture_output=True, check=False, pass_fds=(read,), env=env, timeout=60)
        except FileNotFoundError as error:
            raise PipelineError("openssl is not installed, and the index is to be signed", hint="install it") from error
        finally:
            os.close(read)
        if done.returncode:
            raise BadFileError(f"{self._source} is no private key that openssl reads", hint="PEM, not encrypted, ECDSA P-256")
        return done.stdout


def signer(environment: Mapping[str, str] | None = None) -> Signer | None:
    """The signer that the environment asks for; None where it asks for none.

    Raises UsageError, BadFileError.
    """
    env = os.environ if environment is None else environment
    text, file = env.get(KEY, ""), env.get(KEY_FILE, "")
    if text and file:
        raise UsageError(f"{KEY} and {KEY_FILE} are both set", hint="unset one")
    if text:
        key, source = text.encode(), KEY
    elif file:
        source = f"{KEY_FILE}={file}"
        try:
            key = Path(file).read_bytes()
        except OSError as error:
            raise BadFileError(f"{source}: {error.strerror}", hint="name a readable PEM file") from error
    else:
        return None
    if len(key) > 16384:
        raise BadFileError(f"{source} is larger than any private key", hint="name a PEM file with one key")
    return Signer(key, source)
