"""Toolchains that versions.toml names: a vendor's image by digest, with packages whose signatures are checked."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pipeline.config import lockfile
from pipeline.config.policies import policies
from pipeline.config.records import Lock
from pipeline.update.reconcile import Notes
from pipeline.update.toolchains import vendor_toolchains
from tests import samples
from tests.signed_archive import Key
from tests.standins import packing
from tests.unit.update.test_pin_vendors import KEY_URL, Vendor, fingerprint

pytestmark = pytest.mark.skipif(
    not packing.have("rpmbuild", "rpmsign", "gpg", "gpgv"),
    reason="rpm or gnupg is not installed (./doit.sh test installs them)",
)
URL = "https://kojipkgs.fedoraproject.org/packages/gcc/15.2.1/1.fc44/x86_64/gcc-15.2.1-1.fc44.x86_64.rpm"
WISHES = """
[fedora-coreos]
keys = [{{fingerprint = "{key}", source = "{url}"}}]

[[toolchain]]
name = "fedora-44"
os = "fedora-coreos"
image = "registry.fedoraproject.org/fedora:44"
digests = {{{arch} = "sha256:{digest}"}}
packages = {{{arch} = ["{package}"]}}
reason = "the compiler that built Fedora's kernels"
"""


@pytest.fixture
def vendor(signing_key: Key, tmp_path: Path) -> Vendor:
    (tmp_path / "taken").mkdir()
    return Vendor(signing_key, tmp_path / "taken")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gcc as an RPM that nobody signed."""
    work = tmp_path_factory.mktemp("gcc")
    (work / "root/usr/bin").mkdir(parents=True)
    (work / "root/usr/bin/gcc").write_text("a compiler")
    return packing.rpm(work / "root", "gcc", "15.2.1", "1.fc44", work / "rpm")


def updated(vendor: Vendor, held: Lock | None = None, *, key: str = "", arch: str = "amd64") -> tuple[Lock, Notes]:
    values = {"key": key or fingerprint(vendor.key), "url": KEY_URL, "digest": "0" * 64, "package": URL, "arch": arch}
    wishes = samples.wishes(WISHES.format(**values))
    notes, start = Notes(), held or lockfile.empty()
    return vendor_toolchains(wishes.toolchains, policies(wishes), start, vendor.means(), notes), notes


def test_a_signed_package_is_pinned_by_its_sum_and_asked_for_once(vendor: Vendor, package: Path, tmp_path: Path) -> None:
    vendor.files[URL] = packing.signed_rpm(package, vendor.key.home, tmp_path / "signed").read_bytes()
    made, notes = updated(vendor)
    (toolchain,) = made.toolchains
    assert toolchain.image is not None
    assert (toolchain.image.name, toolchain.image.tag) == ("registry.fedoraproject.org/fedora", "44")
    (gcc,) = toolchain.packages
    assert (gcc.name, gcc.version, gcc.urls, gcc.trust) == ("gcc", "15.2.1-1.fc44", (URL,), "vendor-sum")
    assert notes == Notes()
    vendor.files.clear()
    assert updated(vendor, made) == (made, Notes())


@pytest.mark.parametrize("spoilt", ["unsigned", "other key", "other bytes", "no rpm", "gone"])
def test_a_package_that_cannot_be_vouched_for_is_one_line_and_what_was_pinned_stays(
    spoilt: str, vendor: Vendor, package: Path, tmp_path: Path
) -> None:
    signed = packing.signed_rpm(package, vendor.key.home, tmp_path / "signed").read_bytes()
    data = {"unsigned": package.read_bytes(), "other key": signed, "other bytes": signed[:-64] + bytes(64), "no rpm": b"<html>"}
    says = {
        "unsigned": "is not signed",
        "other key": "which versions.toml does not name",
        "other bytes": "its payload is not the one its header names",
        "no rpm": "is not an RPM package",
        "gone": "404",
    }
    if spoilt in data:
        vendor.files[URL] = data[spoilt]
    key = "0" * 40 if spoilt == "other key" else ""
    made, notes = updated(vendor, key=key)
    (line,) = notes.problems
    assert line.startswith("toolchain fedora-44/amd64: ")
    assert says[spoilt] in line
    assert "\n" not in line
    assert made.toolchains == (), "nothing of it is pinned"
    before = samples.fedora()
    older = msgspec.structs.replace(before, packages=(samples.vendor_file(URL.replace("15.2.1", "15.2.0")),))
    kept, notes = updated(vendor, msgspec.structs.replace(lockfile.empty(), toolchains=(older,)), key=key)
    assert kept.toolchains == (older,)
    assert notes.problems[0].endswith("; the pinned one is kept")


@pytest.mark.parametrize(
    ("made_for", "arch", "taken"),
    [("x86_64", "amd64", True), ("x86_64", "arm64", False), ("noarch", "amd64", True), ("noarch", "arm64", True),
     ("aarch64", "amd64", False), ("aarch64", "arm64", True), ("i686", "amd64", False)],
)  # fmt: skip
def test_a_package_for_another_architecture_is_refused_however_well_it_is_signed(
    made_for: str, arch: str, taken: bool, vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if made_for != "noarch":  # rpmbuild makes another machine's package by --target, not by BuildArch
        monkeypatch.setattr(packing, "_SPEC", packing._SPEC.replace("BuildArch: {arch}\n", ""))
    (tmp_path / "root/usr/share").mkdir(parents=True)
    (tmp_path / "root/usr/share/text").write_text("what a header says of its architecture decides, not an address")
    made = packing.rpm(tmp_path / "root", "gcc", "15.2.1", "1.fc44", tmp_path / "rpm", arch=made_for)
    vendor.files[URL] = packing.signed_rpm(made, vendor.key.home, tmp_path / "signed").read_bytes()
    pinned, notes = updated(vendor, arch=arch)
    if taken:
        ((package,),) = (toolchain.packages for toolchain in pinned.toolchains)
        assert (package.name, package.version, notes.problems) == ("gcc", "15.2.1-1.fc44", [])
        return
    assert pinned.toolchains == ()
    rpm = {"amd64": "x86_64", "arm64": "aarch64"}[arch]
    (line,) = notes.problems
    assert line == (
        f"toolchain fedora-44/{arch}: {URL} holds gcc-15.2.1-1.fc44.{made_for}, a package for {made_for}, and the toolchain is "
        f"for {arch}: packages of its [[toolchain]] takes those of {rpm} and noarch for {arch}"
    )


def test_without_the_vendors_key_no_package_is_taken(vendor: Vendor, package: Path, tmp_path: Path) -> None:
    vendor.files[URL] = packing.signed_rpm(package, vendor.key.home, tmp_path / "signed").read_bytes()
    wishes = samples.wishes(
        WISHES.format(key="0" * 40, url=KEY_URL, digest="0" * 64, package=URL, arch="amd64").split("\n\n", 1)[1]
    )
    notes = Notes()
    vendor_toolchains(wishes.toolchains, policies(wishes), lockfile.empty(), vendor.means(), notes)
    assert "its vendor's key belongs in [fedora-coreos] keys" in notes.problems[0]
    assert not vendor.asked
