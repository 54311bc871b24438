"""nvidia-driver.service from start to end in a virtual machine, over compiling the same modules, here and in that machine.

    .venv/bin/python -m bench.host --registry localhost:5000 [--compile-seconds 95.1]

Takes the images of two kernels and one driver of the tests' own lock out of a registry that has them (in a second clone:
``cp tests/debian/versions.* . && ./doit.sh 'image:*-535.261.03'``), a Debian root (made once below ``build/vm``) and the engine
that ``doit`` would take. The machine is wholly emulated (QEMU without hardware support).

Measured: the unit in that machine; ``make modules`` of the kind that such a host loads, its probes among them, here
(``--compile-seconds`` takes that of an earlier ``bench.build``); and one portion of the same compiling, every 16th object of the
kind by its own command with the same compiler in the same root, here and in that machine. Computed: what ``make modules`` takes
in that machine, as long as here times what the portion takes longer there. Over the first the ratio is a lower bound, over the
second it compares like with like. The userspace layer is left out of what the machine pulls, as for a host that has it from the
kernel before. There is no GPU: the unit ends where insmod answers ENODEV, which is where "ready" would be said; device nodes and
the CDI specification, a second more, come after. Goal: ratios of at least 20.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import build
from bench.made_up import pinned
from pipeline.build.contexts import lay, write
from pipeline.core.errors import UsageError
from pipeline.registry.client import Registry
from tests import host_vm
from tests.host_machine import KERNEL, NEXT, A
from tests.host_vm import GATEWAY, ROOT, Disk, Vm
from tests.registry_process import running_registry
from tests.support.cache import Cache

GOAL: Final = 20
UNIT: Final = "nvidia-driver.service"
TIMES: Final = f"systemctl show {UNIT} -p ExecMainStartTimestampMonotonic -p ExecMainExitTimestampMonotonic -p ExecMainStatus"
ENODEV: Final = "10"
"""What the unit's program ends with where insmod found no GPU."""
SPANS: Final = "journalctl -b -o short-monotonic --no-pager -q | grep -E 'nvidia-driver|podman|conmon|NVRM|nvidia: '"
"""What the machine's journal says of the unit, with seconds since its boot: which part took how long."""
EVERY: Final = 16
PORTION: Final = r"""
set -eu
cd /lib/modules/KERNEL/build
rm -rf /tmp/portion; mkdir /tmp/portion
number=0
for file in $(find /build/nvidia -name '.*.o.cmd' | LC_ALL=C sort); do
    command=$(sed -n '1s/^[a-z]*cmd_[^ ]* := *\(gcc[^;]* -c -o \).*/\1/p' "$file")
    [ -n "$command" ] || continue
    number=$((number + 1))
    [ $((number % EVERY)) = 1 ] || continue
    source=$(sed -n '1s/.* \([^ ;]*\.c\) *\(;.*\)\{0,1\}$/\1/p' "$file")
    command=$(printf '%s' "$command" | sed 's|-Wp,-MMD,[^ ]*||')
    echo "$command /tmp/portion/$number.o $source" > "/tmp/portion/$number.sh"
done
ls /tmp/portion/*.sh > /tmp/portion/list
compile() { xargs -P 2 -n 1 sh < /tmp/portion/list; }
compile  # once for its files to be in memory
begin=$(date +%s%N); compile; end=$(date +%s%N)
echo "portion: $(ls /tmp/portion/*.o | wc -l) of $number objects in $((end - begin)) ns"
"""
"""Compiles every 16th object of a kind by the command that kbuild has kept of it."""
_PORTION: Final = re.compile(r"^portion: ([1-9][0-9]*) of ([0-9]+) objects in ([0-9]+) ns$", re.MULTILINE)
_WRITTEN: Final = re.compile(r"http\.request\.method=GET .*uri=.?/v2/driver/.*http\.response\.written=([0-9]+)")


@dataclass(frozen=True)
class Portion:
    """Objects that were compiled of how many, and the seconds that took here and in the machine."""

    objects: int
    of: int
    here: float
    there: float

    @property
    def slower(self) -> float:
        """How many times as long compiling takes in the machine."""
        return self.there / self.here


@dataclass(frozen=True)
class Figures:
    """Seconds, and bytes of the second kernel's image."""

    compiled: float
    portion: Portion
    present: float
    pulled: float
    second: float
    wire: int
    own: int
    image: int
    spans: str = ""
    """The journal of the boot with the image present."""


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


def compiled(registry: str, given: float) -> float:
    """Seconds of ``make modules`` here for the kind that such a host loads, its probes too."""
    if given:
        return given
    space, pair = build.workspace(pinned({**os.environ, "DRIVER_REGISTRY": registry}), ["proprietary"], [], f"*{KERNEL}-{A}")
    space.shop.toolchain(space.lock.toolchain(pair.kernel))
    with tempfile.TemporaryDirectory(prefix=".bench.", dir=ROOT / "build") as place:
        return sum(build.bare(pair, space, Path(place))[0].values())


def compilers_root(registry: str, root: Path) -> None:
    """The root in which the pipeline compiles that kind, as it is afterwards; the engine has it from the pair's own build."""
    space = pinned({**os.environ, "DRIVER_REGISTRY": registry})
    pair = space.plan.select([f"image:*{KERNEL}-{A}"])[0]
    space.shop.toolchain(space.lock.toolchain(pair.kernel))
    engine, tag, tar = space.shop.engine, "driver-bench:root", root.with_suffix(".tar")
    with tempfile.TemporaryDirectory(prefix=".bench.", dir=ROOT / "build") as place:
        write(pair.rendered, Path(place), lambda _: None)
        context, jobs = lay(pair.rendered, Path(place), space.inputs), {"JOBS": str(space.shop.jobs)}
        engine.build(context, tag=tag, target="proprietary", log=lambda _: None, args=jobs)
        try:
            engine.export(tag, "/", tar)
        finally:
            engine.remove(tag)
    root.mkdir()
    subprocess.run(["tar", "-C", root, "-xf", tar], check=True)
    tar.unlink()
    os.mknod(root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))


def portion(said: str) -> tuple[int, int, float]:
    """Objects, of how many, seconds, out of what ``PORTION`` printed."""
    found = _PORTION.search(said)
    if not found:
        raise UsageError("the portion was not compiled", hint=said[-500:])
    return int(found[1]), int(found[2]), int(found[3]) / 1e9


def portions(vm: Vm, root: Path, disk: Path) -> Portion:
    """The portion compiled in ``root`` here, then in the machine with that root as a disk."""
    script = PORTION.replace("KERNEL", KERNEL).replace("EVERY", str(EVERY))
    (root / "portion.sh").write_text(script)
    words = ["chroot", str(root), "sh", "/portion.sh"]
    objects, of, here = portion(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    subprocess.run(["rm", "-rf", str(root / "tmp/portion")], check=True)
    with disk.open("wb") as file:
        file.truncate(4 << 30)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(disk)], check=True, capture_output=True)
    subprocess.run(["rm", "-rf", str(root)], check=True)
    said = vm.boot("mount /dev/vdc /mnt; mount -t tmpfs none /mnt/tmp; chroot /mnt sh /portion.sh", waits=False, disks=[disk])
    there = portion(said)
    if there[:2] != (objects, of):
        raise UsageError(f"{there[:2]} objects in the machine, {objects, of} here", hint="the two roots differ")
    return Portion(objects, of, here, there[2])


def measure(registry: str, given: float) -> Figures:
    """Compiles, then boots: the image pulled, the image present, the next kernel's pulled, the portion."""
    source = Registry(registry, environ={})
    first, second = layers(source, f"{KERNEL}-{A}"), layers(source, f"{NEXT}-{A}")
    with tempfile.TemporaryDirectory(prefix="bench-host.") as name, Cache.of_this_user() as cache:
        folder = Path(name)
        took = compiled(registry, given)
        compilers_root(registry, folder / "root")
        with running_registry(folder / "registry") as address:
            target = Registry(address, environ={})
            for kernel in (KERNEL, NEXT):
                host_vm.trim(source, f"{kernel}-{A}", target, [f"{kernel}-{A}"])
            disk, _ = host_vm.install(Disk(host_vm.bare_disk(cache)), folder / "disk")
            settings = {
                "DRIVER_REGISTRY": f"http://{GATEWAY}:{address.rpartition(':')[2]}",
                "DRIVER_VERSION": A,
                "DRIVER_INSECURE": "1",
                "DRIVER_RUNTIME": "podman",
                "NVIDIA_DRIVER_TRY": "1",
            }
            vm = Vm(disk, folder / "vm", **settings)
            # The userspace is left out of the images: the volume is there, as for a host that has it from the kernel before.
            stamp = {f"var/lib/nvidia-docker/volumes/nvidia_driver/{A}/.complete": (0o644, f"{A}\n".encode())}
            pulled = seconds(vm.boot(TIMES, files=stamp))
            said = vm.boot(f"{TIMES}; {SPANS}", files=stamp)
            log = folder / "registry/registry.log"
            before = written(log.read_text(errors="replace").splitlines())
            next_one = seconds(vm.boot(TIMES, kernel=NEXT, files=stamp))
            wire = written(log.read_text(errors="replace").splitlines()) - before
        # Without the trial its unit ends at once, and nothing else runs there.
        part = portions(
            Vm(disk, folder / "compiler", **{**settings, "NVIDIA_DRIVER_TRY": ""}), folder / "root", folder / "root.img"
        )
    own = sum(size for digest, size in second.items() if digest not in first)
    return Figures(took, part, seconds(said), pulled, next_one, wire, own, sum(second.values()), said)


def report(figures: Figures) -> str:
    """Seconds and ratios, in Markdown."""
    part = figures.portion
    there = figures.compiled * part.slower
    what = f"every {EVERY}th object of the kind ({part.objects} of {part.of}) compiled"
    lines = ["| | seconds | |", "|---|---:|---|"]
    lines.append(f"| `make modules` of the kind, its probes among them, here | {figures.compiled:.1f} | measured |")
    lines.append(f"| {what} here | {part.here:.2f} | measured |")
    lines.append(f"| {what} in the emulated machine | {part.there:.2f} | measured: {part.slower:.1f} times as long |")
    lines.append(
        f"| `make modules` in the emulated machine | {there:.0f} | computed: {figures.compiled:.1f} s times {part.slower:.1f} |"
    )
    lines += ["", "| the unit in the emulated machine (measured) | seconds | compiling here takes | compiling there takes |"]
    lines.append("|---|---:|---:|---:|")
    for text, value in (
        ("image present", figures.present),
        ("image pulled", figures.pulled),
        ("the next kernel's image pulled", figures.second),
    ):
        lines.append(f"| {text} | {value:.1f} | {figures.compiled / value:.1f} times that | {there / value:.0f} times that |")
    share = f"{figures.own / 1e6:.1f} MB of an image of {figures.image / 1e6:.1f} MB are its own"
    lines += [
        "",
        f"Goal: at least {GOAL} times. Compiling here is a lower bound: the host is emulated, the compiler then is not.",
    ]
    lines += [f"A second kernel of the same driver: {share}, {figures.wire / 1e6:.1f} MB went over the wire."]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.host", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--registry", default="localhost:5000", help="where the images of both kernels are")
    parser.add_argument("--compile-seconds", type=float, default=0.0, help="of an earlier bench.build, instead of compiling now")
    chosen = parser.parse_args(arguments)
    figures = measure(chosen.registry, chosen.compile_seconds)
    print(report(figures))
    print(figures.spans, file=sys.stderr)


if __name__ == "__main__":
    main()
