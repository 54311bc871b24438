"""``doit update --host``: this machine's kernel into versions.host.lock."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from ...config import compat, host_lockfile, lockfile
from ...config.host_lockfile import HOST_LOCK_FILE
from ...config.policies import policies
from ...config.records import Kernel, Lock
from ...core import scratch_dirs
from ...core.errors import BadFileError
from ...fetch.vendor_files import Artefacts
from ...update.families import policy_of
from ...update.host import Sources, update_host
from ...update.pinning.context import Means
from ...update.run import MAX_FEED_BYTES
from ...update.this_machine import Machine, this_machine
from ..workspace import Workspace

NEXT = "doit 'image:host*'"


def pin_host(space: Workspace, params: Any) -> int:
    """Pin and tell; 0."""
    path = space.root / HOST_LOCK_FILE
    main = lockfile.load(space.root / lockfile.LOCK_FILE)
    machine = this_machine(
        release=params["kernel-release"],
        config=params["config"],
        image=params["kernel-image"],
        os_release=params["os-release"],
    )
    fetcher = space.fetcher

    def get(url: str, immutable: bool) -> bytes:
        return fetcher.get(url, max_bytes=MAX_FEED_BYTES, immutable=immutable)

    kernel_org = policies(space.wanted, kind_of=policy_of).kernel_org
    with scratch_dirs.folder(space.scratch, scratch_dirs.UPDATE) as scratch:
        take = Artefacts(fetcher, space.store, scratch).take
        means = Means(get=get, source_keys=kernel_org.keys if kernel_org else (), lock=main, take=take)
        sources = Sources(fetcher, space.archives, means, space.store)
        rules = compat.load(space.root / compat.COMPAT_FILE)
        made = update_host(space.wanted, main, _held(path), machine, sources, rules, params["driver"])
    data = lockfile.dump(made.lock)
    written = not params["dry_run"]
    changed = lockfile.write(path, data) if written else not path.exists() or path.read_bytes() != data
    for report in made.reports:
        print(f"doit: {report}", file=sys.stderr)
    if params["json"]:
        facts = {"kernel": made.kernel.key, "drivers": made.kernel.drivers, "form": made.kernel.form, "changed": changed}
        print(msgspec.json.encode({**facts, "reports": made.reports, "requests": fetcher.requests, "written": written}).decode())
    else:
        print(f"{HOST_LOCK_FILE}: {_told(made.kernel, machine)}{'' if changed else ' (as it was)'}")
        print(f"to build it: {NEXT}")
    return 0


def _held(path: Path) -> Lock | None:
    """What is pinned so far; a file that cannot be read is written anew."""
    try:
        return host_lockfile.read(path)
    except BadFileError as error:
        print(f"doit: {error.message}; it is written anew", file=sys.stderr)
        return None


def _told(kernel: Kernel, machine: Machine) -> str:
    drivers = ", ".join(kernel.drivers)
    if kernel.form == "debs":
        return f"{kernel.kernel} with {drivers}, by Debian's packages {kernel.headers[0].version}"
    boot = f"proved on {machine.image}" if machine.image else "no image to boot"
    return f"{kernel.kernel} with {drivers}, by {kernel.headers[0].file_name} and {machine.config}; {boot}"
