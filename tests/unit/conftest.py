"""What tests share: nothing of the person's machine, a server that misbehaves, a fetcher that never sleeps, signed archives."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.fetch.fetcher import Fetcher
from tests.misbehaving_server import MisbehavingServer
from tests.signed_archive import Key, Served, SignedArchive, debian_like

LET_THROUGH = ("PATH", "TMPDIR", "UPDATE_GOLDEN")
"""What a test has of the environment that pytest was started in, and pytest's own ``PYTEST_…``."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test of this folder, with all that is set up for it, as on a machine where nobody has set anything.

    What a test sets itself counts; what its programs are handed begins with this. Other folders' tests keep what there is:
    they need to know where the engine is.
    """
    if not item.path.is_relative_to(Path(__file__).parent):  # pytest calls this hook for every test, wherever its conftest lies
        return (yield)
    held = dict(os.environ)
    kept = {name: value for name, value in held.items() if name in LET_THROUGH or name.startswith("PYTEST_")}
    os.environ.clear()
    os.environ.update(kept, HOME=str(_empty_home(item.config)))
    try:
        return (yield)
    finally:
        os.environ.clear()
        os.environ.update(held)


_home = pytest.StashKey[Path]()


def _empty_home(config: pytest.Config) -> Path:
    """A folder without anybody's settings and logins in it, the same for the whole session."""
    if _home not in config.stash:
        factory: pytest.TempPathFactory = config._tmp_path_factory  # type: ignore[attr-defined]
        config.stash[_home] = factory.mktemp("home")
    return config.stash[_home]


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
