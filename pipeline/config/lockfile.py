"""``versions.lock``: everything that may be built, pinned by sha256 and size. Written by ``doit update`` alone.

The file is JSON, one pinned file a line, sorted, so that a change reads well in a pull request and 10 000 kernels parse
in a fraction of a second. Reading is strict: an unknown key, a missing hash, a wrong type, two entries for one thing or
two kernels that would share a tag are errors of one line with the file and the path in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec

from ..core.errors import ROOM_HINT, BadFileError, DiskError
from ..core.strict_json import refuse_duplicate_keys
from ..core.versions import DriverVersion, KernelRelease
from .lock_rules import HINT, RULES, Refuse
from .records import File, Lock

LOCK_FILE: Final = Path("versions.lock")


def empty() -> Lock:
    """A lock that pins nothing."""
    return Lock(schema=1)


_decoder: Final = msgspec.json.Decoder(Lock)


def parse(data: bytes, name: str = str(LOCK_FILE)) -> Lock:
    """The lock that ``data`` holds.

    Raises BadFileError with ``name`` and the path of the first thing that is wrong.
    """
    try:
        lock = _decoder.decode(data)
        if msgspec.json.format(data, indent=-1) != msgspec.json.encode(lock):  # not as we write it: edited, or a key is lost
            refuse_duplicate_keys(data.decode())
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadFileError(f"{name}: {error}", hint=HINT) from error
    check(lock, name)
    return lock


def load(path: Path = LOCK_FILE) -> Lock:
    """The lock in ``path``.

    Raises BadFileError where it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}", hint="'doit update' writes it") from error
    return parse(data, str(path))


def check(lock: Lock, name: str, *, local: bool = False) -> None:
    """Raise BadFileError for the first thing in ``lock`` that does not go with the rest; ``local``: files of this machine may."""
    refuse = Refuse(name, local)
    for rule in RULES:
        rule(lock, refuse)


def dump(lock: Lock) -> bytes:
    """The file's bytes: sorted, one pinned file a line, ending with a newline; equal locks give equal bytes."""
    tidy = msgspec.structs.replace(
        lock,
        bases=tuple(_packages(b) for b in sorted(lock.bases, key=lambda b: b.arch)),
        toolchains=tuple(_packages(t) for t in sorted(lock.toolchains, key=lambda t: (t.name, t.arch))),
        drivers=tuple(
            msgspec.structs.replace(d, userspace=_sorted(d.userspace))
            for d in sorted(lock.drivers, key=lambda d: (DriverVersion(d.version), d.arch))
        ),
        kernels=tuple(
            msgspec.structs.replace(
                k,
                headers=_sorted(k.headers),
                image=_sorted(k.image),
                drivers=tuple(sorted(k.drivers, key=DriverVersion)),
                releases=tuple(sorted(k.releases, key=lambda r: (r.channel, r.version))),
            )
            for k in sorted(lock.kernels, key=lambda k: (k.os, KernelRelease(k.kernel), k.arch, k.headers_digest))
        ),
        pending=tuple(
            msgspec.structs.replace(
                p,
                drivers=tuple(sorted(p.drivers, key=DriverVersion)),
                releases=tuple(sorted(p.releases, key=lambda r: (r.channel, r.version))),
            )
            for p in sorted(lock.pending, key=lambda p: (p.os, _order(p.kernel), p.arch, p.reason))
        ),
        pending_drivers=tuple(sorted(lock.pending_drivers, key=lambda d: (DriverVersion(d.version), d.arch))),
    )
    return (_layout(msgspec.to_builtins(tidy), 0) + "\n").encode()


def _order(kernel: str) -> tuple[bool, KernelRelease | str]:
    return bool(kernel), KernelRelease(kernel) if kernel else ""


def _packages(entry: Any) -> Any:
    return msgspec.structs.replace(entry, packages=_sorted(entry.packages))


def _sorted(files: tuple[File, ...]) -> tuple[File, ...]:
    return tuple(sorted(files, key=lambda f: (f.name, f.version, f.sha256)))


def _layout(value: Any, depth: int) -> str:
    """JSON in which a table or list without inner tables stands on one line."""
    if not isinstance(value, dict | list | tuple) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict) and not any(isinstance(v, dict) or _holds_tables(v) for v in inner):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict) and not _holds_tables(value):
        return json.dumps(value, ensure_ascii=False)
    pad, end = " " * (depth + 1), " " * depth
    if isinstance(value, dict):
        rows = [f"{pad}{json.dumps(k)}: {_layout(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{end}}}"
    return "[\n" + ",\n".join(pad + _layout(v, depth + 1) for v in value) + f"\n{end}]"


def _holds_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(v, dict) for v in value)


def write(path: Path, data: bytes) -> bool:
    """Put ``data`` in ``path`` whole or not at all; False when it was there already.

    Raises DiskError where the disk refuses.
    """
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            return False
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}", hint=ROOM_HINT) from error
    return True
