"""``doit update`` over the recorded feeds of the CoreOS vendors and NVIDIA, served on loopback through DRIVER_MIRRORS.

The feeds are REAL but for the release index of Fedora CoreOS (DERIVED, see recorded_upstream) and the days on which
branches end (synthetic). No ``commitmeta.json`` was recorded: those here are synthetic, around a QUOTED entry.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest

from pipeline.config import lockfile
from pipeline.config.records import Driver, Kernel, Lock, Pending
from pipeline.core.errors import BadFileError
from pipeline.fetch import mirrors as mirror_files
from pipeline.fetch.apt_sources import Archives
from pipeline.fetch.fetcher import Fetcher
from pipeline.update.families import flatcar as flatcar_family
from pipeline.update.pinning import pin
from pipeline.update.pinning.context import Means, Unpinned
from pipeline.update.report import describe, summary
from pipeline.update.run import Result, update
from pipeline.upstream.coreos import fedora_coreos, flatcar
from pipeline.upstream.nvidia import feeds
from pipeline.upstream.nvidia.selection import Chosen
from pipeline.upstream.records import Release
from tests import samples
from tests.misbehaving_server import MisbehavingServer, cut, hangs_up, html_page, raw, redirect, status, zeros
from tests.recorded_upstream import ENDS, documents, good, mirrors, path_of, serve
from tests.samples import wishes

TODAY = datetime.date(2026, 11, 24)
POLICY = """
[fedora-coreos]
[flatcar]
[nvidia]
cuda = ["12.9.1"]
[nvidia.reasons]
535 = "hosts run it"
"""
STABLE = flatcar.feed_url("stable")
UPDATES = fedora_coreos.updates_url("stable")
COMMITMETA = fedora_coreos.commitmeta_url("stable", "44.20260707.3.1", "amd64")


@dataclass
class World:
    """The vendors' servers, who reads them, and what is wanted."""

    server: MisbehavingServer
    documents: dict[str, bytes]
    fetcher: Fetcher
    folder: Path
    policy: str = POLICY
    start: Lock = field(default_factory=lockfile.empty)

    def update(self, old: Lock | None = None, *, accept_fewer: bool = False) -> Result:
        wanted = wishes(self.policy)
        return update(
            wanted,
            old or self.start,
            self.fetcher,
            Archives(wanted, {}, self.folder / "no-apt"),
            today=TODAY,
            accept_fewer=accept_fewer,
        )

    def first(self) -> Lock:
        """The lock of an undisturbed first run, as read back from its file."""
        result = self.update()
        assert result.problems == []
        return lockfile.parse(lockfile.dump(result.lock))

    def says(self, url: str, data: bytes) -> None:
        """From now on ``url`` holds ``data``."""
        self.server.says(path_of(url), good(data))

    def asked(self) -> list[str]:
        """Paths of all requests since the last call."""
        paths = [request.path for request in self.server.requests]
        self.server.requests.clear()
        return paths


@pytest.fixture(scope="module")
def recorded(shared: Path) -> dict[str, bytes]:
    found = documents(shared / "upstream")
    found[feeds.END_OF_LIFE_URL] = ENDS
    latest = found[feeds.latest_url("amd64")]
    found[feeds.latest_url("arm64")] = latest.replace(b"x86_64", b"aarch64")
    return found


@pytest.fixture
def world(server: MisbehavingServer, recorded: dict[str, bytes], tmp_path: Path) -> World:
    serve(server, recorded)
    told = mirror_files.load(str(mirrors(server, tmp_path / "mirrors.toml")))
    fetcher = Fetcher(tmp_path / "http", mirrors=told, sleep=lambda seconds: None, log=lambda line: None)
    return World(server, recorded, fetcher, tmp_path)


def pending(held: Lock, os: str, arch: str = "amd64") -> dict[str, Pending]:
    return {p.kernel: p for p in held.pending if (p.os, p.arch) == (os, arch)}


def releases(entry: Pending | Kernel) -> list[str]:
    return [f"{r.channel} {r.version}" for r in entry.releases]


def commitmeta(
    version: str = "44.20260707.3.1", kernel: str = "6.19.5", release: str = "300.fc44", arch: str = "x86_64"
) -> bytes:
    """Synthetic: the documented fields of a build's metadata; its entry has the form of the quoted one."""
    packages = [["kernel-core", "0", kernel, release, arch], ["kernel", "0", kernel, release, arch]]
    return json.dumps({"version": version, "rpmostree.rpmdb.pkglist": packages}).encode()


# What the recorded feeds give


def test_every_flatcar_kernel_of_the_recorded_feeds_is_pending_with_all_its_releases_and_the_reason(world: World) -> None:
    held = world.first()
    for arch in ("amd64", "arm64"):
        found = pending(held, "flatcar", arch)
        assert {kernel: releases(entry) for kernel, entry in found.items()} == {
            "6.6.141-flatcar": ["lts 4081.3.8"],
            "6.6.144-flatcar": ["lts 4081.3.9"],
            "6.6.150-flatcar": ["lts 4081.3.10"],
            "6.12.93-flatcar": ["alpha 4722.0.0", "beta 4694.1.0", "stable 4593.2.3"],
            "6.12.95-flatcar": ["alpha 4757.0.0", "beta 4722.1.0", "stable 4593.2.4"],
            "6.12.102-flatcar": ["alpha 4790.0.0", "beta 4757.1.0", "stable 4593.2.5"],
        }
        assert {entry.reason for entry in found.values()} == {
            "no fingerprint of Flatcar's signing key in [flatcar] keys: its developer container could not be checked"
        }
    newest = pending(held, "flatcar")["6.12.102-flatcar"]
    assert newest.releases[-1].os_tag == "flatcar4593.2.5"
    assert newest.see.endswith("/amd64-usr/4790.0.0/flatcar_developer_container.bin.bz2")


def test_both_releases_of_a_rollout_are_there_and_without_a_kernel_they_wait_under_one_reason(world: World) -> None:
    held = world.first()
    assert list(pending(held, "fedora-coreos")) == [""]
    waiting = pending(held, "fedora-coreos")[""]
    assert {"stable 44.20260621.3.1", "stable 44.20260707.3.1"} <= set(releases(waiting))
    assert len(waiting.releases) == 9
    assert waiting.releases[0].os_tag == "fedora44"
    assert waiting.reason.startswith("its kernel is not known")


def rolled_out(held: Lock) -> set[str]:
    entries: tuple[Kernel | Pending, ...] = (*held.kernels, *held.pending)
    return {f"{e.arch} {r.channel} {r.version}" for e in entries for r in e.releases if r.rollout}


def of_stable(held: Lock) -> set[str]:
    return {name for name in rolled_out(held) if " stable " in name}


def updates_with(world: World, **rollout: float) -> bytes:
    """The recorded update metadata of stable with the rollout of its newest release as given, and no other; none for none."""
    document = json.loads(world.documents[UPDATES])
    for release in document["releases"]:
        release["metadata"].pop("rollout", None)
        if rollout and release["version"] == "44.20260707.3.1":
            release["metadata"]["rollout"] = rollout
    return json.dumps(document).encode()


def test_the_lock_says_which_releases_are_rolled_out_as_the_recorded_feeds_have_it(world: World) -> None:
    versions = {
        "stable": ("44.20260621.3.1", "44.20260707.3.1"),
        "testing": ("44.20260707.2.1", "44.20260720.2.1"),
        "next": ("44.20260707.1.1", "44.20260720.1.1"),
    }
    held = world.first()
    assert rolled_out(held) == {f"{a} {s} {v}" for a in ("amd64", "arm64") for s, both in versions.items() for v in both}
    assert lockfile.dump(held).count(b'"rollout": true') == 12
    assert b'"rollout": false' not in lockfile.dump(held)


def test_how_far_a_rollout_is_changes_nothing_and_its_end_is_a_change_that_is_told(world: World) -> None:
    world.says(UPDATES, updates_with(world, start_epoch=1784728800, start_percentage=0.0, duration_minutes=2880))
    held = world.first()
    assert of_stable(held) == {"amd64 stable 44.20260707.3.1", "arm64 stable 44.20260707.3.1"}
    world.says(UPDATES, updates_with(world, start_epoch=1784900000, start_percentage=0.75, duration_minutes=60))
    assert lockfile.dump(world.update(held).lock) == lockfile.dump(held)
    world.says(UPDATES, updates_with(world))
    ended = world.update(held)
    assert of_stable(ended.lock) == set()
    told = [line for line in describe(held, ended.lock) if "fedora-coreos" in line]
    assert told
    assert all("stable 44.20260707.3.1 (in rollout)" in line for line in told)


def test_while_the_feed_of_rollouts_fails_what_it_said_last_stands(world: World) -> None:
    held = world.first()
    world.server.says(path_of(UPDATES), status(503))
    failed = world.update(held)
    assert any("fedora-coreos stable" in line for line in failed.problems)
    assert rolled_out(failed.lock) == rolled_out(held)


def test_a_rollout_that_is_no_yes_or_no_is_refused(world: World) -> None:
    data = lockfile.dump(world.first())
    with pytest.raises(BadFileError, match="rollout"):
        lockfile.parse(data.replace(b'"rollout": true', b'"rollout": "soon"', 1))


def test_a_build_whose_metadata_has_the_kernel_is_asked_once_and_never_again(world: World) -> None:
    world.says(COMMITMETA, commitmeta())
    held = world.first()
    entry = pending(held, "fedora-coreos")["6.19.5-300.fc44.x86_64"]
    assert releases(entry) == ["stable 44.20260707.3.1"]
    assert entry.see.endswith("/kernel/6.19.5/300.fc44/x86_64/kernel-devel-6.19.5-300.fc44.x86_64.rpm")
    assert path_of(COMMITMETA) in world.asked()
    again = world.update(held)
    assert path_of(COMMITMETA) not in world.asked()
    assert lockfile.dump(again.lock) == lockfile.dump(held)


def test_the_drivers_are_the_newest_of_each_supported_branch_pending_with_their_sources(world: World) -> None:
    held = world.first()
    assert [(d.version, d.arch, d.sources) for d in held.pending_drivers] == [
        ("535.161.08", "amd64", ("data-centre",)),
        ("535.161.08", "arm64", ("data-centre",)),
        ("550.54.15", "amd64", ("data-centre",)),
        ("550.54.15", "arm64", ("data-centre",)),
    ]
    assert held.pending_drivers[0].see == ("https://us.download.nvidia.com/tesla/535.161.08/NVIDIA-Linux-x86_64-535.161.08.run")
    assert {entry.drivers for entry in held.pending} == {("535.161.08", "550.54.15")}


def test_what_is_newer_than_policy_and_what_has_ended_is_reported_and_not_guessed(world: World) -> None:
    reports = world.update().reports
    assert "nvidia support has ended, not taken: 515, 525; a reason in 'reasons' takes one all the same" in reports
    assert any(line.startswith("nvidia 575: 575.57.08 is out and not taken: no source says when") for line in reports)
    (said,) = (line for line in reports if "said to be out" in line)
    assert said.endswith("550.163.01, 560.35.03, 565.57.01, 570.211.01, 580.178.04, 590.48.01, 595.91.07, 610.57.04")


def test_a_refresh_is_one_request_a_feed_and_one_for_each_release_never_seen_before(world: World) -> None:
    for stream, version, arch in (("stable", "44.20260707.3.1", "amd64"), ("stable", "44.20260707.3.1", "arm64")):
        rpm = {"amd64": "x86_64", "arm64": "aarch64"}[arch]
        world.says(fedora_coreos.commitmeta_url(stream, version, arch), commitmeta(version, arch=rpm))  # type: ignore[arg-type]
    held = world.first()
    asked = world.asked()
    assert len(asked) == len(set(asked)) == 9 + 18 + 4 + 8 + 7
    world.update(held)
    again = world.asked()
    assert len(again) == len(set(again)) == 9 + 16 + 4 + 8 + 6  # 16 builds still unknown; the redist manifest never changes


def test_a_second_run_changes_no_byte_though_the_feeds_are_written_in_another_order(world: World) -> None:
    held = world.first()
    for url in (STABLE, feeds.DATA_CENTRE_URL):
        turned = dict(reversed(json.loads(world.documents[url]).items()))
        world.says(url, json.dumps(turned).encode())
    result = world.update(held)
    assert (result.changes, result.problems) == ([], [])
    assert lockfile.dump(result.lock) == lockfile.dump(held)


def test_the_summary_tells_what_came_why_it_waits_and_what_to_know_and_fits_a_pull_request(world: World) -> None:
    result = world.update()
    text = summary(result.lock, result.changes, result.reports, result.problems)
    assert text.startswith("### Came\n\n- pending driver 535.161.08/amd64\n")
    assert "- pending kernel flatcar/arm64:6.6.150-flatcar (lts 4081.3.10)\n" in text
    assert "### Pending, and why\n" in text
    assert "- nvidia: its archive has not been downloaded, checked and pinned: 535.161.08 amd64, 535.161.08 arm64, 550" in text
    assert text.endswith("pinned: 0 kernels and 0 drivers; pending: 14 kernels and 4 drivers.\n")
    assert len(text) < 8_000


def test_a_summary_of_thousands_of_lines_is_cut_where_a_pull_request_ends() -> None:
    changes = [f"+ kernel flatcar/amd64:6.12.{n}-flatcar ({'x' * 900})" for n in range(5_000)]
    text = summary(lockfile.empty(), changes, changes, changes)
    assert text.count("- … and 4981 more") == 3
    assert len(text) <= 65_536


# Policy


def test_nothing_is_asked_of_a_source_without_a_table(world: World) -> None:
    world.policy = "[fedora-coreos]\nstreams = ['stable']\nkeep = 1\narches = ['amd64']\n"
    held = world.first()
    assert {path.split("/")[1] for path in world.asked()} == {"builds.coreos.fedoraproject.org"}
    assert [p.os for p in held.pending] == ["fedora-coreos"]


def test_container_linux_is_off_until_it_is_enabled_with_a_reason(world: World) -> None:
    world.policy = "[container-linux]\nkeep = 2\n"
    assert world.first() == lockfile.empty()
    assert world.asked() == []
    world.policy = "[container-linux]\nenabled = true\nreason = 'a lab still runs it'\nkeep = 2\n"
    (entry,) = world.first().pending
    assert releases(entry) == ["stable 2023.5.0", "stable 2079.3.0"]
    assert "say in [container-linux] kernels" in entry.reason
    world.policy += "[container-linux.kernels]\n'2079.3.0' = '4.19.34-coreos'\n"
    assert sorted(p.kernel for p in world.first().pending) == ["", "4.19.34-coreos"]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("[flatcar]\nkeep = -1", r"Expected `int` >= 0 - at `\$.flatcar.keep`"),
        ("[flatcar]\nchannels = ['edge']", "channel edge has ended: say in `reason`"),
        ("[fedora-coreos]\nstreams = ['rawhide']", r"at `\$.fedora-coreos.streams\[0\]`"),
        ("[container-linux]\nenabled = true", "say in `reason` why it is still wanted"),
        ("[nvidia]\nsources = ['unofficial']", "is a hint, not a source"),
        ("[[flatcar.keys]]\nfingerprint = 'F88CFEDE'\nsource = 'https://a.example'", r"at `\$.flatcar.keys\[0\].fingerprint`"),
        ("[nvidia]\ncuda = ['../12']", r"at `\$.nvidia.cuda\[0\]`"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_an_error_with_its_place_and_nothing_is_asked(
    world: World, policy: str, message: str
) -> None:
    world.policy = policy
    with pytest.raises(BadFileError, match=message):
        world.update()
    assert world.asked() == []


def test_a_channel_that_policy_no_longer_names_goes_and_is_said_to(world: World) -> None:
    held = world.first()
    world.policy = POLICY.replace("[flatcar]", "[flatcar]\nchannels = ['stable', 'beta', 'alpha']")
    result = world.update(held)
    assert result.problems == []
    gone = [line for line in result.changes if line.startswith("-")]
    assert len(gone) == 6
    assert gone[-1] == "- pending kernel flatcar/arm64:6.6.150-flatcar: no longer wanted"


def test_since_reaches_further_back_than_keep(world: World) -> None:
    world.policy = "[flatcar]\nchannels = ['stable']\narches = ['amd64']\nkeep = 1\nsince = 2026-01-01\n"
    held = world.first()
    feed = json.loads(world.documents[STABLE])
    later = {v for v, entry in feed.items() if v[0].isdigit() and entry["release_date"] >= "2026-01-01"}
    assert {r.version for p in held.pending for r in p.releases} == later
    assert len(later) == 8
    again = world.update(held)
    assert (again.changes, again.reports, again.problems) == ([], [], [])


# Sources that fail or fall silent


BREAKAGES = {
    "404": status(404),
    "503 for ever": status(503),
    "no answer at all": hangs_up(),
    "a web page with 200": html_page(),
    "a cut body": cut(b'{"stream": "stable"}' * 100, 700),
    "a wrong length": raw(200, {"Content-Length": "10"}, b'{"stream": "stable", "releases": []}'),
    "a redirect loop": redirect("/loop"),
    "10 MB of zeros": zeros(10_000_000),
    "truncated JSON": good(b'{"stream": "stable", "architectures": {"x86_64": {'),
    "twin keys": good(b'{"stream": "stable", "stream": "stable"}'),
    "another type": good(b'[{"stream": 7}]'),
    "nothing": good(b""),
    "an empty object": good(b"{}"),
}


FEEDS = (
    (STABLE, "flatcar stable"),
    (fedora_coreos.stream_url("stable"), "fedora-coreos stable"),
    (fedora_coreos.updates_url("testing"), "fedora-coreos testing"),
    (fedora_coreos.releases_url("next"), "fedora-coreos next"),
    (flatcar.feed_url("lts"), "flatcar lts"),
    (feeds.DATA_CENTRE_URL, "nvidia"),
    (feeds.END_OF_LIFE_URL, "nvidia"),
)
# Every way in which one feed can be wrong, and of the others three each, in turn: a test is a whole update of every source.
WRONG_FEEDS = [
    pytest.param(url, named, breakage, id=f"{url}-{breakage}")
    for at, (url, named) in enumerate(FEEDS)
    for number, breakage in enumerate(BREAKAGES)
    if at == 0 or number % (len(BREAKAGES) // 3) == at % (len(BREAKAGES) // 3)
]


@pytest.mark.parametrize(("url", "named", "breakage"), WRONG_FEEDS)
def test_a_feed_that_is_not_right_is_named_and_the_lock_keeps_every_byte(
    world: World, url: str, named: str, breakage: str
) -> None:
    world.policy = POLICY.replace("[flatcar]", "[flatcar]\nchannels = ['stable', 'lts']\nahead = false")
    held = world.first()
    world.server.says("/loop", redirect(path_of(url)))
    world.server.says(path_of(url), BREAKAGES[breakage])
    result = world.update(held)
    assert result.problems
    assert all(problem.startswith(named) and url in problem for problem in result.problems)
    assert "kept" in result.problems[0]
    assert result.changes == []
    assert lockfile.dump(result.lock) == lockfile.dump(held)
    world.says(url, world.documents[url])
    mended = world.update(held)
    assert (mended.problems, mended.changes) == ([], [])


def test_all_servers_dead_keeps_everything_and_names_every_source(world: World) -> None:
    held = world.first()
    for url in world.documents:
        world.server.says(path_of(url), hangs_up())
    result = world.update(held)
    assert {problem.split(" ")[0].rstrip(":") for problem in result.problems} == {"fedora-coreos", "flatcar", "nvidia"}
    assert lockfile.dump(result.lock) == lockfile.dump(held)


def test_what_may_pass_by_itself_is_asked_again_as_the_server_says(world: World) -> None:
    held = world.first()
    data = world.documents[STABLE]
    busy = status(429, {"Retry-After": "7"})
    world.server.says(path_of(STABLE), busy, status(500), cut(data, 5_000), good(data))
    result = world.update(held)
    assert (result.problems, result.changes) == ([], [])


@pytest.mark.parametrize("kernel", ["$(reboot)", "../../x", "6.12.1\nRUN x"])
def test_a_kernel_that_is_a_command_or_a_path_never_reaches_the_lock(world: World, kernel: str) -> None:
    held = world.first()
    feed = json.loads(world.documents[STABLE])
    feed["4593.2.5"]["major_software"]["kernel"] = [kernel]
    world.says(STABLE, json.dumps(feed).encode())
    result = world.update(held)
    assert lockfile.dump(result.lock) == lockfile.dump(held)
    assert (result.problems or result.reports)[0].startswith("flatcar")
    world.says(COMMITMETA, json.dumps({"ostree.linux": kernel}).encode())
    assert any(COMMITMETA in problem for problem in world.update().problems)


def test_a_wrong_answer_for_a_published_build_is_not_kept_in_the_cache(world: World) -> None:
    world.server.says(path_of(COMMITMETA), good(b"<html>log in</html>"))
    assert len(world.update().problems) == 1
    world.says(COMMITMETA, commitmeta())
    assert "6.19.5-300.fc44.x86_64" in pending(world.first(), "fedora-coreos")


# Lists that shrink


def without(data: bytes, *versions: str) -> bytes:
    feed = json.loads(data)
    kept = {key: value for key, value in feed.items() if key not in versions and not key.startswith("current")}
    return json.dumps(kept).encode()


def test_one_release_that_is_no_longer_listed_is_kept_and_reported_until_told_otherwise(world: World) -> None:
    held = world.first()
    world.says(STABLE, without(world.documents[STABLE], "4593.2.4"))
    result = world.update(held)
    assert result.problems == []
    assert "flatcar stable 4593.2.4/amd64 is no longer listed; kept ('doit update --accept-fewer' drops it)" in result.reports
    assert "stable 4593.2.4" in releases(pending(result.lock, "flatcar")["6.12.95-flatcar"])
    again = world.update(result.lock)
    assert again.changes == []
    told = world.update(held, accept_fewer=True)
    assert "stable 4593.2.4" not in releases(pending(told.lock, "flatcar")["6.12.95-flatcar"])


def test_a_source_that_lists_far_less_is_refused_until_told_otherwise(world: World) -> None:
    world.policy = POLICY.replace("[flatcar]", "[flatcar]\nahead = false")
    held = world.first()
    feed = world.documents[STABLE]
    versions = sorted((v for v in json.loads(feed) if v[0].isdigit()), key=lambda v: [int(n) for n in v.split(".")])
    world.says(STABLE, without(feed, *versions[-10:]))
    result = world.update(held)
    assert any(line.startswith("flatcar stable: lists 0 of the 6 releases that the lock has of it") for line in result.problems)
    assert lockfile.dump(result.lock) == lockfile.dump(held)
    told = world.update(held, accept_fewer=True)
    assert told.problems == []
    assert "stable 4593.2.5" not in [r for p in told.lock.pending for r in releases(p)]


def test_a_source_that_fails_loses_nothing_even_where_fewer_are_accepted(world: World) -> None:
    held = world.first()
    for url in (STABLE, fedora_coreos.releases_url("next"), feeds.DATA_CENTRE_URL):
        world.server.says(path_of(url), status(404))
    result = world.update(held, accept_fewer=True)
    assert len(result.problems) == 3
    assert lockfile.dump(result.lock) == lockfile.dump(held)


def test_a_release_goes_when_newer_ones_have_taken_its_place(world: World) -> None:
    held = world.first()
    feed = json.loads(world.documents[STABLE])
    feed["4593.2.6"] = {**feed["4593.2.5"], "release_date": "2026-08-30 10:00:00 +0000"}
    world.says(STABLE, json.dumps(feed).encode())
    result = world.update(held)
    assert result.problems == []
    of_stable = {r.version for p in result.lock.pending for r in p.releases if r.channel == "stable" and p.os == "flatcar"}
    assert of_stable == {"4593.2.4", "4593.2.5", "4593.2.6"}
    assert not any("no longer listed" in line for line in result.reports)


def test_a_driver_whose_branch_is_no_longer_listed_is_kept_and_a_lower_one_does_not_replace_it(world: World) -> None:
    held = world.first()
    feed = json.loads(world.documents[feeds.DATA_CENTRE_URL])
    feed["535"]["driver_info"] = [d for d in feed["535"]["driver_info"] if d["release_version"] != "535.161.08"]
    world.says(feeds.DATA_CENTRE_URL, json.dumps(feed).encode())
    result = world.update(held)
    assert result.problems == []
    assert "nvidia 535.161.08 is no longer listed; kept ('doit update --accept-fewer' drops it)" in result.reports
    assert lockfile.dump(result.lock) == lockfile.dump(held)
    told = world.update(held, accept_fewer=True)
    assert [d.version for d in told.lock.pending_drivers if d.arch == "amd64"] == ["535.161.07", "550.54.15"]


def test_drivers_that_all_vanish_at_once_are_refused(world: World) -> None:
    held = world.first()
    feed = json.loads(world.documents[feeds.DATA_CENTRE_URL])
    world.says(feeds.DATA_CENTRE_URL, json.dumps({"515": feed["515"]}).encode())
    result = world.update(held)
    assert any(line.startswith("nvidia: the sources list 0 of the 2 drivers") for line in result.problems)
    assert lockfile.dump(result.lock) == lockfile.dump(held)


def test_a_newer_driver_replaces_the_held_one_of_its_branch(world: World) -> None:
    held = world.first()
    feed = json.loads(world.documents[feeds.DATA_CENTRE_URL])
    newer = json.loads(json.dumps(feed["550"]["driver_info"][0]).replace("550.54.15", "550.90.07"))
    feed["550"]["driver_info"].append(newer)
    world.says(feeds.DATA_CENTRE_URL, json.dumps(feed).encode())
    result = world.update(held)
    assert "+ pending driver 550.90.07/amd64" in result.changes
    assert "- pending driver 550.54.15/amd64: no longer wanted" in result.changes


def test_a_wished_driver_that_no_source_lists_is_pending_and_goes_with_the_wish(world: World) -> None:
    plain = world.policy
    world.policy += "[[nvidia.exact]]\nversion = '580.178.04'\nreason = 'the long-term branch'\n"
    held = world.first()
    waiting = [d for d in held.pending_drivers if d.version == "580.178.04"]
    assert [(d.arch, d.sources, d.reason) for d in waiting] == [
        ("amd64", (), "wished, and no source that was read lists it"),
        ("arm64", (), "wished, and no source that was read lists it"),
    ]
    world.policy = plain
    assert [d for d in world.update(held).lock.pending_drivers if d.version == "580.178.04"] == []


# From pending to pinned: the seam


def pinned_kernel(release: Release, means: Means) -> Kernel | Unpinned:
    """Stands for a pin function: the headers of a Flatcar kernel differ by channel, those of one channel do not."""
    assert release.kernel is not None
    headers = samples.package("flatcar-developer-container", release.channel)
    return samples.kernel(
        release.kernel,
        release.kernel_version,
        os="flatcar",
        arch=release.arch,
        headers=(headers,),
        image=(),
        releases=(samples.kernel().releases[0],),
        drivers=(),
    )


def test_what_a_pin_function_gives_is_merged_by_kernel_and_headers_and_asked_for_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def pinning(release: Release, means: Means) -> Kernel | Unpinned:
        asked.append(f"{release.channel} {release.version}")
        if release.channel == "lts":
            return Unpinned("no container of it")
        return pinned_kernel(release, means)

    world.policy = POLICY.replace("[flatcar]", "[flatcar]\narches = ['amd64']\nchannels = ['stable', 'beta', 'lts']")
    base = samples.a_lock(kernels=(), drivers=())
    monkeypatch.setattr(flatcar_family, "FAMILY", replace(flatcar_family.FAMILY, pin=pinning))
    world.policy += "[debian]\nversion_id = '12'\nkeyring = '/none'\nsuites = [{archive = 'debian', suite = 'x'}]\n"
    world.policy += "toolchain = ['gcc-12']\nbase = ['kmod']\nkernels = []\n"
    (world.folder / "no-apt").mkdir()
    (world.folder / "no-apt/sources.list").write_text(f"deb {world.server.base}/debian x main\n")
    result = world.update(base)
    assert len(result.problems) == 1  # the archive is not there: base and toolchain stay
    held = result.lock
    kernels = {(k.kernel, k.headers[0].version): releases(k) for k in held.kernels}
    assert kernels["6.12.102-flatcar", "stable"] == ["stable 4593.2.5"]
    assert kernels["6.12.102-flatcar", "beta"] == ["beta 4757.1.0"]
    assert len(kernels) == 6
    lts = pending(held, "flatcar")["6.6.150-flatcar"]
    assert (lts.reason, lts.drivers) == ("no container of it", ("535.161.08", "550.54.15"))
    waiting = pending(held, "flatcar")["6.12.102-flatcar"]
    assert (waiting.releases, waiting.reason) == ((), "of its drivers not pinned: 535.161.08, 550.54.15")
    asked.clear()
    again = world.update(held)
    assert set(asked) == {"lts 4081.3.8", "lts 4081.3.9", "lts 4081.3.10"}
    assert lockfile.dump(again.lock) == lockfile.dump(held)
    feed = json.loads(world.documents[STABLE])
    feed["4593.2.6"] = feed["4593.2.5"]
    world.says(STABLE, json.dumps(feed).encode())
    moved = world.update(held).lock
    kernels = {(k.kernel, k.headers[0].version): releases(k) for k in moved.kernels}
    assert kernels["6.12.102-flatcar", "stable"] == ["stable 4593.2.5", "stable 4593.2.6"]
    assert ("6.12.93-flatcar", "stable") not in kernels


def test_a_pin_function_whose_server_fails_leaves_the_entry_pending_with_that_reason(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(release: Release, means: Means) -> Kernel | Unpinned:
        means.get(f"https://stable.release.flatcar-linux.net/{release.version}", True)
        raise AssertionError("it is not there")

    monkeypatch.setattr(flatcar_family, "FAMILY", replace(flatcar_family.FAMILY, pin=failing))
    held = world.first()
    reason = pending(held, "flatcar")["6.12.102-flatcar"].reason
    assert "https://stable.release.flatcar-linux.net/4593.2.5: 404 Not Found" in reason
    assert world.server.base.encode() not in lockfile.dump(held)


def test_a_driver_that_is_pinned_leaves_the_pending_ones(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    held = world.first()

    def pinning(chosen: Chosen, arch: str, means: Means) -> Driver | Unpinned:
        return samples.driver(chosen.version) if arch == "amd64" else Unpinned("not for arm64 yet")

    monkeypatch.setattr(pin, "driver", pinning)
    result = world.update(held)
    assert [(d.version, d.arch) for d in result.lock.pending_drivers] == [("535.161.08", "arm64"), ("550.54.15", "arm64")]
    assert "- pending driver 535.161.08/amd64: pinned now" in result.changes
    assert "+ driver 535.161.08/amd64 (open and proprietary, 2 packages)" in result.changes


def test_a_release_under_two_kernels_of_one_name_is_shown_as_pending_in_the_lock_once(world: World) -> None:
    held = world.first()
    twice = msgspec.structs.replace(held, pending=(*held.pending, held.pending[0]))
    with pytest.raises(BadFileError, match="two entries for pending"):
        lockfile.parse(lockfile.dump(twice))


@pytest.mark.parametrize(
    "wrong",
    [
        ('"6.12.102-flatcar"', '"$(reboot)"'),
        ('"6.12.102-flatcar"', '"../../x"'),
        ('"535.261.03"], "reason', '"535.1"], "reason'),
        ('"not pinned"', '""'),
        ('"flatcar"', '"windows"'),
    ],
)
def test_a_pending_entry_with_an_odd_value_is_a_lock_error(wrong: tuple[str, str]) -> None:
    sound = Pending(os="flatcar", arch="amd64", kernel="6.12.102-flatcar", drivers=("535.261.03",), reason="not pinned")
    data = lockfile.dump(samples.a_lock(pending=(sound,)))
    assert lockfile.parse(data).pending == (sound,)
    spoilt = data.decode().replace(*wrong)
    assert spoilt != data.decode()
    with pytest.raises(BadFileError, match=r"at `\$.pending"):
        lockfile.parse(spoilt.encode())


def test_the_consumer_sites_one_driver_is_a_choice_where_a_policy_names_that_source(world: World) -> None:
    world.policy = """
    [flatcar]
    [nvidia]
    sources = ["consumer"]
    branches = ["550"]
    reasons = {550 = "what desktops get"}
    """
    held = world.first()
    listed = [(d.version, d.arch, d.sources) for d in held.pending_drivers]
    assert listed == [("550.120", "amd64", ("consumer",)), ("550.120", "arm64", ("consumer",))]
    world.server.says(path_of(feeds.latest_url("amd64")), status(500))
    world.server.says(path_of(feeds.latest_url("arm64")), status(500))
    silent = world.update(held)
    assert [line for line in silent.problems if "the drivers chosen before are kept" in line]
    assert [d.version for d in silent.lock.pending_drivers] == ["550.120", "550.120"]


def test_drivers_for_an_os_that_nobody_knows_are_refused(world: World) -> None:
    world.policy = '[nvidia]\nos = ["windows"]\n'
    with pytest.raises(BadFileError, match=r"`\$\.nvidia\.os`: no OS 'windows'"):
        world.update()
