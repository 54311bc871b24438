"""Digests of what decides an entry of the tests' cache: texts, files, folders, code, versions of packages."""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]

Part = str | bytes | Path


def sha256(data: bytes) -> str:
    """The sha256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(part: Part) -> str:
    """The digest of a text, of bytes, or of the content of a file or folder (names, links and which may be executed too)."""
    if isinstance(part, Path):
        return sha256(json.dumps(_content(part.resolve(strict=True))).encode())
    return sha256(b"text " + part.encode() if isinstance(part, str) else b"bytes " + part)


def _content(path: Path) -> list[Any]:
    if path.is_symlink():
        return ["link", str(path.readlink())]
    if path.is_dir():
        names = sorted(name for name in os.listdir(path) if name != "__pycache__")
        return ["folder", [[name, _content(path / name)] for name in names]]
    return ["file", os.access(path, os.X_OK), file_sha256(path)]


@functools.cache
def product() -> str:
    """The digest of ``pipeline/`` and ``dockerfiles/`` of this checkout."""
    return digest_of(ROOT / "pipeline") + digest_of(ROOT / "dockerfiles")


def code_of(*modules: ModuleType) -> str:
    """Digests of the sources of ``modules``, and of all below ``tests/`` that they import. Not of ``pipeline``: ``product()``."""
    waiting = [Path(inspect.getsourcefile(module) or "").resolve() for module in modules]
    found: dict[Path, str] = {}
    while waiting:
        if (path := waiting.pop()) not in found:
            found[path] = file_sha256(path)
            waiting += _imports(path)
    return "".join(f"{path.name} {digest}\n" for path, digest in sorted(found.items()))


def _imports(path: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = path.parents[node.level - 1].relative_to(ROOT).parts if node.level and path.is_relative_to(ROOT) else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        for name in names:
            words = name.split(".")
            for end in range(1, len(words) + 1) if words[0] == "tests" else ():
                base = ROOT.joinpath(*words[:end])
                yield from (file.resolve() for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file())


def versions_of(*packages: str) -> str:
    """Versions of Debian ``packages`` on this machine, a line each. Raises LookupError for one that is not installed."""
    command = ["dpkg-query", "--show", "--showformat=${Package} ${Version} ${db:Status-Status}\n", *packages]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = {line.split()[0]: line.split()[1] for line in asked.stdout.splitlines() if line.endswith(" installed")}
    if missing := [name for name in packages if name.partition(":")[0] not in found]:
        raise LookupError(f"{', '.join(missing)} is not installed: {asked.stderr.strip() or 'apt-get install it'}")
    return "".join(f"{name} {version}\n" for name, version in sorted(found.items()))
