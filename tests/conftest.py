"""What every test may use."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

pytest_plugins = ["tests.support.areas", "tests.support.pairs"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell: what tests start would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Recorded documents of upstreams, which are not ours to publish: a folder beside the checkout."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the recorded upstream documents are not on this machine")
    return folder
