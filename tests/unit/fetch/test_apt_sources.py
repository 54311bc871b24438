"""Where a package archive lies: the environment first, then versions.toml, then the machine's own apt."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.errors import UsageError
from pipeline.fetch.apt_sources import Archives
from tests.samples import wishes

TOML = '[archives]\ndebian = ["https://toml.example/debian", "https://snapshot.example/archive/debian/20260101T000000Z/"]\n'


def archives(root: Path, told: str = "", toml: str = "") -> Archives:
    return Archives(wishes(toml), {"DRIVER_ARCHIVES": told} if told else {}, root)


def lay(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_environment_wins_over_the_toml_and_the_toml_over_apt(tmp_path: Path) -> None:
    lay(tmp_path, "sources.list", "deb https://apt.example/debian bookworm main\n")
    assert archives(tmp_path, "debian=https://told.example/debian", TOML).bases("debian") == ("https://told.example/debian",)
    assert archives(tmp_path, "", TOML).bases("debian")[0] == "https://toml.example/debian"
    assert archives(tmp_path).bases("debian") == ("https://apt.example/debian",)


def test_an_archive_that_the_environment_leaves_out_is_found_further_down(tmp_path: Path) -> None:
    lay(tmp_path, "sources.list", "deb https://apt.example/debian-security bookworm-security main\n")
    found = archives(tmp_path, "debian=https://told.example/debian", TOML)
    assert found.bases("debian-security") == ("https://apt.example/debian-security",)


def test_a_name_may_have_several_addresses_which_keep_their_order_and_lose_their_last_slash(tmp_path: Path) -> None:
    told = "debian=https://b.example/debian/ other=http://c.example:8080/x\n debian=http://a.example/debian"
    found = archives(tmp_path, told)
    assert found.bases("debian") == ("https://b.example/debian", "http://a.example/debian")
    assert found.bases("other") == ("http://c.example:8080/x",)
    assert archives(tmp_path, "", TOML).bases("debian")[1].endswith("/20260101T000000Z")


def test_one_line_sources_are_read_with_their_options_and_without_what_is_commented_out(tmp_path: Path) -> None:
    lay(
        tmp_path,
        "sources.list",
        """
# deb https://commented.example/debian bookworm main
deb-src https://sources.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] https://options.example/debian/ bookworm main
deb cdrom:[Debian]/debian bookworm main
""",
    )
    lay(tmp_path, "sources.list.d/more.list", "deb http://more.example/debian bookworm main # a comment\n")
    lay(tmp_path, "sources.list.d/off.list.disabled", "deb http://off.example/debian bookworm main\n")
    assert archives(tmp_path).bases("debian") == ("https://options.example/debian", "http://more.example/debian")


def test_deb822_sources_are_read_without_the_disabled_ones_and_those_of_sources_only(tmp_path: Path) -> None:
    lay(
        tmp_path,
        "sources.list.d/debian.sources",
        """Types: deb deb-src
# a comment inside
URIs: https://one.example/debian
 https://two.example/debian/
Suites: bookworm

Types: deb
URIs: https://off.example/debian
Enabled: no

types: deb-src
uris: https://sources.example/debian

Types: deb
URIs: https://one.example/debian-security https://one.example/debian
Suites: bookworm-security
""",
    )
    found = archives(tmp_path)
    assert found.bases("debian") == ("https://one.example/debian", "https://two.example/debian")
    assert found.bases("debian-security") == ("https://one.example/debian-security",)


def test_an_archive_nobody_knows_is_an_error_that_says_how_to_set_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        archives(tmp_path).bases("debian-security")
    assert "DRIVER_ARCHIVES='debian-security=" in str(caught.value)
    assert "[archives]" in str(caught.value)


@pytest.mark.parametrize("told", ["https://a.example/debian", "=https://a.example/debian", "a/b=https://a.example"])
def test_an_item_without_a_name_is_an_error_that_shows_it(tmp_path: Path, told: str) -> None:
    with pytest.raises(UsageError, match="DRIVER_ARCHIVES holds") as caught:
        archives(tmp_path, told).bases("debian")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "base",
    [
        "",
        "ftp://a.example/debian",
        "file:///srv/debian",
        "https://",
        "https://a.example/debian?x=1",
        "https://a.example/$(id)",
    ],
)
@pytest.mark.parametrize("where", ["environment", "toml"])
def test_only_plain_http_addresses_are_taken(tmp_path: Path, base: str, where: str) -> None:
    told, toml = (f"debian={base}", "") if where == "environment" else ("", f'[archives]\ndebian = ["{base}"]\n')
    with pytest.raises(UsageError, match="is not an address of the archive 'debian'"):
        archives(tmp_path, told, toml).bases("debian")


SUITES = """
[debian]
version_id = "12"
keyring = "/none"
suites = [{archive = "debian-security", suite = "bookworm-security"}]
toolchain = ["gcc-12"]
base = ["busybox"]
"""


@pytest.mark.parametrize("name", ["debian", "debian-security", "of-the-lock"])
def test_a_name_that_wishes_or_lock_have_is_known(tmp_path: Path, name: str) -> None:
    archives(tmp_path, f"{name}=https://a.example/x", TOML + SUITES).check(lambda: {"of-the-lock"})


def test_a_name_that_nothing_uses_is_misspelt_and_the_line_says_which_there_are(tmp_path: Path) -> None:
    found = archives(tmp_path, "debian=https://a.example/debian debain=https://a.example/debian", TOML + SUITES)
    with pytest.raises(UsageError) as caught:
        found.check(lambda: {"of-the-lock"})
    assert str(caught.value) == (
        "DRIVER_ARCHIVES names the archive 'debain', which neither versions.toml nor versions.lock has: "
        "one of debian, debian-security, of-the-lock"
    )


def test_an_address_that_is_none_is_told_before_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'ftp://a\.example/debian' is not an address of the archive 'debian'"):
        archives(tmp_path, "debian=ftp://a.example/debian", TOML).check(set)
