"""Dates of the lock as text and as seconds since 1970. A lock holds few distinct ones, thousands of times."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache
def epoch_of(date: str) -> int:
    """Seconds since 1970 of a lock date such as ``2026-11-24T12:00:00Z``."""
    return int(datetime.strptime(date, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())


@lru_cache
def date_of(epoch: int) -> str:
    """The RFC 3339 text of ``epoch``."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
