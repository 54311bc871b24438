"""The benchmarks run, at a size that takes a second: what they print is read by people, that they work is held here."""

from __future__ import annotations

import hashlib
import subprocess
import time
from pathlib import Path

import pytest

from bench import build, first_run, fleet, host, made_up, noop, parallel
from pipeline.config import lockfile, versions_toml
from pipeline.core.errors import UsageError
from pipeline.registry.client import Registry
from tests import samples
from tests.registry_process import MISSING, installed, running_registry


def test_the_lock_of_tests_and_benchmarks_is_one_and_has_the_pairs_that_they_name() -> None:
    assert lockfile.dump(lockfile.load(made_up.PINNED / lockfile.LOCK_FILE)) == (made_up.PINNED / lockfile.LOCK_FILE).read_bytes()
    pairs = made_up.pinned({}).plan.pairs
    assert [(pair.kernel.kernel, pair.driver.version, pair.kinds) for pair in pairs] == [
        ("6.1.0-47-cloud-amd64", "535.261.03", ("open", "proprietary")),
        ("6.1.0-50-cloud-amd64", "535.261.03", ("open", "proprietary")),
        ("6.1.0-56-cloud-amd64", "535.261.03", ("open", "proprietary")),
        ("6.1.0-56-cloud-amd64", "535.309.01", ("proprietary",)),
    ]
    assert not [pair for pair in pairs if pair.exclusion]


@pytest.mark.skipif(not installed(), reason=MISSING)
def test_noop_finds_everything_done_and_counts_its_requests(tmp_path: Path) -> None:
    figures = noop.measure(8, 1, tmp_path)
    assert figures.pairs == 8
    assert figures.requests == 3, "the list of tags, the index's manifest and its configuration"
    assert 0 < figures.best <= figures.seconds
    assert f"| 8 | {figures.seconds:.2f} |" in noop.report([figures])


@pytest.mark.skipif(not installed(), reason=MISSING)
def test_parallel_builds_two_pairs_both_ways_and_says_how_far_that_is_from_ideal(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        bench = parallel.Bench(tmp_path / "checkout", registry, ["*6.1.0-47*", "*6.1.0-50*"], {"kinds": ["open"]}, 0.2)
        figures = parallel.measure(bench)
    assert len(set(figures.pairs)) == 2
    assert min(figures.at_once.seconds, figures.in_turn.seconds) > 0.2
    assert f"{figures.of_ideal:.2f} of ideal" in parallel.report(figures)
    for found in (figures.at_once, figures.in_turn):
        assert found.peak.memory > 20e6, "a Python that has read a lock"
        assert found.peak.memory == sum(found.peak.programs.values())
        assert found.peak.disk > 0


@pytest.mark.skipif(not installed(), reason=MISSING)
def test_a_fleet_builds_every_pair_though_some_of_its_runs_are_killed(tmp_path: Path) -> None:
    figures = fleet.measure(runners=2, pairs=12, kills=0.3, seed=1, place=tmp_path)
    assert len(figures.begun) == 12
    assert figures.runs == figures.jobs + figures.killed
    assert "The index is complete" in fleet.report(figures)


def test_the_templates_still_are_what_the_benchmark_of_builds_takes_apart() -> None:
    """bench.build itself needs an engine and minutes: its figures are in docs/performance.md."""
    plan = samples.plan(samples.a_lock(drivers=(samples.driver(required=("open", "proprietary")),)))
    for pair in plan.pairs:
        text = build.bare_text(pair)
        assert text.count("echo bench: seconds") == len(pair.kinds) == 2
        assert "COPY --from=probes" not in text
        assert text.index("FROM probes AS answers") < text.index(f"FROM kernel AS {pair.required[0]}")


def test_figures_of_a_build_are_told_as_ratios_of_bare_make() -> None:
    steps = (("compiled open modules", 90.0), ("assembled", 5.0))
    figures = build.Figures("debian/amd64:6.1.0-47", "built", 110.0, steps, {"open": 100.0}, {"open": build.Answers(280)})
    told = build.report(figures)
    assert "1.10 (goal 1.10)" in told
    assert "compiling alone: 0.90" in told
    assert "| the rest | 15.0 | 0.15 |" in told
    assert "Answers of open's own probes, held against the shared ones: 280 the same." in told


def test_figures_of_a_first_run_are_its_ratio_of_bare_make_and_its_first_image() -> None:
    """bench.first_run itself needs an engine and minutes: its figures are in docs/performance.md."""
    step = {"event": "step", "pair": "base:amd64", "seconds": 2.0, "outcome": "ok", "text": "built in 2.0 s"}
    built = [{"event": "outcome", "pair": name, "outcome": "built", "text": "built sha256:1"} for name in ("a", "b")]
    figures = first_run.watched([(3.0, step), (90.0, built[0]), (140.0, built[1]), (141.0, {"event": "end"})], 142.0)
    figures.bare.update({"a, open": 60.0, "b, open": 40.0})
    told = first_run.report(figures)
    assert "| base:amd64: built | 2.0 | 3.0 |" in told
    assert "The first command took 142.0 s, bare make 100.0 s: 1.42 (goal 1.50)." in told
    assert "The first of 2 images was in the registry after 90.0 s." in told
    with pytest.raises(UsageError, match="failed: no"):
        first_run.watched([(1.0, {"event": "outcome", "pair": "a", "outcome": "failed", "text": "failed: no"})], 2.0)
    with pytest.raises(UsageError, match="no pair was built"):
        first_run.watched([(1.0, {"event": "end"})], 2.0)


def test_wishes_and_lock_are_narrowed_to_kinds_and_modules() -> None:
    wishes, pinned = ((made_up.PINNED / name).read_text() for name in ("versions.toml", "versions.lock"))
    made = {"kinds": ["open"], "modules": ["nvidia"]}
    found = versions_toml.parse(made_up.narrowed(wishes, made), "versions.toml")
    assert (found.build.kinds, found.build.modules) == (("open",), ("nvidia",))
    assert {driver.required for driver in found.drivers} == {(), ("open",)}
    assert {driver.required for driver in lockfile.parse(made_up.narrowed(pinned, made).encode()).drivers} == {(), ("open",)}
    assert made_up.narrowed(pinned, {"kinds": [], "modules": []}) == pinned


def test_answers_of_probes_are_compared_file_by_file() -> None:
    own = {"a.h": "1", "b.h": "2", "c.h": "3"}
    assert str(build.compared(own, own)) == "3 the same"
    assert str(build.compared(own, {**own, "patch.h": "4"})) == (
        "3 the same, 1 asked by the shared ones alone, for another kind's patch (patch.h)"
    )
    assert str(build.compared(own, {"a.h": "1", "b.h": "9"})) == "1 the same, 1 DIFFERENT (b.h), 1 ASKED BY IT ALONE (c.h)"


def test_the_shell_that_tells_answers_gives_a_line_a_file(tmp_path: Path) -> None:
    (tmp_path / "compile-tests").mkdir()
    (tmp_path / "compile-tests/one.h").write_text("#define ONE\n")
    (tmp_path / "two.h").write_text("#undef TWO\n")
    (tmp_path / "log.txt").write_text("no answer\n")
    script = build._ANSWERS.replace("/build/nvidia/conftest", str(tmp_path)).replace("WHOSE", "own")
    said = subprocess.run(["sh", "-euc", script], check=True, capture_output=True, text=True).stdout.splitlines()
    found = {match[3]: match[2] for line in said if (match := build._ANSWER.match(line))}
    assert found == {
        "compile-tests/one.h": hashlib.sha256(b"#define ONE\n").hexdigest(),
        "two.h": hashlib.sha256(b"#undef TWO\n").hexdigest(),
    }


def test_seconds_of_a_unit_are_those_of_systemd_and_only_where_it_ended_as_it_does_without_a_gpu() -> None:
    said = "ExecMainStartTimestampMonotonic=9000000\nExecMainExitTimestampMonotonic=13500000\nExecMainStatus="
    assert host.seconds(f"{said}10\n") == 4.5
    with pytest.raises(UsageError, match="ended with 30, not 10"):
        host.seconds(f"{said}30\n")


@pytest.mark.skipif(not installed(), reason=MISSING)
def test_the_bytes_that_a_host_pulled_are_those_that_the_registry_wrote(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as address:
        registry = Registry(address, environ={})
        digest = "sha256:" + hashlib.sha256(b"x" * 70_000).hexdigest()
        registry.push_blob(b"x" * 70_000, digest, 70_000)
        assert registry.blob(digest) == b"x" * 70_000
        log, end = tmp_path / "registry/registry.log", time.monotonic() + 30
        while not (written := host.written(log.read_text().splitlines())) and time.monotonic() < end:
            time.sleep(0.05)  # the registry logs an answer after it has given it
    assert written == 70_000


def test_a_portion_is_every_16th_object_by_its_own_command(tmp_path: Path) -> None:
    """The script that both sides run, with a compiler that notes what it was told."""
    root, noted = tmp_path / "root", tmp_path / "noted"
    (root / "nvidia").mkdir(parents=True)
    for number in range(20):
        words = f"-Wp,-MMD,{root}/nvidia/.o{number:02}.o.d -O2 -c -o {root}/nvidia/o{number:02}.o {root}/nvidia/o{number:02}.c"
        check = f"; ./objtool {root}/nvidia/o{number:02}.o" if number % 2 else ""
        (root / f"nvidia/.o{number:02}.o.cmd").write_text(
            f"cmd_{root}/nvidia/o{number:02}.o := gcc {words} {check}\n\nsource_x := y\n"
        )
    (root / "nvidia/.all.o.cmd").write_text(f"cmd_{root}/nvidia/all.o := ld -r -o {root}/nvidia/all.o one.o two.o\n")
    compiler = tmp_path / "gcc"
    compiler.write_text(f'#!/bin/sh\necho "$*" >> {noted}\nwhile [ "$1" != -o ]; do shift; done; : > "$2"\n')
    compiler.chmod(0o755)
    script = host.PORTION.replace("/lib/modules/KERNEL/build", str(root)).replace("EVERY", "16")
    script = script.replace("/build/nvidia", str(root)).replace("/tmp/portion", str(tmp_path / "portion"))
    done = subprocess.run(
        ["sh", "-c", script], check=True, capture_output=True, text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}
    )
    assert host.portion(done.stdout)[:2] == (2, 20)
    out = tmp_path / "portion"
    versions_toml = {f"-O2 -c -o {out}/1.o {root}/nvidia/o00.c", f"-O2 -c -o {out}/17.o {root}/nvidia/o16.c"}
    assert {" ".join(line.split()) for line in noted.read_text().splitlines()} == versions_toml


def test_figures_of_a_host_are_told_as_how_often_compiling_takes_that_long() -> None:
    """bench.host itself needs a virtual machine and minutes: its figures are in docs/performance.md."""
    figures = host.Figures(95.0, host.Portion(12, 190, 3.0, 36.0), 4.0, 19.0, 10.0, 53_000_000, 52_000_000, 390_000_000)
    told = host.report(figures)
    assert "| image present | 4.0 | 23.8 times that | 285 times that |" in told
    assert "| image pulled | 19.0 | 5.0 times that | 60 times that |" in told
    assert "| 36.00 | measured: 12.0 times as long |" in told
    assert "| 1140 | computed: 95.0 s times 12.0 |" in told
    assert "52.0 MB of an image of 390.0 MB are its own, 53.0 MB went over the wire" in told
