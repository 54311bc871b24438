"""``doit update``: upstreams in, versions.lock out."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, Final

import msgspec

from ...config import lockfile
from ...core import scratch_dirs
from ...core.errors import PipelineError, UsageError
from ...fetch.vendor_files import Artefacts
from ...update import run
from ...update.container_images import Images
from ...update.report import summary
from ..workspace import Workspace
from .base import JSON, Plain, clear_away_on_sigterm
from .update_host import pin_host

_OF_HOST: Final = tuple(
    {"name": name, "short": "", "long": name, "type": str, "default": "", "help": f"with --host: {text}"}
    for name, text in (
        ("kernel-release", "what 'uname -r' prints there; default: this machine's"),
        ("config", "its configuration; default: /proc/config.gz, /boot/config-*"),
        ("kernel-image", "its kernel image, to boot for the proof; default: /boot/vmlinuz-*"),
        ("os-release", "its os-release, for a tag; default: this machine's"),
        ("driver", "the driver to build; default: the newest pinned one that no rule leaves out"),
    )
)


class Update(Plain):
    """``doit update``: read the upstreams, write versions.lock."""

    name = "update"
    doc_purpose = "refresh versions.lock from the upstreams"
    doc_usage = ""
    doc_description = (
        "Reads versions.toml and the upstreams, and writes versions.lock whole. Nothing else reads upstreams. With --host: "
        "pins the kernel of this machine, or of one whose files are named, into versions.host.lock; doit 'image:host*' builds it."
    )
    cmd_options = (
        {
            "name": "dry_run",
            "short": "",
            "long": "dry-run",
            "type": bool,
            "default": False,
            "help": "show what would change and write nothing",
        },
        {
            "name": "accept_fewer",
            "short": "",
            "long": "accept-fewer",
            "type": bool,
            "default": False,
            "help": "take a source at its word that lists far less than before",
        },
        {
            "name": "host",
            "short": "",
            "long": "host",
            "type": bool,
            "default": False,
            "help": "pin the kernel of this machine into versions.host.lock, and nothing else",
        },
        *_OF_HOST,
        {**JSON, "help": "print the changes as JSON"},
    )

    def work(self, space: Workspace, params: Any, args: list[str]) -> int:
        """Update; status 2 where an upstream could not be read (what it gave before is kept)."""
        if args:
            raise UsageError(f"update takes no '{args[0]}'", hint="see 'doit help update'")
        clear_away_on_sigterm()
        if params["host"]:
            if params["accept_fewer"]:
                raise UsageError("--accept-fewer does not go with --host", hint="see 'doit help update'")
            return pin_host(space, params)
        if told := [option["name"] for option in _OF_HOST if params[option["name"]]]:
            raise UsageError(f"--{told[0]} goes with --host", hint="see 'doit help update'")
        path = space.root / lockfile.LOCK_FILE
        broken = ""
        try:
            old = lockfile.load(path)
        except PipelineError as error:
            broken = str(error) if path.exists() else ""
            old = lockfile.empty()
        fewer = params["accept_fewer"]
        with (
            contextlib.closing(Images(space.engine, space.mirrors)) as images,
            scratch_dirs.folder(space.scratch, scratch_dirs.UPDATE) as scratch,
        ):
            artefacts = Artefacts(space.fetcher, space.store, scratch)
            result = run.update(
                space.wanted, old, space.fetcher, space.archives, accept_fewer=fewer, images=images, take=artefacts.take
            )
            artefacts.drop_unpinned(result.lock.files())
        data = lockfile.dump(result.lock)
        lockfile.parse(data)  # what we write we can read
        if broken and result.problems:
            result.problems.append(f"{broken}; it is left as it is, since not every source could be read")
        elif broken:
            print(f"doit: {broken}; it is written anew from the upstreams", file=sys.stderr)
        for problem in result.problems:
            print(f"doit: {problem}", file=sys.stderr)
        written = not params["dry_run"] and not (broken and result.problems) and lockfile.write(path, data)
        if params["json"]:
            print(msgspec.json.encode({**result.json, "requests": space.fetcher.requests, "written": written}).decode())
        else:
            sys.stdout.write(summary(result.lock, result.changes, result.reports, result.problems))
        return 2 if result.problems else 0
