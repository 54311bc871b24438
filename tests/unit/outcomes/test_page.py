"""The coverage page as text; how it works in a browser is held in tests/e2e."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from pipeline.core.errors import BadFileError
from pipeline.outcomes.index import Index
from pipeline.outcomes.page import lag, page, words
from tests.indexes import EVIL, many

ENTRIES = many(40).pairs


def test_equal_indexes_give_equal_pages() -> None:
    assert page(many(40)) == page(many(40))


def test_nothing_in_it_points_to_a_network_but_links_that_a_reader_may_follow() -> None:
    html = page(many(40))
    assert (
        re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?\s*(?:https?:)?//""", html.split('<script type="application/json"')[0])
        == []
    )
    assert "default-src 'none'" in html


def test_what_the_index_says_cannot_end_the_script_or_become_markup() -> None:
    pairs = tuple(msgspec.structs.replace(entry, kernel=EVIL, driver=EVIL, reason=EVIL, os=EVIL) for entry in ENTRIES[:3])
    html = page(Index(pairs=pairs, generated=EVIL))

    class Scripts(HTMLParser):
        found = 0

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag != "img"
            self.found += tag == "script"

    parser = Scripts()
    parser.feed(html)
    assert parser.found == 2


def test_lag_is_from_the_source_s_date_to_the_build_and_unknown_where_either_is() -> None:
    built = next(entry for entry in ENTRIES if entry.outcome == "built")
    made = msgspec.structs.replace(built, released="2026-11-20T00:00:00Z", built="2026-11-20T01:30:00Z")
    assert lag(made) == 5400
    assert lag(msgspec.structs.replace(made, built=None)) is None
    assert lag(msgspec.structs.replace(made, released=None)) is None
    assert lag(msgspec.structs.replace(made, outcome="failed")) is None


def test_words_name_what_is_missing_and_what_is_left_over() -> None:
    entry = msgspec.structs.replace(ENTRIES[1], stale=True, wanted=False)
    assert words(entry) == "built, stale, no longer wanted"
    assert words(ENTRIES[0]) == "built, without open"


def test_one_row_for_a_kernel_and_one_column_for_a_driver() -> None:
    html = page(many(40))
    assert html.count('<tr role="row" data-os=') == 5
    assert html.count('scope="col" role="columnheader"') == 1 + 8


def test_two_thousand_pairs_fit_in_three_megabytes() -> None:
    assert len(page(many(2000))) < 3_000_000


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match=re.escape(str(tmp_path))):
        page(Index(), templates=tmp_path)
