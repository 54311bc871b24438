"""A project whose pairs take a second each, for tests of what happens around a build: faults, kills, many runners.

Its packages are made here and served on loopback; what stands in for the compiler is in tests/tiny and tests/tiny_main.py.
"""

from __future__ import annotations

import gc
import hashlib
import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.config.records import File, Lock
from pipeline.core.errors import PipelineError
from pipeline.engine.client import ENGINE_FILE, Engine, address
from pipeline.registry.client import Registry
from tests import samples
from tests.signed_archive import Served
from tests.small_project import ROOT, SmallProject

MAIN = ROOT / "tests" / "tiny_main.py"
FAILS = "6.1.13"
"""A kernel of this version is one that the driver does not compile on."""


def engine_host() -> str:
    """The engine that tests may use: the one that doit would."""
    return address(os.environ, "", ROOT / ENGINE_FILE)


def missing() -> str:
    """Why no tiny project can be built here; nothing where it can."""
    if shutil.which("busybox") is None:
        return "busybox-static is not installed (./doit.sh test installs it)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # docker's client leaves a socket open where nobody answers
        try:
            Engine(engine_host()).close()
        except PipelineError as error:
            return f"no container engine: {error.message}"
        finally:
            gc.collect()
    return ""


class TinyProject(SmallProject):
    """``kernels``: kernel.org versions, each one kernel. ``salt`` makes recipes that no other test has."""

    def __init__(
        self, root: Path, archive: Served, packages: Path, *, registry: str, salt: str, kernels: Sequence[str], **environ: str
    ) -> None:
        the_lock = _lock(packages, salt, kernels)
        environ = {"DRIVER_ARCHIVES": f"debian={archive.url}/debian", "DOCKER_HOST": engine_host(), **environ}
        super().__init__(root, the_lock, registry=registry, **environ)

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """``doit WORDS``, in a session of its own, which one signal ends."""
        return subprocess.Popen(
            [sys.executable, str(MAIN), *words],
            cwd=self.root,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def doit(self, *words: str, seconds: float = 300, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run ``doit WORDS`` to its end."""
        with self.start(*words, **environ) as process:
            try:
                out, err = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def forget(self) -> None:
        """Remove what the engine keeps of this project, so that the next build is one."""
        engine = Engine(self.environ["DOCKER_HOST"])
        for pair in self.plan_recipes():
            for stage in ("probes", "open", "proprietary"):
                engine.remove(f"driver-modules:{pair}-{stage}")
        for dockerfile in sorted((self.root / "build" / "docker").glob("*/**/.rendered")):
            what, recipe = dockerfile.relative_to(self.root / "build" / "docker").parts[0], dockerfile.read_text().strip()
            for suffix in ("", "-unpack"):
                engine.remove(f"driver-{what}:{recipe[:16]}{suffix}")
        engine.close()

    def plan_recipes(self) -> list[str]:
        """The first 16 digits of each pair's recipe, as the rendered Dockerfiles have it."""
        seals = (self.root / "build" / "docker" / "image").glob("**/.rendered")
        return [seal.read_text().strip()[:16] for seal in seals]


@contextmanager
def served_packages(root: Path) -> Iterator[tuple[Served, Path]]:
    """An archive on loopback and the folder that it serves as ``debian``."""
    packages = root / "debian"
    packages.mkdir(parents=True)
    with Served(root) as server:
        yield server, packages


def digests(registry: Registry) -> dict[str, str]:
    """Every tag but the index, with its digest."""
    return {tag: digest for tag in sorted(registry.tags()) if tag != "index" and (digest := registry.digest(tag))}


def walk(registry: Registry) -> int:
    """Look at everything that every tag points to; how many blobs there were. AssertionError names what is not there."""
    seen: dict[str, int] = {}
    left = registry.tags()
    for ref in left:
        manifest = registry.manifest(ref)
        assert manifest is not None, f"{ref} is listed and has no manifest"
        document = json.loads(manifest.data)
        left += [part["digest"] for part in document.get("manifests", ())]
        for part in (document["config"], *document["layers"]) if "config" in document else ():
            seen[part["digest"]] = part["size"]
            assert registry.has_blob(part["digest"]), f"{ref} points to {part['digest']}, which is not there"
    for digest, size in seen.items():
        assert len(registry.blob(digest, max_bytes=size)) == size  # and blob() compares the hash
    return len(seen)


def _lock(packages: Path, salt: str, kernels: Sequence[str]) -> Lock:
    busybox = Path(shutil.which("busybox") or "busybox").read_bytes()
    tools: dict[str, bytes | str] = {"usr/bin/busybox": busybox, "usr/bin/sh": "busybox"}

    def package(name: str, version: str = "1.0-1", files: dict[str, bytes | str] | None = None) -> File:
        path = f"pool/main/{name[0]}/{name}/{name}_{version}_amd64.deb"
        data = _deb(files or {f"usr/share/{name}": f"{name} {version} {salt}".encode()})
        (packages / path).parent.mkdir(parents=True, exist_ok=True)
        (packages / path).write_bytes(data)
        return samples.package(name, version, sha256=hashlib.sha256(data).hexdigest(), size=len(data), path=path)

    the_lock = samples.a_lock()
    driver = samples.driver(
        open=(package("nvidia-open-kernel-source"),),
        proprietary=(package("nvidia-kernel-source"),),
        userspace=(package("libcuda1"),),
        required=("open", "proprietary"),
    )
    made = []
    for version in kernels:
        name = f"6.1.0-{version.rpartition('.')[2]}-cloud-amd64"
        headers, image = package(f"linux-headers-{name}", f"{version}-1"), package(f"linux-image-{name}", f"{version}-1")
        made.append(samples.kernel(name, version, headers=(headers,), image=(image,)))
    changed: Lock = samples.changed(
        the_lock,
        bases=(samples.changed(the_lock.bases[0], packages=(package("base"),)),),
        toolchains=(samples.changed(the_lock.toolchains[0], packages=(package("gcc-12", files=tools), package("salt"))),),
        drivers=(driver,),
        kernels=tuple(made),
    )
    return changed


def _deb(files: dict[str, bytes | str]) -> bytes:
    """A Debian package of these files; a string is a symbolic link."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.mode = 0o755
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": lzma.compress(b""),
        "data.tar.xz": lzma.compress(data.getvalue(), preset=0),
    }
    out = b"!<arch>\n"
    for name, part in parts.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode() + part + b"\n" * (len(part) % 2)
    return out
