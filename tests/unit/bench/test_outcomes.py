"""The table of outcomes: what is measured next, what is kept of it, and what is shown of that."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.outcomes import __main__ as command
from bench.outcomes import cells, pins, table
from bench.outcomes.measure import alone
from bench.outcomes.results import FILE, Given, Outcome, Results, Row
from pipeline.config import compat, lockfile
from pipeline.core.errors import BadFileError, EngineError, UsageError
from pipeline.outcomes import index
from pipeline.outcomes.page import page
from pipeline.plan.pairs import Pair, Plan
from pipeline.plan.render import asking
from tests import samples
from tests.documents import ROOT

NAMES = ("6.1.0-47-cloud-amd64", "6.1.0-50-cloud-amd64", "6.1.0-56-cloud-amd64", "6.12.117+deb13-cloud-amd64")
KERNELS = tuple(samples.kernel(n, v) for n, v in zip(NAMES, ("6.1.170", "6.1.176", "6.1.192", "6.12.117"), strict=True))


def a_plan(**changes: Any) -> Plan:
    return samples.plan(samples.a_lock(kernels=KERNELS, **changes))


def a_row(given: Given, outcome: Outcome = "loads", reason: str = "", measured: str = "2026-11-25T01:00:00Z") -> Row:
    return Row(given=given, outcome=outcome, reason=reason, seconds=60.5, measured=measured)


@dataclass
class Machine:
    """A stand-in for what measures: it says which cells it was asked for, and ends as it is told."""

    asked: list[tuple[str, str, str]]
    ends: dict[int, BaseException]

    def __call__(self, *_: object) -> Machine:
        return self

    def measure(self, pair: Pair, given: Given) -> Row:
        self.asked.append(given.key)
        if error := self.ends.get(len(self.asked)):
            raise error
        return a_row(given)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine([], {})
    monkeypatch.setattr(command, "Bench", made)
    monkeypatch.setattr(pins.Space, "shop", None)
    return made


@pytest.fixture
def space(tmp_path: Path) -> pins.Space:
    """A checkout with one file of wishes and a lock of four kernels with one driver of two kinds: eight cells."""
    place = tmp_path / pins.PLACE
    place.mkdir(parents=True)
    (place / "bookworm.toml").write_text((ROOT / pins.PLACE / "bookworm.toml").read_text())
    (place / "versions.lock").write_bytes(lockfile.dump(samples.a_lock(kernels=KERNELS)))
    (tmp_path / "compat.toml").write_text("")
    (tmp_path / table.DOCUMENT).write_text(f"by hand\n{table.BEGIN}\n{table.END}\nby hand too\n")
    return pins.Space(tmp_path, {})


def test_a_run_measures_every_cell_once_and_the_next_run_none(space: pins.Space, machine: Machine) -> None:
    assert command.run(space, [], float("inf")) == 0
    assert len(machine.asked) == len(set(machine.asked)) == 8
    assert command.run(space, [], float("inf")) == 0
    assert len(machine.asked) == 8


def test_a_run_that_is_ended_goes_on_with_the_cell_it_was_at(space: pins.Space, machine: Machine) -> None:
    machine.ends[4] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        command.run(space, [], float("inf"))
    assert len(Results(space.root / FILE)) == 3
    command.run(space, [], float("inf"))
    assert machine.asked[3] == machine.asked[4]
    assert len(machine.asked) == 9
    assert len(Results(space.root / FILE)) == 8


def test_what_the_machine_could_not_do_is_no_outcome_and_is_tried_again(space: pins.Space, machine: Machine) -> None:
    machine.ends[2] = EngineError("it was killed")
    assert command.run(space, [], float("inf")) == 0, "it went on and the others were measured"
    assert len(Results(space.root / FILE)) == 7
    machine.ends.clear()
    command.run(space, [], float("inf"))
    assert machine.asked[1] == machine.asked[8]


def test_a_run_gives_up_where_the_machine_fails_time_and_again(space: pins.Space, machine: Machine) -> None:
    machine.ends = {number: EngineError("no engine answers") for number in range(9)}
    assert command.run(space, [], float("inf")) == 2
    assert len(machine.asked) == command.TROUBLES


def test_a_run_begins_nothing_after_its_time_and_takes_only_what_a_pattern_names(space: pins.Space, machine: Machine) -> None:
    command.run(space, [], 0)
    assert machine.asked == []
    command.run(space, ["*6.1.0-56*"], float("inf"))
    assert {kernel for kernel, _, _ in machine.asked} == {"6.1.0-56-cloud-amd64"}
    with pytest.raises(UsageError, match=r"no pair of the lock matches \*4\.19\*"):
        command.run(space, ["*4.19*"], float("inf"))


KILLED_IN_A_WRITE = """
import os, pathlib, signal, sys
from bench.outcomes.results import Given, Results, Row
results = Results(pathlib.Path(sys.argv[1]))
for number in range(3):
    if number == 2:
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    given = Given(kernel=f"6.1.{number}", driver="535.261.03", kind="open", headers="", sources="", gcc="12", modules=())
    results.add(Row(given=given, outcome="loads", measured="2026-11-25T01:00:00Z"))
"""


def test_a_run_that_is_killed_while_it_writes_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    done = subprocess.run([sys.executable, "-c", KILLED_IN_A_WRITE, path], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == -9
    assert [row.given.kernel for row in Results(path)] == ["6.1.0", "6.1.1"]


def test_a_result_holds_for_the_inputs_that_it_was_measured_with(tmp_path: Path) -> None:
    (pair, first), *_ = cells.cells(a_plan().pairs)
    results = Results(tmp_path / "results.json")
    results.add(a_row(first))
    assert results.of(first)
    for other in (
        samples.changed(first, patches={"a.patch": "0" * 64}),
        samples.changed(first, headers="f" * 64),
        samples.changed(first, sources="f" * 64),
        samples.changed(first, gcc="14.2.0"),
        samples.changed(first, modules=("nvidia",)),
    ):
        assert results.of(other) is None, "other inputs: measured again"
    assert first not in [given for _, given in cells.left([pair], results)]


def test_a_file_of_results_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('[{"given": 3}]')
    with pytest.raises(BadFileError, match=r"results\.json: .*given"):
        Results(path)


def test_the_newest_of_each_series_comes_first_then_the_oldest_then_what_lies_between() -> None:
    assert [cells.spread(number) for number in (0, 1, 2, 3, 5)] == [[], [0], [1, 0], [2, 0, 1], [4, 0, 2, 1, 3]]
    assert sorted(cells.spread(14)) == list(range(14))
    turns = cells.ranks(KERNELS)
    assert [turns[name] for name in NAMES] == [1, 2, 0, 0]
    assert [pair.kernel.kernel for pair in cells.ordered(a_plan().pairs)] == [NAMES[2], NAMES[3], NAMES[0], NAMES[1]]


def test_no_rule_leaves_a_cell_out_and_patches_stay() -> None:
    rules = compat.load(ROOT / "compat.toml")
    assert pins.lifted(rules).rules == ()
    assert pins.lifted(rules).patches == rules.patches != ()


def test_each_kind_is_compiled_with_no_other_before_it() -> None:
    """Docker's classic builder makes every stage that stands before the wanted one, and would report its error."""
    pair = a_plan().pairs[0]
    for kind in pair.kinds:
        made = alone(pair, kind)
        text = made.rendered.text
        stages = [line.rpartition(" AS ")[2] for line in text.splitlines() if line.startswith("FROM kernel AS ")]
        assert stages[:2] == ["probes", kind]
        assert asking(made.driver, made.kinds, made.patches) in made.kinds


def test_what_doit_has_built_of_the_same_inputs_is_taken_over_and_nothing_else() -> None:
    plan = a_plan()
    first, second, *_ = plan.pairs
    entries = [
        index.entry_of(first, "built", kinds=("open",), built="2026-11-25T00:18:16Z"),
        index.entry_of(second, "failed", reason="error: it does not compile", built="2026-11-25T00:18:16Z"),
    ]
    wanted = [given for _, given in cells.cells(plan.pairs)]
    (row,) = cells.built(plan.pairs, entries, wanted)
    assert (row.given.kernel, row.given.kind) == (first.kernel.kernel, "open")
    assert (row.outcome, row.measured) == ("loads", "2026-11-25T00:18:16Z")
    others = [samples.changed(given, sources="f" * 64) for given in wanted]
    assert cells.built(plan.pairs, entries, others) == []


def test_the_lock_of_several_releases_has_each_ones_compiler_and_every_driver_on_every_kernel() -> None:
    old, new = samples.a_lock(), samples.a_lock()
    toolchain = samples.changed(old.toolchains[0], name="debian-13")
    new = samples.changed(
        new,
        toolchains=(toolchain,),
        drivers=(samples.driver("550.163.01"),),
        kernels=(samples.kernel("6.12.117+deb13-cloud-amd64", "6.12.117", toolchain="debian-13"),),
    )
    made = lockfile.parse(lockfile.dump(pins.merged([("debian-12", old), ("debian-13", new)])))
    assert {kernel.toolchain for kernel in made.kernels} == {"debian-12", "debian-13"}
    assert {kernel.drivers for kernel in made.kernels} == {("535.261.03", "550.163.01")}
    part = pins.of_release(made, "debian-13", samples.wishes('[[driver]]\nexact="550.163.01"\nreason="here it is"'))
    assert [driver.version for driver in part.drivers] == ["550.163.01"]
    assert [kernel.kernel for kernel in part.kernels] == ["6.12.117+deb13-cloud-amd64"]


def some_results(tmp_path: Path) -> tuple[table.Cells, Results]:
    """Of eight cells one loads, two fail with one error on two lines, one does not load; four are not measured."""
    found = cells.cells(a_plan().pairs)
    results = Results(tmp_path / "results.json")
    by_key = {(given.kernel, given.kind): given for _, given in found}
    error = "/build/nvidia/nvidia/os-pci.c:%d:12: error: too few arguments to function 'pci_resize_resource'"
    results.add(a_row(by_key[NAMES[0], "open"]))
    results.add(a_row(by_key[NAMES[2], "open"], "compile", error % 80, "2026-11-25T01:30:00Z"))
    results.add(a_row(by_key[NAMES[1], "open"], "compile", error % 79))
    results.add(a_row(by_key[NAMES[2], "proprietary"], "boot", "boot proof: proprietary nvidia.ko: Unknown symbol x (err -2)"))
    return found, results


def test_the_table_says_what_was_measured_and_that_the_rest_was_not(tmp_path: Path) -> None:
    found, results = some_results(tmp_path)
    text = table.tables(found, results)
    assert "**4 of 8 cells are measured**, between 2026-11-25 01:00 UTC and 2026-11-25 01:30 UTC: 1 load, 3 do not." in text
    assert "| 535.261.03 open | 1 of 3 load | not measured |" in text
    assert "| 535.261.03 proprietary | 0 of 1 load, 2 not measured | not measured |" in text
    assert f"| `{NAMES[0]}` | gcc 1 | loads | not measured |" in text
    assert f"| `{NAMES[2]}` | gcc 1 | does not compile (1) | does not load (2) |" in text
    assert text.count("pci_resize_resource") == 1, "one error on two lines of one file is one"
    assert "1. 535.261.03 open, does not compile: `nvidia/os-pci.c:79:12: error: too few arguments to function" in text
    assert f"on {NAMES[1]}, {NAMES[2]}" in text


def test_the_page_shows_what_loads_what_failed_with_its_reason_and_what_is_not_measured(tmp_path: Path) -> None:
    made = table.index(*some_results(tmp_path))
    by_kernel = {entry.kernel: entry for entry in made.pairs}
    assert [by_kernel[name].outcome for name in NAMES] == ["built", "pending", "failed", "pending"]
    assert by_kernel[NAMES[0]].kinds == ("open",)
    assert [(m.kind, m.reason) for m in by_kernel[NAMES[0]].missing] == [("proprietary", "not measured yet")]
    assert "Unknown symbol x" in (by_kernel[NAMES[2]].reason or "")
    assert by_kernel[NAMES[3]].reason == "open: not measured yet; proprietary: not measured yet"
    text = page(made)
    assert "too few arguments to function" in text
    assert made.generated == "2026-11-25T01:30:00Z"


def test_only_what_stands_between_the_marks_is_made() -> None:
    text = table.filled(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n", "new\n")
    assert text == f"before\n{table.BEGIN}\n\nnew\n\n{table.END}\nafter\n"
    assert table.filled(text, "new\n") == text
    with pytest.raises(BadFileError, match="lacks one of the marks"):
        table.filled("nothing", "new")


def test_what_compiles_comes_from_a_release_and_not_from_its_backports() -> None:
    for part in pins.wishes(ROOT):
        assert part.debian
        names = [suite.suite for suite in pins.without_backports(part.debian).suites]
        assert names
        assert not [name for name in names if "backports" in name]


def test_the_committed_document_and_page_are_those_of_the_committed_results() -> None:
    space = pins.Space(ROOT, {})
    found, results = cells.cells(space.plan.pairs), Results(ROOT / FILE)
    text = (ROOT / table.DOCUMENT).read_text()
    assert table.filled(text, table.tables(found, results)) == text, "run 'python -m bench.outcomes write'"
    shown = re.compile(r'<script type="application/json" id="pairs">(.*?)</script>', re.DOTALL)
    of_page, of_results = (shown.findall(text) for text in ((ROOT / table.PAGE).read_text(), page(table.index(found, results))))
    assert of_page == of_results != [], "run 'python -m bench.outcomes write'"
    assert {row.given.key for row in results} <= {given.key for _, given in found}


def test_no_rule_of_ours_leaves_out_what_was_measured_to_load() -> None:
    rules = compat.load(ROOT / "compat.toml")
    versions = {kernel.kernel: kernel.version for kernel in pins.Space(ROOT, {}).lock.kernels}
    loads = [row.given for row in Results(ROOT / FILE) if row.outcome == "loads"]
    assert loads
    for given in loads:
        verdict = compat.why(rules, versions[given.kernel], given.driver, given.kind, "debian", given.gcc)
        assert verdict.rule is None, given
        assert {patch.file for patch in verdict.patches} == set(given.patches)


def test_a_rule_of_ours_leaves_out_every_cell_that_was_measured_to_fail_and_the_table_has_it_all_the_same() -> None:
    space = pins.Space(ROOT, {})
    rules = compat.load(ROOT / "compat.toml")
    versions = {kernel.kernel: kernel.version for kernel in space.lock.kernels}
    fails = [row.given for row in Results(ROOT / FILE) if row.outcome == "compile"]
    assert len(fails) >= 52
    for given in fails:
        verdict = compat.why(rules, versions[given.kernel], given.driver, given.kind, "debian", given.gcc)
        assert verdict.rule is not None, given
        assert verdict.rule.reason.startswith("does not compile"), given
    pairs = Plan(space.wanted, space.lock, space.renderer, rules).pairs  # as doit would see them
    failed = {f"debian/amd64:{given.kernel}-{given.driver}" for given in fails}
    assert failed <= {pair.id for pair in pairs if pair.exclusion is not None}
    assert {given.key for given in fails} <= {given.key for _, given in cells.cells(space.plan.pairs)}
