"""Where this program's own files lie, and how large files may become."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
"""The folder that holds ``pipeline/``, ``dockerfiles/`` and ``web/``."""
MAX_UNPACKED: Final = 12 << 30
"""Bytes one archive may unpack to, by default. A Flatcar developer container has 6 GiB, a driver's run file 1 GiB."""
