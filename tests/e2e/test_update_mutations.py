"""A mutation run: 500 spoilt feeds and locks from a fixed seed. No traceback, no list that shrinks in silence.

The feeds are the recorded ones, Flatcar's cut to its newest releases so that a run takes a fraction of a second.
"""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.commands.update import Update
from pipeline.cli.workspace import Workspace
from pipeline.config import lockfile
from pipeline.config.records import Lock
from pipeline.core.errors import BadFileError, NotFoundError
from pipeline.core.versions import DriverVersion, numbers_of
from pipeline.fetch.apt_sources import Archives
from pipeline.fetch.fetcher import Fetcher
from pipeline.update.run import Result, update
from pipeline.upstream.coreos import flatcar
from pipeline.upstream.nvidia import feeds
from tests.recorded_upstream import ENDS, Held, documents
from tests.samples import wishes

pytestmark = [pytest.mark.e2e, pytest.mark.full, pytest.mark.area("coreos")]
SEED = 20261124
FEEDS, LOCKS = 380, 120
POLICY = """
[fedora-coreos]
[flatcar]
[nvidia]
cuda = ["12.9.1"]
[nvidia.reasons]
535 = "hosts run it"
[[nvidia.exact]]
version = "580.178.04"
reason = "wished by hand"
"""
NASTY = ["$(reboot)", "../../x", "", "x\n", "4593.2.5", "\u2603", "9" * 400, "999.999.999", "2026-99-99", "current", "-1"]
JUNK: list[Any] = [None, True, -1, 1e308, [], {}, *NASTY]


@pytest.fixture(scope="module")
def sound(shared: Path) -> dict[str, bytes]:
    found = documents(shared / "upstream")
    found[feeds.END_OF_LIFE_URL] = ENDS
    found[feeds.latest_url("arm64")] = found[feeds.latest_url("amd64")].replace(b"x86_64", b"aarch64")
    for channel in ("stable", "beta", "alpha", "lts"):
        url = flatcar.feed_url(channel)
        feed = json.loads(found[url])
        newest = sorted((v for v in feed if v[0].isdigit()), key=numbers_of)[-12:]
        kept = {k: {**e, "release_notes": ""} for k, e in feed.items() if k in newest or k.startswith("current")}
        found[url] = json.dumps(kept).encode()
    asked = Held(found)
    run(asked, lockfile.empty())
    return found


def run(server: Held, old: Lock) -> Result:
    wanted = wishes(POLICY)
    return update(wanted, old, server, Archives(wanted, {}, Path("/none")), today=datetime.date(2026, 11, 24))


class Offline(Fetcher):
    """A fetcher whose feeds come out of a dictionary, and to whom every other file is 404."""

    def __init__(self, found: dict[str, bytes], cache: Path) -> None:
        super().__init__(cache)
        self._held = Held(found)

    def get(self, url: str, *, max_bytes: int = 64 << 20, immutable: bool = False) -> bytes:
        return self._held.get(url, max_bytes=max_bytes, immutable=immutable)

    def persist(self, url: str, once: Callable[[], Any]) -> Any:
        raise NotFoundError(f"{url}: 404 Not Found", hint="it was not recorded")


# Ways to spoil a document


def cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def hole(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + data[at + dice.randrange(1, 2_000) :]


def flip(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]


def twice(data: bytes, dice: random.Random) -> bytes:
    at, size = dice.randrange(len(data)), dice.randrange(1, 4_000)
    return data[: at + size] + data[at:]


def digits(data: bytes, dice: random.Random) -> bytes:
    places = [n for n, byte in enumerate(data[:200_000]) if 48 <= byte <= 57]
    if not places:
        return data
    at = dice.choice(places)
    return data[:at] + str(dice.randrange(10)).encode() + data[at + 1 :]


def junk(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + dice.choice(NASTY).encode() + data[at:]


def _place(value: Any, dice: random.Random) -> tuple[Any, Any]:
    """A container somewhere inside ``value``, and a key of it."""
    while True:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = dice.choice(list(keys))
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or dice.random() < 0.25:
            return value, key
        value = inner


def structured(change: Callable[[Any, Any, random.Random], None]) -> Callable[[bytes, random.Random], bytes]:
    def spoil(data: bytes, dice: random.Random) -> bytes:
        try:
            value = json.loads(data)
        except ValueError:
            return junk(data, dice)
        if isinstance(value, dict | list) and value:
            change(*_place(value, dice), dice)
        return json.dumps(value).encode()

    return spoil


def _drop(value: Any, key: Any, dice: random.Random) -> None:
    del value[key]


def _replace(value: Any, key: Any, dice: random.Random) -> None:
    value[key] = dice.choice(JUNK)


def _empty(value: Any, key: Any, dice: random.Random) -> None:
    value[key] = type(value[key])() if value[key] is not None else 0


def _halve(value: Any, key: Any, dice: random.Random) -> None:
    names = list(value) if isinstance(value, dict) else list(range(len(value)))[::-1]
    for name in names[: len(names) // 2]:
        del value[name]


def shrunk(data: bytes, dice: random.Random) -> bytes:
    """The same kind of document with a fraction of its releases, as a mirror in a bad minute gives it."""
    try:
        value = json.loads(data)
    except ValueError:
        return data
    if isinstance(value, dict) and isinstance(value.get("releases"), list):
        value["releases"] = value["releases"][: dice.randrange(1, 20)]
    elif isinstance(value, dict):
        value = dict(list(value.items())[: dice.randrange(1, 4)])
    return json.dumps(value).encode()


WAYS = [cut, hole, flip, twice, digits, junk, shrunk, *map(structured, (_drop, _replace, _empty, _halve))]


# What must hold after each


def gone_without_a_reason(old: Lock, result: Result) -> list[str]:
    """What the new lock lacks though nothing that came or was said accounts for it."""
    new = result.lock
    said = "\n".join([*result.reports, *result.problems])
    now = {(p.os, r.channel, r.version, p.arch) for p in new.pending for r in p.releases}
    lost: list[str] = []
    for entry in old.pending:
        for release in entry.releases:
            key = (entry.os, release.channel, release.version, entry.arch)
            if key in now:
                continue
            newer = [k for k in now if (k[0], k[1], k[3]) == (key[0], key[1], key[3]) and numbers_of(k[2]) > numbers_of(key[2])]
            if len(newer) < 3:
                lost.append(" ".join(key))
    for version, arch in {(d.version, d.arch) for d in old.pending_drivers} - {(d.version, d.arch) for d in new.pending_drivers}:
        branch = DriverVersion(version).branch
        newer_ones = [d for d in new.pending_drivers if DriverVersion(d.version) > DriverVersion(version)]
        if not any(DriverVersion(d.version).branch == branch for d in newer_ones) and branch not in said:
            lost.append(f"{version}/{arch}")
    return lost


def test_spoilt_feeds_raise_nothing_and_lose_nothing(sound: dict[str, bytes]) -> None:
    held = lockfile.parse(lockfile.dump(run(Held(sound), lockfile.empty()).lock))
    assert len(held.pending) == 14
    named = refused = 0
    for number in range(FEEDS):
        dice = random.Random(SEED + number)
        spoilt = dict(sound)
        for url in dice.sample(sorted(sound), dice.choice([1, 1, 1, 2, 5])):
            for _ in range(dice.choice([1, 1, 3])):
                spoilt[url] = dice.choice(WAYS)(spoilt[url], dice) or b" "
        result = run(Held(spoilt), held)
        data = lockfile.dump(result.lock)
        assert lockfile.parse(data) == result.lock, number
        assert not any(text.strip() and text in data.decode() for text in ("$(", "../", "\u2603")), number
        assert gone_without_a_reason(held, result) == [], f"seed {SEED + number}"
        for line in (*result.problems, *result.reports):
            assert "\n" not in line, number
        named += bool(result.problems)
        refused += any("'doit update --accept-fewer' if that is right" in line for line in result.problems)
        mended = run(Held(sound), result.lock)
        assert mended.problems == [], f"seed {SEED + number}"
        assert gone_without_a_reason(held, mended) == [], f"seed {SEED + number}"
    assert named > FEEDS // 4
    assert refused > 3


@pytest.mark.parametrize("answers", ["all", "none", "some"])
def test_a_spoilt_lock_is_one_line_or_an_update_and_is_never_lost_to_an_error(
    sound: dict[str, bytes], tmp_path: Path, answers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "versions.lock"
    (tmp_path / "versions.toml").write_text(POLICY.replace("[fedora-coreos]", "[fedora-coreos]\nimages = false"))

    def do(served: dict[str, bytes]) -> int:
        space = Workspace(tmp_path, {"DRIVER_CACHE": str(tmp_path / "cache")})
        space.__dict__["fetcher"] = Offline(served, tmp_path / "http")
        return Update().work(space, {option["name"]: option["default"] for option in Update.cmd_options}, [])

    assert do(sound) == 0
    held = place.read_bytes()
    capsys.readouterr()
    unread = 0
    for number in range(LOCKS // 3):
        dice = random.Random(f"{SEED} {answers} {number}")
        spoilt = dice.choice(WAYS)(held, dice) or b" "
        place.write_bytes(spoilt)
        served = {"all": sound, "none": {}, "some": {u: d for u, d in sound.items() if "flatcar" in u}}[answers]
        status = do(served)
        said = capsys.readouterr()
        assert status in ((0, 2) if answers == "all" else (2,)), number
        assert all(line.startswith("doit: ") for line in said.err.splitlines()), number
        after = place.read_bytes()
        try:
            before = lockfile.parse(spoilt)
        except BadFileError:
            unread += 1
            if status == 2:
                assert after == spoilt, number
                continue
            assert lockfile.parse(after) == lockfile.parse(held), number
            continue
        assert lockfile.parse(after).schema == 1
        if answers == "none":
            kept = {(p.os, r.version) for p in lockfile.parse(after).pending for r in p.releases}
            policy = {"fedora-coreos": {"stable", "testing", "next"}, "flatcar": {"stable", "beta", "alpha", "lts"}}
            of_policy = {(p.os, r.version) for p in before.pending for r in p.releases if r.channel in policy.get(p.os, set())}
            assert kept == of_policy, number
    assert unread > 5


def test_a_real_fetcher_is_such_a_server(tmp_path: Path) -> None:
    """What stands in for it above has no other face than it has."""
    fetcher = Fetcher(tmp_path)
    assert {name for name in vars(Held) if not name.startswith("_")} <= {name for name in dir(fetcher) if name[0] != "_"}
