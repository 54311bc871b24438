"""The recorded upstream documents under the vendors' own paths on loopback, reached through DRIVER_MIRRORS.

with MisbehavingServer() as server:
    serve(server, documents(folder))
    mirrors(server, tmp_path / "mirrors.toml")

What was not recorded is 404: ``commitmeta.json`` of any build, NVIDIA's arm64 ``latest.txt``, the table of ends of life. The
release index of Fedora CoreOS is DERIVED from the list of releases ever seen in its streams; ``version.txt`` of a Flatcar
channel is the file of its source tree; the data-centre feed is a subset of 2024. Run as a program it serves until its
standard input ends: ``python -m tests.recorded_upstream mirrors.toml``.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline.config.records import Arch
from pipeline.core.errors import NetworkError, NotFoundError
from pipeline.upstream.coreos import container_linux, fedora_coreos, flatcar
from pipeline.upstream.nvidia import downloads, feeds
from tests.misbehaving_server import Answer, MisbehavingServer, file

STREAMS = ("stable", "testing", "next")
ARCHES: tuple[Arch, ...] = ("amd64", "arm64")
HOSTS = (
    "builds.coreos.fedoraproject.org",
    "www.flatcar.org",
    *(f"{channel}.release.flatcar-linux.net" for channel in ("stable", "beta", "alpha", "lts")),
    "coreos.com",
    "docs.nvidia.com",
    "download.nvidia.com",
    "developer.download.nvidia.com",
    "people.freedesktop.org",
    "raw.githubusercontent.com",
    "endoflife.date",
)
_VERSION_FILES = {"stable": "stable-4593.2.5", "beta": "beta-4757.1.0", "alpha": "alpha-4790.0.0", "lts": "lts-4081.3.10"}
ENDS = json.dumps(
    [
        {"cycle": "r580-linux", "eol": "2028-08-31"},
        {"cycle": "r550-linux", "eol": "2026-12-31"},
        {"cycle": "r535-linux", "eol": "2026-06-30"},
        {"cycle": "r525-linux", "eol": True},
        {"cycle": "r515-linux", "eol": True},
    ]
).encode()
"""Synthetic, in the form of endoflife.date's table, which was not recorded; the days are made up."""


def documents(upstream: Path) -> dict[str, bytes]:
    """URL to bytes for everything recorded that ``doit update`` reads, out of the folder ``shared/upstream``."""
    found: dict[str, bytes] = {}
    for stream in STREAMS:
        found[fedora_coreos.stream_url(stream)] = (upstream / f"fcos/streams/{stream}.json").read_bytes()
        found[fedora_coreos.updates_url(stream)] = (upstream / f"fcos/updates/{stream}.json").read_bytes()
        found[fedora_coreos.releases_url(stream)] = _index(upstream / "fcos/history/releases-seen.csv", stream)
    for path in sorted((upstream / "flatcar/releases-json").iterdir()):
        found[f"{flatcar.FEEDS}/{path.name}"] = path.read_bytes()
    for channel, name in _VERSION_FILES.items():
        text = (upstream / f"flatcar/version-txt/{name}.version.txt").read_bytes()
        for arch in ARCHES:
            found[flatcar.file_url(channel, arch, "current", "version.txt")] = text
    found[container_linux.FEED] = (upstream / "coreos-legacy/releases-stable.notes-elided.json").read_bytes()
    nvidia = upstream / "nvidia"
    found[feeds.DATA_CENTRE_URL] = (nvidia / "datacenter-releases/filtered_releases.json").read_bytes()
    found[feeds.UNOFFICIAL_URL] = (nvidia / "versions/nvidia-versions.txt").read_bytes()
    found[feeds.NEWEST_URL] = (nvidia / "eol/endoflife-release-data-nvidia-driver.json").read_bytes()
    found[feeds.latest_url("amd64")] = (nvidia / "latest-txt/latest.txt.quoted-550.120").read_bytes()
    fragment = nvidia / "redistrib/redistrib_12.9.1.nvidia_driver-fragment.json"
    found[downloads.redist_manifest_url("12.9.1")] = fragment.read_bytes()
    return found


def _index(seen: Path, stream: str) -> bytes:
    """The release index that the releases ever seen in a stream make, in the index's format."""
    arches: dict[str, list[str]] = {}
    with seen.open(newline="") as lines:
        for row in csv.DictReader(lines):
            if row["stream"] == stream:
                arches.setdefault(row["release"], []).append(row["arch"])
    releases = [{"version": v, "commits": [{"architecture": a, "checksum": ""} for a in names]} for v, names in arches.items()]
    return json.dumps({"stream": stream, "releases": releases}).encode()


def path_of(url: str) -> str:
    """Where the loopback server has what the vendor has at ``url``."""
    return "/" + url.removeprefix("https://")


def serve(server: MisbehavingServer, found: Mapping[str, bytes]) -> None:
    """Answer for every one of ``found`` as a good server does, with an ETag."""
    for url, data in found.items():
        server.says(path_of(url), good(data))


def good(data: bytes) -> Answer:
    """``data`` with an ETag of its own."""
    return file(data, etag=f'"{hashlib.sha256(data).hexdigest()[:16]}"')


def mirrors(server: MisbehavingServer, path: Path) -> Path:
    """Write ``path``, a file for DRIVER_MIRRORS that maps every vendor to ``server``."""
    lines = [f'"https://{host}" = "{server.base}/{host}"' for host in HOSTS]
    path.write_text("\n".join(["[mirrors]", *lines, ""]))
    return path


class Held:
    """Answers out of a dictionary, for runs that are too many for sockets: what it lacks is 404, nothing is cached."""

    def __init__(self, found: Mapping[str, bytes]) -> None:
        self.found = dict(found)
        self.requests = 0

    def get(self, url: str, *, max_bytes: int = 64 << 20, immutable: bool = False) -> bytes:
        """The document at ``url``."""
        self.requests += 1
        if url not in self.found:
            raise NotFoundError(f"{url}: 404 Not Found", hint="it was not recorded")
        if len(self.found[url]) > max_bytes:
            raise NetworkError(f"{url}: more than {max_bytes} bytes", hint="not read")
        return self.found[url]

    def forget(self, url: str) -> None:
        """Nothing is kept."""


if __name__ == "__main__":
    with MisbehavingServer() as running:
        serve(running, documents(Path(__file__).parents[2] / "shared" / "upstream"))
        mirrors(running, Path(sys.argv[1]))
        print(running.base, flush=True)
        sys.stdin.read()
