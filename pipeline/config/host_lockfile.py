"""``versions.host.lock``: the kernel of one machine, on top of ``versions.lock``. Written by ``doit update --host`` alone.

Of the same form as ``versions.lock``, and as strict, but it holds kernels of ``host`` and what compiles them only: drivers and
base are those of ``versions.lock``. It is nobody else's affair, so git ignores it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from ..core.errors import BadFileError
from . import lockfile
from .records import Lock

HOST_LOCK_FILE: Final = Path("versions.host.lock")
HINT: Final = "'doit update --host' writes this file anew; without the file no machine is pinned"


def read(path: Path) -> Lock | None:
    """The lock in ``path``; None where there is none.

    Raises BadFileError where it cannot be read.
    """
    try:
        held = msgspec.json.decode(path.read_bytes(), type=Lock)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}", hint=HINT) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadFileError(f"{path}: {error}", hint=HINT) from error
    if held.bases or held.drivers or held.pending or held.pending_drivers:
        raise BadFileError(f"{path}: it holds more than kernels and toolchains", hint=HINT)
    if others := [kernel for kernel in held.kernels if kernel.os != "host"]:
        raise BadFileError(f"{path}: {others[0].key} is no machine's own kernel - at `$.kernels`", hint=HINT)
    return held


def merged(main: Lock, host: Lock, path: Path = HOST_LOCK_FILE) -> Lock:
    """``main`` with what ``host`` adds. Raises BadFileError where the two do not go together."""
    pinned = {(kernel.arch, kernel.kernel) for kernel in main.kernels}
    if both := [kernel for kernel in host.kernels if (kernel.arch, kernel.kernel) in pinned]:
        raise BadFileError(f"{path}: versions.lock pins {both[0].kernel} itself by now", hint="remove the file")
    drivers = {(driver.version, driver.arch) for driver in main.drivers}
    for kernel in host.kernels:
        if gone := [version for version in kernel.drivers if (version, kernel.arch) not in drivers]:
            raise BadFileError(f"{path}: versions.lock does not pin driver {gone[0]} any more", hint=HINT)
    have = {(toolchain.name, toolchain.arch) for toolchain in main.toolchains}
    both_ = msgspec.structs.replace(
        main,
        kernels=(*main.kernels, *host.kernels),
        toolchains=(*main.toolchains, *(t for t in host.toolchains if (t.name, t.arch) not in have)),
    )
    try:
        lockfile.check(both_, str(path), local=True)
    except BadFileError as error:
        raise BadFileError(error.message, hint=HINT) from error
    return both_


def load(root: Path) -> Lock:
    """The lock of the checkout ``root``, with the machine's own kernel where one is pinned.

    Raises BadFileError.
    """
    main = lockfile.load(root / lockfile.LOCK_FILE)
    host = read(root / HOST_LOCK_FILE)
    return main if host is None else merged(main, host, HOST_LOCK_FILE)
