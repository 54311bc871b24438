"""One pair through the pipeline over bare ``make modules`` of the same trees with the same flags; where the rest goes.

    .venv/bin/python -m bench.build [--kind open] [--modules nvidia-peermem,…] [--pair '*-cloud-amd64-535.261*']

Takes the engine and the download cache that ``doit`` would take, and a registry of its own. The pair's date in the lock is
moved, so that no cache of the engine holds a step of it; toolchain, base and userspace are made beforehand, since thousands
of pairs share them. Bare make is the pair's own Dockerfile without what the pipeline adds: each kind asks NVIDIA's probes
itself, and nothing but make is timed. It runs after the pipeline, on warm files. Goal: a ratio of at most 1.10.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.made_up import ROOT
from pipeline.build.contexts import lay, write
from pipeline.build.pair import build
from pipeline.cli.workspace import Workspace
from pipeline.config import versions_toml
from pipeline.core.errors import UsageError
from pipeline.core.progress import Progress
from pipeline.plan.pairs import Pair
from pipeline.plan.render import build_order
from tests.registry_process import running_registry

_PROBES: Final = "COPY --from=probes /build/nvidia/conftest/ /build/nvidia/conftest/\n"
_MAKE: Final = re.compile(r"^RUN set -eu; (make -C /build/nvidia .* modules); \\$", re.MULTILINE)
_ANSWERS: Final = "(cd /build/nvidia/conftest && find . -name '*.h' -exec sha256sum {} + | sed 's/^/bench: WHOSE /')"
"""One line an answer: NVIDIA's probes write a file each."""
_SECONDS: Final = re.compile(r"^bench: seconds ([0-9]+)")
_ANSWER: Final = re.compile(r"^bench: (own|shared) ([0-9a-f]{64})  \./(\S+)")


class _Recorder(Progress):
    """Keeps the seconds of each step of each thing."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str, str, float]] = []

    def event(self, event: Any, pair: str, text: str, **values: Any) -> None:
        """Note steps; say everything as ever."""
        super().event(event, pair, text, **values)
        if event == "step":
            self.steps.append((pair, text.rpartition(" in ")[0], values["seconds"]))


@dataclass(frozen=True)
class Answers:
    """A kind's own probes against the shared ones: how many answer the same, and the names of the others."""

    same: int
    different: tuple[str, ...] = ()
    own_alone: tuple[str, ...] = ()
    shared_alone: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = [f"{self.same} the same"]
        names = {
            "DIFFERENT": self.different,
            "ASKED BY IT ALONE": self.own_alone,
            "asked by the shared ones alone, for another kind's patch": self.shared_alone,
        }
        said += [f"{len(some)} {what} ({', '.join(some)})" for what, some in names.items() if some]
        return ", ".join(said)


def compared(own: Mapping[str, str], shared: Mapping[str, str]) -> Answers:
    """Two sets of answers, each the name of a file and its digest, file by file."""
    both = own.keys() & shared.keys()
    different = tuple(sorted(name for name in both if own[name] != shared[name]))
    alone = tuple(sorted(own.keys() - both)), tuple(sorted(shared.keys() - both))
    return Answers(len(both) - len(different), different, *alone)


@dataclass(frozen=True)
class Figures:
    """Seconds of the whole pair, of its steps, of bare make a kind; how each kind's own probes compare with the shared ones."""

    pair: str
    outcome: str
    whole: float
    steps: tuple[tuple[str, float], ...]
    bare: dict[str, float]
    answers: dict[str, Answers]

    @property
    def ratio(self) -> float:
        """Whole pair over bare make."""
        return self.whole / sum(self.bare.values())

    @property
    def compiling(self) -> float:
        """The pipeline's build steps over bare make."""
        return sum(seconds for text, seconds in self.steps if text.startswith(("asked", "compiled"))) / sum(self.bare.values())


def workspace(space: Workspace, kinds: Sequence[str], modules: Sequence[str], pattern: str) -> tuple[Workspace, Pair]:
    """``space`` with the one pair in its lock, made new by its date, and wishes narrowed to kinds and modules."""
    words = {"kinds": tuple(kinds) or space.wanted.build.kinds, "modules": tuple(modules)}
    narrowed = msgspec.structs.replace(space.wanted, build=msgspec.convert(words, versions_toml.Build))
    tried = [pair for pair in space.plan.select([f"image:{pattern}"]) if pair.exclusion is None]
    if not tried:
        raise UsageError(f"every pair that matches '{pattern}' is excluded", hint="name another with --pair")
    model = max(tried, key=lambda pair: len(pair.kinds))
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    kernel = msgspec.structs.replace(model.kernel, date=now, drivers=(model.driver.version,))
    narrow = msgspec.structs.replace(space.lock, kernels=(kernel,), pending=())
    fresh = Workspace(ROOT, space.environ)
    fresh.__dict__.update(wanted=narrowed, lock=narrow)
    fresh.progress = _Recorder()
    return fresh, fresh.plan.pairs[0]


def bare_text(pair: Pair) -> str:
    """The pair's Dockerfile with make timed, each kind asking the probes itself, and a stage that tells what ours answered.

    Raises UsageError where the template is no longer what this benchmark takes apart.
    """
    text = pair.rendered.text
    probes, first = text.count(_PROBES), text.find("FROM kernel AS", text.find("AS probes"))
    asked = f"FROM probes AS answers\nRUN echo; {_ANSWERS.replace('WHOSE', 'shared')}\n\n"
    text, makes = _MAKE.subn(
        lambda found: (
            f"RUN set -eu; begin=$(date +%s%N); {found[1]}; end=$(date +%s%N); echo; "
            f"echo bench: seconds $((end - begin)); {_ANSWERS.replace('WHOSE', 'own')}; \\"
        ),
        (text[:first] + asked + text[first:]).replace(_PROBES, ""),
    )
    if not probes == makes == len(pair.kinds):
        raise UsageError("the image's template has changed", hint="look at bench/build.py, which takes it apart")
    return text


def bare(pair: Pair, space: Workspace, place: Path) -> tuple[dict[str, float], dict[str, Answers]]:
    """Seconds of make for each kind, and how its probes' answers compare with those of the pipeline's probes."""
    rendered = replace(pair.rendered, name="bare", text=bare_text(pair))
    write(rendered, place, lambda line: space.progress.note("", line))
    context = lay(rendered, place, space.inputs)
    engine = space.shop.engine
    seconds: dict[str, float] = {}
    answers: dict[str, Answers] = {}
    shared: dict[str, str] = {}
    for kind in build_order(pair.driver, pair.kinds):
        lines: list[str] = []
        jobs = {"JOBS": str(space.shop.jobs)}
        engine.build(context, tag=f"driver-bench:{kind}", target=kind, log=lines.append, args=jobs)
        engine.remove(f"driver-bench:{kind}")
        seconds[kind] = next(int(found[1]) / 1e9 for line in lines if (found := _SECONDS.match(line)))
        said = [found for line in lines if (found := _ANSWER.match(line))]
        shared |= {name: digest for whose, digest, name in map(re.Match.groups, said) if whose == "shared"}  # once: then cached
        answers[kind] = compared({name: digest for whose, digest, name in map(re.Match.groups, said) if whose == "own"}, shared)
    return seconds, answers


def measure(registry: str, kinds: Sequence[str], modules: Sequence[str], pattern: str) -> Figures:
    """Both ways, the pipeline first."""
    space, pair = workspace(Workspace(ROOT, {**os.environ, "DRIVER_REGISTRY": registry}), kinds, modules, pattern)
    shop, recorder = space.shop, space.progress
    assert isinstance(recorder, _Recorder)
    shop.toolchain(space.lock.toolchain(pair.kernel))
    shop.userspace(pair.driver)
    begin = time.monotonic()
    entry = build(pair, shop)
    whole = time.monotonic() - begin
    if entry.outcome != "built":
        raise UsageError(f"{pair.id} {entry.outcome}: {entry.reason}", hint="name another with --pair")
    steps = tuple((text, seconds) for name, text, seconds in recorder.steps if name == pair.id)
    with tempfile.TemporaryDirectory(prefix=".bench.", dir=ROOT / "build") as place:
        seconds, answers = bare(pair, space, Path(place))
    return Figures(pair.id, entry.outcome, whole, steps, seconds, answers)


def report(figures: Figures) -> str:
    """The ratio, the steps and the probes, in Markdown."""
    total = sum(figures.bare.values())
    lines = [f"{figures.pair}: {figures.outcome}", "", "| | seconds | of bare make |", "|---|---:|---:|"]
    lines += [f"| bare make, {kind} | {seconds:.1f} | {seconds / total:.2f} |" for kind, seconds in figures.bare.items()]
    lines += [f"| {text} | {seconds:.1f} | {seconds / total:.2f} |" for text, seconds in figures.steps]
    rest = figures.whole - sum(seconds for _, seconds in figures.steps)
    lines += [
        f"| the rest | {rest:.1f} | {rest / total:.2f} |",
        f"| the whole pair | {figures.whole:.1f} | {figures.ratio:.2f} |",
    ]
    lines += ["", f"The pair over bare make: {figures.ratio:.2f} (goal 1.10). Its compiling alone: {figures.compiling:.2f}."]
    lines += [f"Answers of {kind}'s own probes, held against the shared ones: {told}." for kind, told in figures.answers.items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.build", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kind", action="append", default=[], help="only this kind")
    parser.add_argument("--modules", default="", help="NV_KERNEL_MODULES, with commas; all where it is not given")
    parser.add_argument("--pair", default="*", help="pattern of a pair of versions.lock")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-build.") as place, running_registry(Path(place)) as registry:
        print(report(measure(registry, chosen.kind, list(filter(None, chosen.modules.split(","))), chosen.pair)))


if __name__ == "__main__":
    main()
