"""The results as people read them: tables between two marks of ``docs/outcomes.md``, and the pipeline's page of an index."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pipeline.config.lockfile import write as put
from pipeline.core import progress
from pipeline.core.errors import BadFileError
from pipeline.core.versions import DriverVersion, KernelRelease
from pipeline.outcomes.index import Entry, Index, Missing, Seconds, entry_of
from pipeline.outcomes.page import page
from pipeline.plan.pairs import Pair

from .cells import cells, series
from .pins import Space
from .results import Given, Outcome, Results, Row

DOCUMENT: Final = Path("docs/outcomes.md")
PAGE: Final = Path("docs/outcomes.html")
BEGIN: Final = (
    "<!-- Made by 'python -m bench.outcomes write' out of docs/outcomes/results.json; what is written by hand here is lost. -->"
)
END: Final = "<!-- End of what is made. -->"
NOT_MEASURED: Final = "not measured"
SAID: Final[dict[Outcome, str]] = {
    "loads": "loads",
    "compile": "does not compile",
    "proof": "symbols do not fit",
    "boot": "does not load",
}
_PLACE: Final = re.compile(r":[0-9]+(:[0-9]+)?: ")
Cells = Sequence[tuple[Pair, Given]]


def tables(all_cells: Cells, results: Results) -> str:
    """The made part of the document: what there is in a sentence, by series, by kernel, and every first error."""
    columns = sorted({(g.driver, g.kind) for _, g in all_cells}, key=lambda c: (DriverVersion(c[0]), c[1]))
    rows = {given.key: results.of(given) for _, given in all_cells}
    made = [row for row in rows.values() if row]
    lines = [_sentence(made, len(all_cells)), "", "### By series", "", *_by_series(all_cells, rows, columns), ""]
    numbers = _numbered(made)
    lines += ["### By kernel", "", *_by_kernel(all_cells, rows, columns, numbers), "", "### First errors", ""]
    lines += _errors(made, numbers) or ["None."]
    return "\n".join(lines) + "\n"


def _sentence(made: Sequence[Row], count: int) -> str:
    if not made:
        return f"**Nothing of {count} cells is measured yet.**"
    times = sorted(row.measured for row in made)
    loading = sum(row.outcome == "loads" for row in made)
    return (
        f"**{len(made)} of {count} cells are measured**, between {_minute(times[0])} and {_minute(times[-1])}: "
        f"{loading} load, {len(made) - loading} do not."
    )


def _minute(text: str) -> str:
    return text[:16].replace("T", " ") + " UTC"


def _by_series(all_cells: Cells, rows: dict[tuple[str, str, str], Row | None], columns: Sequence[tuple[str, str]]) -> list[str]:
    lines = sorted({series(pair.kernel) for pair, _ in all_cells}, key=lambda text: [int(n) for n in text.split(".")])
    head = ["Driver", *(f"Linux {line}" for line in lines)]
    body = []
    for driver, kind in columns:
        said = [f"{driver} {kind}"]
        for line in lines:
            found = [rows[g.key] for p, g in all_cells if (g.driver, g.kind) == (driver, kind) and series(p.kernel) == line]
            known = [row for row in found if row]
            words = f"{sum(row.outcome == 'loads' for row in known)} of {len(known)} load" if known else NOT_MEASURED
            waiting = f", {len(found) - len(known)} {NOT_MEASURED}" if known and len(known) < len(found) else ""
            said.append(words + waiting)
        body.append(said)
    return _table(head, body)


def _by_kernel(
    all_cells: Cells, rows: dict[tuple[str, str, str], Row | None], columns: Sequence[tuple[str, str]], numbers: dict[str, int]
) -> list[str]:
    compilers = {given.kernel: given.gcc for _, given in all_cells}
    body = []
    for kernel in sorted(compilers, key=KernelRelease, reverse=True):
        body.append([f"`{kernel}`", f"gcc {compilers[kernel].partition('.')[0]}"])
        body[-1] += [_cell(rows[kernel, driver, kind], numbers) for driver, kind in columns]
    return _table(["Kernel", "Compiler", *(f"{driver} {kind}" for driver, kind in columns)], body)


def _cell(row: Row | None, numbers: dict[str, int]) -> str:
    if row is None:
        return NOT_MEASURED
    patched = ", patched" if row.given.patches else ""
    return SAID[row.outcome] + patched + (f" ({numbers[_alike(row)]})" if row.reason else "")


def _numbered(made: Iterable[Row]) -> dict[str, int]:
    """A number for each error: the same words at the same file are one, on whatever line."""
    found: dict[str, int] = {}
    for row in sorted(made, key=lambda row: (DriverVersion(row.given.driver), row.given.kind, KernelRelease(row.given.kernel))):
        if row.reason:
            found.setdefault(_alike(row), len(found) + 1)
    return found


def _alike(row: Row) -> str:
    return f"{row.given.driver} {row.given.kind} {_PLACE.sub(': ', row.reason)}"


def _errors(made: Iterable[Row], numbers: dict[str, int]) -> list[str]:
    lines = []
    by_number: dict[int, list[Row]] = {}
    for row in made:
        if row.reason:
            by_number.setdefault(numbers[_alike(row)], []).append(row)
    for number, same in sorted(by_number.items()):
        same.sort(key=lambda row: KernelRelease(row.given.kernel))
        given, kernels = same[0].given, ", ".join(row.given.kernel for row in same)
        reason = same[0].reason.replace("/build/nvidia/", "").replace("`", "'")
        lines.append(f"{number}. {given.driver} {given.kind}, {SAID[same[0].outcome]}: `{reason}` on {kernels}")
    return lines


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]


def index(all_cells: Cells, results: Results) -> Index:
    """The same as an index of the pipeline: an entry a pair, ``built`` where a kind loads, ``pending`` what is not measured."""
    pairs: dict[str, tuple[Pair, list[tuple[Given, Row | None]]]] = {}
    for pair, given in all_cells:
        pairs.setdefault(pair.id, (pair, []))[1].append((given, results.of(given)))
    entries = tuple(_entry(pair, found) for pair, found in pairs.values())
    times = [row.measured for row in results]
    return Index(serial=len(results), generated=max(times, default=""), pairs=tuple(sorted(entries, key=_order)))


def _order(entry: Entry) -> tuple[KernelRelease, DriverVersion]:
    return KernelRelease(entry.kernel), DriverVersion(entry.driver)


def _entry(pair: Pair, found: Sequence[tuple[Given, Row | None]]) -> Entry:
    loads = [given for given, row in found if row and row.outcome == "loads"]
    said = {given.kind: _why(row) for given, row in found if not (row and row.outcome == "loads")}
    waiting = [given.kind for given, row in found if row is None]
    patched = [f"{given.kind} modules with {', '.join(given.patches)}" for given, row in found if row and given.patches]
    outcome: progress.Outcome = "built" if loads else "pending" if waiting else "failed"
    why = "; ".join(f"{kind}: {text}" if len(found) > 1 else text for kind, text in said.items())
    return entry_of(
        pair,
        outcome,
        kinds=tuple(given.kind for given in loads),
        missing=tuple(Missing(kind, text) for kind, text in said.items()) if loads else (),
        reason="; ".join(patched) or None if loads else "; ".join([why, *patched]),
        seconds=Seconds(sum(row.seconds for _, row in found if row)),
    )


def _why(row: Row | None) -> str:
    return f"{SAID[row.outcome]}: {row.reason}" if row else "not measured yet"


def filled(document: str, made: str, name: str = str(DOCUMENT)) -> str:
    """``document`` with ``made`` between its two marks.

    Raises BadFileError where it has not both.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BadFileError(f"{name} lacks one of the marks of the made part", hint=f"it begins with {html.escape(BEGIN)[:40]}…")
    return f"{before}{BEGIN}\n\n{made}\n{END}{after}"


def write(space: Space, results: Results) -> None:
    """Bring document and page to what the results say. Raises DiskError, BadFileError."""
    found = cells(space.plan.pairs)
    place = space.root / DOCUMENT
    put(place, filled(place.read_text(encoding="utf-8"), tables(found, results)).encode())
    put(space.root / PAGE, page(index(found, results)).encode())
