"""The benchmark of discovery runs to its end: it ends with an error where a refresh asks more than it should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.area("coreos")]
ROOT = Path(__file__).parents[2]


def test_a_refresh_asks_once_a_feed_and_once_a_new_build(shared: Path) -> None:
    words = [sys.executable, str(ROOT / "bench/update.py"), str(shared / "upstream")]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert "requests a feed 1.00, for each new build 2 / 2\n" in done.stdout
