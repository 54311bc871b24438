"""From the start of nvidia-driver.service to its end in a virtual machine, over compiling the same modules here.

    .venv/bin/python -m bench.host --registry localhost:5000 [--compile-seconds 95.1]

Takes the images of two kernels and one driver out of a registry that has them (those of ``./doit.sh``), a Debian root (made once
below ``build/vm``) and, unless the seconds of an earlier ``bench.build`` are given, the engine that ``doit`` would take. The
machine is wholly emulated (QEMU without hardware support), the compiler is not: compiling in that machine would take many times
longer, so each ratio is a lower bound. The userspace layer is left out of what the machine pulls, as for a host that has it from
the kernel before. There is no GPU: the unit ends where insmod answers ENODEV, which is where "ready" would be said; device
nodes and the CDI specification, a second more, come after. Goal: ratios of at least 20.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import build
from pipeline.errors import UsageError
from pipeline.registry import Registry
from tests import host_vm
from tests.host_machine import KERNEL, NEXT, A
from tests.host_vm import GATEWAY, ROOT, Vm
from tests.registry_process import running_registry

GOAL: Final = 20
UNIT: Final = "nvidia-driver.service"
TIMES: Final = f"systemctl show {UNIT} -p ExecMainStartTimestampMonotonic -p ExecMainExitTimestampMonotonic -p ExecMainStatus"
ENODEV: Final = "10"
"""What the unit's program ends with where insmod found no GPU."""
_WRITTEN: Final = re.compile(r"http\.request\.method=GET .*uri=.?/v2/driver/.*http\.response\.written=([0-9]+)")


@dataclass(frozen=True)
class Figures:
    """Seconds, and bytes of the second kernel's image."""

    compiled: float
    present: float
    pulled: float
    second: float
    wire: int
    own: int
    image: int


def seconds(said: str) -> float:
    """How long the unit's program ran, by systemd's own clock.

    Raises UsageError where it did not end as it does without a GPU.
    """
    values = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if values.get("ExecMainStatus") != ENODEV:
        raise UsageError(
            f"{UNIT} ended with {values.get('ExecMainStatus')}, not {ENODEV}", hint="see its journal in that machine"
        )
    begin, end = (int(values[f"ExecMain{word}TimestampMonotonic"]) for word in ("Start", "Exit"))
    return (end - begin) / 1e6


def written(log: Iterable[str]) -> int:
    """Bytes that a registry has answered GETs with, by its log."""
    return sum(int(found[1]) for line in log if (found := _WRITTEN.search(line)))


def layers(registry: Registry, tag: str) -> dict[str, int]:
    """Layers of an image, and their sizes."""
    manifest = registry.manifest(tag)
    if manifest is None:
        raise UsageError(f"there is no {tag} in {registry.repository}", hint="run ./doit.sh first, or name another --registry")
    return {layer["digest"]: layer["size"] for layer in json.loads(manifest.data)["layers"]}


def compiled(registry: str) -> float:
    """Seconds that make takes here for every module of the kind that such a host loads, its probes among them."""
    space, pair = build.workspace(registry, ["proprietary"], [], f"*{KERNEL}-{A}")
    space.shop.toolchain(space.lock.toolchain(pair.kernel))
    with tempfile.TemporaryDirectory(prefix=".bench.", dir=ROOT / "build") as place:
        return sum(build.bare(pair, space, Path(place))[0].values())


def measure(registry: str, given: float) -> Figures:
    """Compiles, then boots three times: the image pulled, the image present, the next kernel's pulled."""
    source = Registry(registry, environ={})
    first, second = layers(source, f"{KERNEL}-{A}"), layers(source, f"{NEXT}-{A}")
    took = given or compiled(registry)
    with tempfile.TemporaryDirectory(prefix="bench-host.") as name:
        folder = Path(name)
        with running_registry(folder / "registry") as address:
            target = Registry(address, environ={})
            for kernel in (KERNEL, NEXT):
                host_vm.trim(source, f"{kernel}-{A}", target, [f"{kernel}-{A}"])
            disk = host_vm.make_disk(host_vm.make_root(ROOT / "build/vm"), folder / "disk")
            settings = {
                "DRIVER_REGISTRY": f"http://{GATEWAY}:{address.rpartition(':')[2]}",
                "DRIVER_VERSION": A,
                "DRIVER_INSECURE": "1",
                "DRIVER_RUNTIME": "podman",
                "NVIDIA_DRIVER_TRY": "1",
            }
            vm = Vm(disk, folder / "vm", **settings)
            pulled = seconds(vm.boot(TIMES))
            present = seconds(vm.boot(TIMES))
            log = folder / "registry/registry.log"
            before = written(log.read_text(errors="replace").splitlines())
            next_one = seconds(vm.boot(TIMES, kernel=NEXT))
            wire = written(log.read_text(errors="replace").splitlines()) - before
    own = sum(size for digest, size in second.items() if digest not in first)
    return Figures(took, present, pulled, next_one, wire, own, sum(second.values()))


def report(figures: Figures) -> str:
    """Seconds and ratios, in Markdown."""
    lines = ["| | seconds | compiling takes |", "|---|---:|---:|"]
    lines.append(f"| the kind's modules compiled here, not in that machine | {figures.compiled:.1f} | |")
    for text, value in (
        ("image present", figures.present),
        ("image pulled", figures.pulled),
        ("the next kernel's image pulled", figures.second),
    ):
        lines.append(f"| the unit in the emulated machine, {text} | {value:.1f} | {figures.compiled / value:.1f} times that |")
    share = f"{figures.own / 1e6:.1f} MB of an image of {figures.image / 1e6:.1f} MB are its own"
    lines += ["", f"Goal: at least {GOAL} times."]
    lines += [f"A second kernel of the same driver: {share}, {figures.wire / 1e6:.1f} MB went over the wire."]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.host", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--registry", default="localhost:5000", help="where the images of both kernels are")
    parser.add_argument("--compile-seconds", type=float, default=0.0, help="of an earlier bench.build, instead of compiling now")
    chosen = parser.parse_args(arguments)
    print(report(measure(chosen.registry, chosen.compile_seconds)))


if __name__ == "__main__":
    main()
