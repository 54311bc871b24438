"""The coverage page: one HTML file that needs no network, made from an index alone. Pure.

Rows are kernels with the releases that boot them, columns are drivers; outcomes stand there in words as well as in
colour. Nothing of the index is taken for markup: text is escaped, the script writes text only, and the page's own
policy (CSP) allows the one style and the one script whose hashes it names.
"""

from __future__ import annotations

import base64
import hashlib
import re
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import jinja2
import msgspec

from ..core.errors import BadFileError
from ..core.files import CHECKOUT
from .index import Entry, Index, count
from .table import size, why

TEMPLATES: Final = CHECKOUT / "web"
_WIDTH: Final = (52, 628)
_HEIGHT: Final = (208, 12)
"""Where the chart's axes begin and end, in units of its view box."""
COLOURS: Final = 12
"""How many the style has for branches: ``.s0`` to ``.s11``."""


def page(index: Index, *, templates: Path = TEMPLATES) -> str:
    """The page for ``index``; equal indexes give equal bytes.

    Raises BadFileError where the checkout lacks a part of the page.
    """
    try:
        style, script = ((templates / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(templates), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
        )
        template = environment.get_template("page.html.j2")
    except (OSError, jinja2.TemplateError) as error:
        raise BadFileError(f"{templates}: {error}", hint="it is part of the project; restore it") from error
    drivers = sorted({entry.driver for entry in index.pairs}, key=_numbers, reverse=True)
    return template.render(
        index=index,
        totals=list(count(index.pairs).items()),
        systems=sorted({f"{entry.os}/{entry.arch}" for entry in index.pairs}),
        drivers=drivers,
        rows=_rows(index.pairs, drivers),
        lags=_lags(index.pairs),
        chart=_chart(index.pairs),
        colours=COLOURS,
        data=_data(index.pairs),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def lag(entry: Entry) -> float | None:
    """Seconds from the date of the source that first listed the kernel to the image; None where one is not known."""
    if not (entry.released and entry.built and entry.outcome == "built"):
        return None
    return max((_time(entry.built) - _time(entry.released)).total_seconds(), 0.0)


def _rows(entries: Sequence[Entry], drivers: Sequence[str]) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    places = {driver: place for place, driver in enumerate(drivers)}
    for number, entry in enumerate(entries):
        os = f"{entry.os}/{entry.arch}"
        releases = ", ".join(f"{r.get('channel', '')} {r.get('version', '')}" for r in entry.releases)
        key = (entry.os, entry.arch, entry.kernel, entry.headers)
        row = rows.setdefault(key, {"os": os, "kernel": entry.kernel, "releases": releases, "cells": [None] * len(drivers)})
        cell = {"number": number, "driver": entry.driver, "outcome": entry.outcome, "words": words(entry)}
        row["cells"][places[entry.driver]] = cell
    return sorted(rows.values(), key=lambda row: (row["os"], [-n for n in _numbers(row["kernel"])], row["kernel"]))


def words(entry: Entry) -> str:
    """The outcome in the few words of a cell."""
    said: list[str] = [entry.outcome]
    if entry.missing:
        said.append(f"without {' and '.join(sorted({missing.kind for missing in entry.missing}))}")
    if entry.stale:
        said.append("stale")
    if not entry.wanted:
        said.append("no longer wanted")
    return ", ".join(said)


def _data(entries: Iterable[Entry]) -> str:
    """What the script shows on a click, as JSON that ends no script element."""
    rows = []
    for entry in entries:
        seconds = lag(entry)
        facts = [
            ("Kinds", " and ".join(entry.kinds)),
            ("Built", entry.built or ""),
            ("From release to image", _span(seconds) if seconds is not None else ""),
            ("Image", size(entry.bytes.image) if entry.bytes.image else ""),
            ("Of that for this kernel alone", size(entry.bytes.kernel_layer) if entry.bytes.kernel_layer else ""),
            ("Compiling", f"{entry.seconds.build:.0f} s" if entry.seconds.build else ""),
            ("Proof", f"{entry.seconds.proof:.0f} s" if entry.seconds.proof else ""),
            ("Tags", entry.tags),
            ("Digest", entry.digest or ""),
        ]
        said = [sentence for sentence in why(entry) if not entry.see or not sentence.endswith(entry.see)]
        if entry.rule:
            said.append(f"by {entry.rule}" if entry.rule == "versions.toml" else f"by rule {entry.rule} of compat.toml")
        find = " ".join((entry.driver, entry.outcome, *said, *entry.kinds)).lower()
        rows.append(
            {
                "id": entry.id,
                "words": words(entry),
                "why": said,
                "see": entry.see or "",
                "facts": [fact for fact in facts if fact[1]],
                "find": find,
            }
        )
    text = msgspec.json.encode(rows).decode()
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _lags(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    found: dict[str, list[float]] = {}
    for entry in entries:
        if (seconds := lag(entry)) is not None:
            found.setdefault(f"{entry.os}/{entry.arch}", []).append(seconds)
    return [
        {"os": os, "images": len(lags), "median": _span(statistics.median(lags)), "longest": _span(max(lags))}
        for os, lags in sorted(found.items())
    ]


def _chart(entries: Iterable[Entry]) -> dict[str, Any] | None:
    images = [e for e in entries if e.outcome == "built" and e.built and e.bytes.kernel_layer]
    if not images:
        return None
    times = [_time(e.built or "").timestamp() for e in images]
    megabytes = [e.bytes.kernel_layer / 1e6 for e in images]
    first, last, top = min(times), max(times), max(megabytes) * 1.05
    branches = sorted({_branch(e) for e in images}, key=_numbers)

    def x(time: float) -> float:
        return round(_WIDTH[0] + (_WIDTH[1] - _WIDTH[0]) * ((time - first) / (last - first) if last > first else 0.5), 1)

    def y(size: float) -> float:
        return round(_HEIGHT[0] + (_HEIGHT[1] - _HEIGHT[0]) * size / top, 1)

    days: dict[tuple[str, str], list[float]] = {}
    points = []
    for entry, time, number in zip(images, times, megabytes, strict=True):
        branch, day = _branch(entry), (entry.built or "")[:10]
        days.setdefault((day, branch), []).append(number)
        text = f"{entry.kernel}, driver {entry.driver}: {number:.1f} MB, {day}"
        points.append({"x": x(time), "y": y(number), "series": branches.index(branch) % COLOURS, "text": text})
    ends = [(first, "start"), (last, "end")] if _day(first) != _day(last) else [(first, "middle")]
    return {
        "series": branches,
        "points": points,
        "ticks": [{"y": y(top * part), "text": f"{top * part:.3g} MB"} for part in (0, 0.5, 1)],
        "days": [{"x": x(time), "text": _day(time), "anchor": anchor} for time, anchor in ends],
        "table": [
            {"day": day, "branch": branch, "images": len(sizes), "megabytes": f"{sum(sizes):.1f}"}
            for (day, branch), sizes in sorted(days.items())
        ],
    }


def _branch(entry: Entry) -> str:
    return entry.driver.partition(".")[0]


def _day(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d")


def _span(seconds: float) -> str:
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} d"


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", text)]
