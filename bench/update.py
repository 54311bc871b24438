"""What ``doit update`` costs: parse time and memory of every recorded feed, and the requests of a refresh.

    .venv/bin/python bench/update.py ../shared/upstream

Times are ratios to ``json.loads`` of the same bytes (to splitting lines, for text), memory to the size of the feed, so that
two machines can be compared. Requests: of a first update, of a second one, of one after a release came out.
"""

from __future__ import annotations

import datetime
import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pipeline.config import lockfile, versions_toml
from pipeline.config.records import Lock
from pipeline.fetch.apt_sources import Archives
from pipeline.update.run import update
from pipeline.upstream.coreos import container_linux, fedora_coreos, fedora_kernel, flatcar
from pipeline.upstream.nvidia import downloads, supported_gpus
from pipeline.upstream.nvidia import feeds as nvidia_feeds
from tests.recorded_upstream import ENDS, STREAMS, Held, documents

POLICY = """
[fedora-coreos]
[flatcar]
[nvidia]
cuda = ["12.9.1"]
[nvidia.reasons]
535 = "hosts run it"
"""
Parser = Callable[[bytes, str], object]


def parsers(folder: Path) -> list[tuple[str, bytes, Parser]]:
    """Name, bytes and parser of every recorded feed."""
    found: list[tuple[str, bytes, Parser]] = []

    def add(path: str, parse: Parser) -> None:
        found.append((path, (folder / path).read_bytes(), parse))

    for stream in STREAMS:
        add(f"fcos/streams/{stream}.json", partial(fedora_coreos.parse_stream, stream=stream))
        add(f"fcos/updates/{stream}.json", partial(fedora_coreos.parse_updates, stream=stream))
        index = documents(folder)[fedora_coreos.releases_url(stream)]
        found.append((f"fcos index of {stream} (derived)", index, partial(fedora_coreos.parse_index, stream=stream)))
        add(f"fcos/config-lockfiles/{stream}.manifest-lock.x86_64.json", partial(fedora_kernel.parse_lockfile, arch="amd64"))
    for path in sorted((folder / "flatcar/releases-json").iterdir()):
        channel = path.stem.removeprefix("releases").removeprefix("-")
        add(f"flatcar/releases-json/{path.name}", partial(flatcar.parse_feed, channel=channel))
    add("coreos-legacy/releases-stable.notes-elided.json", container_linux.parse_feed)
    add("nvidia/datacenter-releases/filtered_releases.json", nvidia_feeds.parse_data_centre)
    add("nvidia/eol/endoflife-release-data-nvidia-driver.json", nvidia_feeds.parse_newest)
    add("nvidia/versions/nvidia-versions.txt", nvidia_feeds.parse_unofficial)
    add("nvidia/checksums/gentoo-nvidia-drivers.Manifest", downloads.parse_manifest)
    for name in ("focal-nvidia-driver-525-supported-gpus.json", "supported-gpus.json"):
        add(f"nvidia/supported-gpus/{name}", supported_gpus.parse)
    return found


def best(work: Callable[[], object], rounds: int = 5) -> float:
    """The least of several times, in seconds."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def peak(work: Callable[[], object]) -> int:
    """Bytes that ``work`` held at most."""
    tracemalloc.start()
    work()
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held


def measure(folder: Path) -> None:
    """One line a feed, and their sum."""
    print(f"{'feed':58} {'kB':>6} {'ms':>7} {'x plain':>8} {'peak x size':>12}")
    total, plainly, size, most = 0.0, 0.0, 0, 0
    for name, data, parse in parsers(folder):
        plain = best(lambda data=data: json.loads(data) if data.lstrip()[:1] in b"{[" else data.decode().splitlines())  # type: ignore[misc]
        seconds = best(lambda parse=parse, data=data: parse(data, "https://bench.example/feed"))  # type: ignore[misc]
        memory = peak(lambda parse=parse, data=data: parse(data, "https://bench.example/feed"))  # type: ignore[misc]
        total, plainly, size, most = total + seconds, plainly + plain, size + len(data), max(most, memory)
        print(f"{name:58} {len(data) / 1e3:6.0f} {seconds * 1e3:7.1f} {seconds / plain:8.1f} {memory / len(data):12.1f}")
    print(f"{'all':58} {size / 1e3:6.0f} {total * 1e3:7.1f} {total / plainly:8.1f} {most / 1e6:9.1f} MB")


def requests(folder: Path) -> None:
    """How many requests a refresh takes."""
    found = documents(folder)
    found[nvidia_feeds.END_OF_LIFE_URL] = ENDS
    found[nvidia_feeds.latest_url("arm64")] = found[nvidia_feeds.latest_url("amd64")].replace(b"x86_64", b"aarch64")
    index = json.loads(found[fedora_coreos.releases_url("stable")])
    for stream in STREAMS:
        for release in json.loads(found[fedora_coreos.releases_url(stream)])["releases"]:
            for commit in release["commits"]:
                if commit["architecture"] in ("x86_64", "aarch64"):
                    _describe(found, stream, release["version"], commit["architecture"])
    held, first = _run(found, lockfile.empty())
    again, second = _run(found, held)
    release = {"version": "44.20260801.3.0", "commits": [{"architecture": "x86_64"}, {"architecture": "aarch64"}]}
    found[fedora_coreos.releases_url("stable")] = json.dumps({**index, "releases": [*index["releases"], release]}).encode()
    for arch in ("x86_64", "aarch64"):
        _describe(found, "stable", "44.20260801.3.0", arch)
    _, third = _run(found, again)
    feeds = 3 * len(STREAMS) + 4 + 4 * 2 + 7
    builds = sum(len(p.releases) for p in held.pending if p.os == "fedora-coreos")
    print(f"\n{feeds} feeds, {builds} builds of Fedora CoreOS")
    print(f"requests of a first update {first}, of a second {second}, after a release on two architectures {third}")
    print(f"requests a feed {second / feeds:.2f}, for each new build {third - second:.0f} / 2")
    if (first, second, third) != (feeds + builds, feeds, feeds + 2):
        sys.exit("a refresh asks more than once a feed and once a new build")


def _describe(found: dict[str, bytes], stream: str, version: str, arch: str) -> None:
    url = fedora_coreos.commitmeta_url(stream, version, "amd64" if arch == "x86_64" else "arm64")
    found[url] = json.dumps({"version": version, "ostree.linux": f"6.19.{version[4:8]}-200.fc44.{arch}"}).encode()


def _run(found: dict[str, bytes], old: Lock) -> tuple[Lock, int]:
    server = Held(found)
    wishes = versions_toml.parse(POLICY)
    result = update(wishes, old, server, Archives(wishes, {}, Path("/none")), today=datetime.date(2026, 11, 24))
    if result.problems:
        sys.exit("\n".join(result.problems))
    return result.lock, server.requests


if __name__ == "__main__":
    recorded = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/upstream")
    measure(recorded)
    requests(recorded)
