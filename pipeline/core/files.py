"""Where this program's own files lie, and how large files may become."""

from __future__ import annotations

from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
"""The folder that holds ``pipeline/``, ``dockerfiles/`` and ``web/``."""
MAX_UNPACKED: Final = 12 << 30
"""Bytes one archive may unpack to, by default. A Flatcar developer container has 6 GiB, a driver's run file 1 GiB."""
MAX_NAME: Final = 4096
"""Characters of a name in an archive, or of a link: Linux knows no longer path."""
MAX_NAMES: Final = 128 << 20
"""Characters of all names in an archive and 64 for each, since its readers keep them: about 2 million. Linux has 100 thousand."""
