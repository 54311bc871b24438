"""A second checkout of this project for tests: its own copy of every file, its own ``build/``, its own registry.

Its ``doit`` runs the copy's code with this checkout's Python environment. Edit its files as a user would; nothing done
there reaches this checkout but what its download cache learns.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.build.assemble import Layer
from pipeline.build.pair import unpack_layer
from pipeline.cli.workspace import Workspace
from pipeline.config import lockfile
from pipeline.config.records import Lock
from pipeline.plan.pairs import Pair

ROOT = Path(__file__).parents[1]
FILES = ("dodo.py", "pyproject.toml", "compat.toml")
FOLDERS = ("pipeline", "dockerfiles", "host", "image", "web")
PINS = ROOT / "tests/debian"
"""versions.toml and versions.lock of the tests: what they build stays the same when the project's own lock changes."""
KERNEL, OTHER, NEWEST = "6.1.0-47-cloud-amd64", "6.1.0-50-cloud-amd64", "6.1.0-56-cloud-amd64"
DRIVER, LATER = "535.261.03", "535.309.01"
MODULES = ("nvidia",)
"""Kernel modules of the pairs that are not built in full."""
KINDS = ("open",)
"""Their kinds: what hosts, runs and registries do with a pair does not depend on how many its image has."""
KEPT = ("DRIVER_ARCHIVES", "DRIVER_CACHE")
"""Of a person's own settings those that say where packages come from and are kept."""
OURS = ("DOCKER_HOST", "SOURCE_DATE_EPOCH", "PYTHONPATH")
DOIT = Path(sys.executable).with_name("doit")
LONGEST = 3000
"""Seconds after which a run is taken for stuck: many times what the longest needs."""


@dataclass(frozen=True)
class Ran:
    """A finished ``doit``."""

    status: int
    out: str
    err: str
    seconds: float

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """What ``--json`` printed."""
        return [json.loads(line) for line in self.out.splitlines()]

    def steps(self, step: str) -> list[str]:
        """The things that a step of this name was done for, in order; ``build`` is the compiler's."""
        return [event.get("pair", "") for event in self.events if event.get("step") == step]

    @property
    def work(self) -> list[dict[str, Any]]:
        """Steps, outcomes and problems: empty where there was nothing to do."""
        return [event for event in self.events if event["event"] not in ("note", "end")]

    @property
    def outcomes(self) -> dict[str, str]:
        """Pairs that came to an outcome in this run."""
        return {event["pair"]: event["outcome"] for event in self.events if event["event"] == "outcome"}

    @property
    def complaint(self) -> str:
        """The one line on stderr; fails where it is not exactly one."""
        lines = self.err.splitlines()
        assert len(lines) == 1, f"not one line on stderr but {len(lines)}:\n{self.err}"
        return lines[0]

    def ended(self, status: int) -> Ran:
        """This run; fails where it ended otherwise."""
        assert self.status == status, f"exit status {self.status}, not {status}\n{self.err[-3000:]}\n{self.out[-3000:]}"
        return self


class Checkout:
    """A copy of this checkout below ``root``, which is made where there is none."""

    def __init__(self, root: Path, **environ: str) -> None:
        self.root = root
        if not root.exists():
            root.mkdir(parents=True)
            for name in FILES:
                shutil.copy2(ROOT / name, root / name)
            for name in ("versions.toml", "versions.lock"):
                shutil.copy2(PINS / name, root / name)
            for name in FOLDERS:
                shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        ours = {name for name in os.environ if name.startswith("DRIVER_")} - set(KEPT) | set(OURS)
        held = {name: value for name, value in os.environ.items() if name not in ours}
        self.environ = {**held, "PYTHONPATH": str(root), **environ}

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """Start ``doit`` there."""
        return subprocess.Popen(
            [str(DOIT), *words],
            cwd=self.root,
            env=self.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def doit(self, *words: str, **environ: str) -> Ran:
        """Run ``doit`` there to its end."""
        begun = time.monotonic()
        with self.start(*words, **environ) as process:
            try:
                out, err = process.communicate(timeout=LONGEST)
            finally:
                process.kill()
        return Ran(process.returncode, out, err, time.monotonic() - begun)

    def space(self) -> Workspace:
        """The checkout as the pipeline sees it, read anew."""
        return Workspace(self.root, self.environ)

    def index(self) -> dict[str, Any]:
        """``build/index.json``."""
        document: dict[str, Any] = json.loads((self.root / "build/index.json").read_text())
        return document

    def outcomes(self) -> dict[str, str]:
        """Outcome of every pair of ``build/index.json`` by its id."""
        return {f"{e['os']}/{e['arch']}:{e['kernel']}-{e['driver']}": e["outcome"] for e in self.index()["pairs"]}

    def pair(self, kernel: str, driver: str) -> Pair:
        """The pair of the lock whose kernel and driver are these."""
        pairs = {(p.kernel.kernel, p.driver.version): p for p in self.space().plan.pairs}
        return pairs[kernel, driver]

    def edit(self, name: str, change: Callable[[str], str]) -> None:
        """Change one file; fails where that changes nothing."""
        path = self.root / name
        before = path.read_text()
        after = change(before)
        assert after != before, f"{name} stayed as it was"
        path.write_text(after)

    def only(self, *, modules: Iterable[str] = (), kinds: Iterable[str] = ("open", "proprietary")) -> None:
        """Set ``modules`` and ``kinds`` of ``[build]`` in versions.toml; no driver requires another kind then."""
        kinds = tuple(kinds)
        self.edit_any("versions.toml", r"(?m)^required = \[.*\]$", f"required = {json.dumps(kinds)}")
        self.edit_any("versions.lock", r'"required": \[.*\]', f'"required": {json.dumps(kinds)}')
        for key, values in (("modules", modules), ("kinds", kinds)):
            line = f"{key} = {json.dumps(list(values))}"
            assert self.edit_any("versions.toml", rf"(?m)^{key} = \[.*\]$", line) == 1

    def edit_any(self, name: str, pattern: str, text: str) -> int:
        """Put ``text`` in place of all that ``pattern`` finds in one file; how many those are."""
        path = self.root / name
        made, found = re.subn(pattern, text, path.read_text())
        path.write_text(made)
        return found

    def relock(self, change: Callable[[Lock], Lock]) -> None:
        """Rewrite versions.lock with what ``change`` makes of it."""
        path = self.root / "versions.lock"
        data = lockfile.dump(change(lockfile.load(path)))
        lockfile.parse(data)
        path.write_bytes(data)


def unpacked(space: Workspace, layer: Layer, place: Path) -> Path:
    """``place`` with the files of ``layer`` in it."""
    unpack_layer(space.shop, layer, place)
    return place


def layers(manifest: Mapping[str, Any], config: Mapping[str, Any]) -> list[Layer]:
    """The layers of an image as the pipeline's records."""
    return [
        Layer(descriptor["digest"], descriptor["size"], diff_id, 0)
        for descriptor, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True)
    ]


@dataclass
class Place:
    """A registry of the tests' own and where it writes its log."""

    address: str
    log: Path

    def requests(self) -> int:
        """Requests answered so far."""
        return self.log.read_text(errors="replace").count('HTTP/1.1" ')


def adopt_layers(source: Checkout, target: Checkout) -> None:
    """Give ``target`` the layers that ``source`` has made, as links: what is the same is not made twice."""
    shutil.copytree(source.root / "build/layers", target.root / "build/layers", copy_function=os.link)
