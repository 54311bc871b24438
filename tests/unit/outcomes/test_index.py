"""The index: one row a pair, the same bytes from the same outcomes, lines for hosts that read no JSON."""

from __future__ import annotations

import json

import pytest

from pipeline.config.records import OsRelease, Pending
from pipeline.core.errors import UpstreamDataError
from pipeline.outcomes import index as indexes
from pipeline.outcomes.index import Index, entry_of
from tests import samples

DIGEST = f"sha256:{'1' * 64}"
EXCLUDE = '[[exclude]]\nkernel = ">=6.1.176"\nreason = "does not  compile"\nsee = "https://example.com/1"\nlift = "a patch"\n'


def an_index() -> Index:
    built, left_out = samples.plan(text=EXCLUDE).pairs
    rows = (entry_of(built, "built", kinds=("open",), tags=built.tags, digest=DIGEST), indexes.excluded(left_out))
    return Index(serial=7, generated="2026-11-24T12:00:00Z", pairs=rows)


def test_what_is_written_is_read_back_and_has_one_line_a_pair() -> None:
    data = indexes.dump(an_index())
    assert indexes.parse(data, "x") == an_index()
    assert len(data.splitlines()) == 1 + 2 + 1
    document = json.loads(data)
    assert (document["schema"], document["serial"], document["source"]) == (1, 7, "registry")
    assert indexes.parse(indexes.dump(Index()), "x") == Index()


def test_an_excluded_pair_says_why_where_to_read_more_and_what_would_lift_it() -> None:
    row = json.loads(indexes.dump(an_index()))["pairs"][1]
    assert (row["outcome"], row["see"], row["lift"], row["digest"]) == ("excluded", "https://example.com/1", "a patch", None)
    assert "does not" in row["reason"]


def test_fields_that_a_reader_does_not_know_are_ignored_and_another_schema_is_refused() -> None:
    document = json.loads(indexes.dump(an_index()))
    document["pairs"][0]["colour"] = "blue"
    assert indexes.parse(json.dumps(document).encode(), "x") == an_index()
    document["schema"] = 2
    with pytest.raises(UpstreamDataError, match="x is not an index"):
        indexes.parse(json.dumps(document).encode(), "x")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]", b"[" * 5000, b'{"pairs": [{}]}'])
def test_what_is_no_index_is_one_line(data: bytes) -> None:
    with pytest.raises(UpstreamDataError) as caught:
        indexes.parse(data, "localhost:5000/driver:index")
    assert "localhost:5000/driver:index" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", ["\x1b[31m", "\n", "\x9b2J", "\u202e"])
@pytest.mark.parametrize("key", ["reason", "kernel", "see"])
def test_an_index_with_an_escape_code_or_a_newline_in_it_is_none(key: str, code: str) -> None:
    document = json.loads(indexes.dump(an_index()))
    document["pairs"][1][key] = f"text {code} more"
    for ascii_only in (True, False):
        with pytest.raises(UpstreamDataError, match="control characters"):
            indexes.parse(json.dumps(document, ensure_ascii=ascii_only).encode(), "x")


def test_an_index_with_backslashes_and_quotes_in_a_reason_is_one() -> None:
    document = json.loads(indexes.dump(an_index()))
    document["pairs"][1]["reason"] = r'C:\new said "no" – naïve'
    assert indexes.parse(json.dumps(document).encode(), "x").pairs[1].reason == r'C:\new said "no" – naïve'


def test_hosts_read_a_line_a_driver_with_single_spaces_in_its_reason() -> None:
    files = indexes.kernel_files(an_index().pairs)
    assert files["kernel/amd64/6.1.0-47-cloud-amd64"] == f"535.261.03 built {DIGEST}\n".encode()
    assert files["kernel/amd64/6.1.0-50-cloud-amd64"] == b"535.261.03 excluded - does not compile\n"


def test_what_is_known_but_not_pinned_is_pending_with_its_reason() -> None:
    release = OsRelease(channel="stable", version="4593.2.5", id="flatcar", version_id="4593.2.5")
    known = Pending(os="flatcar", arch="amd64", kernel="6.12.102-flatcar", releases=(release,), reason="headers not out yet")
    (row,) = indexes.pending(known)
    assert (row.outcome, row.reason, row.driver) == ("pending", "headers not out yet", "")
    assert [r.driver for r in indexes.pending(samples.changed(known, drivers=("580.1.2", "570.1.2")))] == ["580.1.2", "570.1.2"]


def test_outcomes_are_counted_in_a_fixed_order_and_only_those_that_occur() -> None:
    assert list(indexes.count(an_index().pairs).items()) == [("built", 1), ("excluded", 1)]
