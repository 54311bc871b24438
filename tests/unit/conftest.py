"""What tests share: a server that misbehaves, a fetcher that never sleeps, no proxy from outside, a signed archive."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.fetch import Fetcher
from tests.misbehaving_server import MisbehavingServer
from tests.signed_archive import Key, Served, SignedArchive, debian_like


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is not asked through the machine's proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests download does not go among the person's downloads, and what they prune is not there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("DRIVER_CACHE", raising=False)


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


@pytest.fixture(scope="session")
def signing_key() -> Iterator[Key]:
    """A key that signs package archives; its public half is ``keyring``."""
    if shutil.which("gpg") is None or shutil.which("gpgv") is None:
        pytest.skip("gpg and gpgv are not installed (./doit.sh test installs them)")
    with Key() as key:
        yield key


@pytest.fixture
def archive(tmp_path: Path, signing_key: Key) -> SignedArchive:
    """A small archive like Debian 12's, signed and published."""
    return debian_like(tmp_path / "archive", signing_key)


@pytest.fixture
def archive_server(archive: SignedArchive) -> Iterator[Served]:
    """``archive`` on loopback."""
    with Served(archive.root) as server:
        yield server
