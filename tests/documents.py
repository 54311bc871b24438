"""What the documents say, as tests read it: fenced blocks, their commands, code spans, links."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    """Every document for people."""
    return [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    """Fenced blocks in a language, in order."""
    return [text for name, text in _FENCE.findall(path.read_text()) if name == language]


def commands(path: Path) -> list[str]:
    """Every line of the ``sh`` blocks: one command each."""
    return [line for block in blocks(path, "sh") for line in block.splitlines() if line.strip()]


def spans(path: Path) -> list[str]:
    """What stands between backticks in running text."""
    return re.findall(r"`([^`\n]+)`", _FENCE.sub("", path.read_text()))


def headings(path: Path) -> list[str]:
    """Titles of the sections."""
    return re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text()), re.MULTILINE)


def links(path: Path) -> list[str]:
    """Targets of links."""
    return re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", path.read_text()))
