"""The benchmarks run, at a size that takes a second: what they print is read by people, that they work is held here."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import noop
from tests.registry_process import MISSING, installed


@pytest.mark.skipif(not installed(), reason=MISSING)
def test_noop_finds_everything_done_and_counts_its_requests(tmp_path: Path) -> None:
    figures = noop.measure(8, 1, tmp_path)
    assert figures.pairs == 8
    assert figures.requests == 3, "the list of tags, the index's manifest and its configuration"
    assert 0 < figures.best <= figures.seconds
    assert f"| 8 | {figures.seconds:.2f} |" in noop.report([figures])
