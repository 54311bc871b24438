"""Where this program lies: templates, patches and web files are found from here, whatever the current folder is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
"""The folder that holds ``pipeline/``, ``dockerfiles/`` and ``web/``."""
