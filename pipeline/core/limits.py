"""Limits that settings have as their defaults."""

from __future__ import annotations

from typing import Final

MAX_UNPACKED: Final = 12 << 30
"""Bytes one archive may unpack to. A Flatcar developer container has 6 GiB, a driver's run file 1 GiB."""
