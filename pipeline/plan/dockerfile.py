"""What a template became: the text, and what has to lie beside it before an engine can build it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..config.records import File
from ..core.lazy import lazy
from ..trees.spec import Tree


@dataclass(frozen=True)
class Rendered:
    """One Dockerfile: its text, the recipe that the text is, and the pinned files its context needs."""

    name: str
    """Directory below ``build/docker``."""
    tag: str
    """The name the engine knows the result by."""
    text: str
    files: tuple[tuple[str, File], ...]
    """(directory in the context, file)."""
    local: tuple[tuple[str, LocalFile], ...] = ()
    """(directory in the context, file of this checkout)."""
    trees: tuple[Tree, ...] = ()
    """Tars that are made of pinned archives and lie at the context's top."""

    @lazy
    def recipe(self) -> str:
        """Sha256 of the text, 64 hex digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class LocalFile:
    """One file of this checkout that enters an image: where it goes, what it holds."""

    path: str
    source: Path
    sha256: str
    mode: int
