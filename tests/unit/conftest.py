"""What the tests of HTTP share: a server that misbehaves, a fetcher that never sleeps, no proxy from outside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.fetch import Fetcher
from tests.misbehaving_server import MisbehavingServer


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is not asked through the machine's proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    """A running server."""
    with MisbehavingServer() as server:
        yield server


class Waits(list[float]):
    """Stands for ``time.sleep``: notes the seconds, spends none."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def waits() -> Waits:
    """The seconds that ``fetcher`` would have waited."""
    return Waits()


@pytest.fixture
def fetcher(tmp_path_factory: pytest.TempPathFactory, waits: Waits) -> Fetcher:
    """A fetcher with an empty cache, which says nothing."""
    return Fetcher(tmp_path_factory.mktemp("http"), sleep=waits, log=lambda line: None)
