"""CONTRIBUTING's worked example of a fifth OS family, exactly as it stands there: three texts, and ``doit`` knows the family."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.checkout import ROOT, Checkout
from tests.documents import blocks
from tests.misbehaving_server import MisbehavingServer, file
from tests.signed_archive import Key
from tests.standins import packing

pytestmark = pytest.mark.skipif(
    not packing.have("rpmbuild", "rpmsign", "gpg", "gpgv"),
    reason="rpm or gnupg is not installed (./doit.sh test installs them)",
)
SITE = "https://releases.orchard.example"
KERNEL, DRIVER = "6.1.176-7.orchard.x86_64", "535.261.03"
MODULE, TEMPLATE, TABLE = (blocks(ROOT / "CONTRIBUTING.md", language)[0] for language in ("python", "dockerfile", "toml"))
WISH = f"""
[[driver]]
exact = "{DRIVER}"
reason = "a driver for the example"
"""


@pytest.fixture(scope="module")
def orchard(tmp_path_factory: pytest.TempPathFactory, signing_key: Key) -> Iterator[Checkout]:
    """A checkout with the three texts in it, whose vendor answers on loopback. Nothing of the other families is followed."""
    work = tmp_path_factory.mktemp("orchard")
    with MisbehavingServer() as server:
        checkout = Checkout(work / "checkout", DRIVER_MIRRORS=str(work / "mirrors.toml"), DRIVER_CACHE=str(work / "cache"))
        for text in (MODULE, TEMPLATE):
            place = re.search(r"[a-z]\S+\.(py|j2)", text.splitlines()[0])
            assert place, "the first line says where the text belongs"
            (checkout.root / place[0]).write_text(text)
        fingerprint = next(
            line.split(":")[9]
            for line in signing_key._gpg("--list-keys", "--with-colons").decode().splitlines()
            if line[:3] == "fpr"
        )
        table = TABLE.replace("0123456789ABCDEF0123456789ABCDEF01234567", fingerprint)
        (checkout.root / "versions.toml").write_text(table + WISH)
        checkout.relock(lambda held: msgspec.structs.replace(held, kernels=(), pending=(), pending_drivers=()))
        (work / "mirrors.toml").write_text(f'[mirrors]\n"{SITE}/" = "{server.base}/orchard/"\n')
        feed = {"12.4": {"kernel": KERNEL, "date": "2026-09-01"}}
        server.says("/orchard/releases.json", file(json.dumps(feed).encode()))
        server.says("/orchard/key.gpg", file(signing_key.keyring.read_bytes()))
        packed = {"kernel-devel": f"usr/src/kernels/{KERNEL}/.config", "kernel-core": f"lib/modules/{KERNEL}/vmlinuz"}
        for package, content in packed.items():
            root = work / package
            (root / content).parent.mkdir(parents=True)
            (root / content).write_text("content")
            made = packing.rpm(root, package, "6.1.176", "7.orchard", work / f"{package}.work")
            signed = packing.signed_rpm(made, signing_key.home, work / "signed")
            server.says(f"/orchard/12.4/{package}-{KERNEL}.rpm", file(signed.read_bytes()))
        checkout.doit("update").ended(0)
        yield checkout


def test_update_pins_the_kernel_of_a_family_that_three_texts_describe(orchard: Checkout) -> None:
    held = json.loads((orchard.root / "versions.lock").read_text())
    (kernel,) = held["kernels"]
    assert (kernel["os"], kernel["kernel"], kernel["form"], kernel["toolchain"]) == ("orchard", KERNEL, "rpms", "orchard-1")
    assert [(release["id"], release["version_id"]) for release in kernel["releases"]] == [("orchard", "12.4")]
    assert kernel["headers"][0]["urls"] == [f"{SITE}/12.4/kernel-devel-{KERNEL}.rpm"]
    assert {t["name"]: t["os"] for t in held["toolchains"]}["orchard-1"] == "orchard"


def test_a_second_update_changes_no_byte(orchard: Checkout) -> None:
    before = (orchard.root / "versions.lock").read_bytes()
    orchard.doit("update").ended(0)
    assert (orchard.root / "versions.lock").read_bytes() == before


def test_render_writes_its_image_and_its_own_toolchain(orchard: Checkout) -> None:
    orchard.doit("render").ended(0)
    docker = orchard.root / "build/docker"
    assert "/opt/orchard/toolchain/bin" in (docker / "toolchain/orchard-1-amd64/Dockerfile").read_text()
    image = (docker / f"image/orchard/amd64/{KERNEL}-{DRIVER}/Dockerfile").read_text()
    assert f'LABEL io.coreos-nvidia.arch="amd64" io.coreos-nvidia.driver="{DRIVER}"' in image
    assert 'io.coreos-nvidia.os="orchard"' in image


def test_list_and_status_know_its_pair(orchard: Checkout) -> None:
    pair = f"orchard/amd64:{KERNEL}-{DRIVER}"
    assert f"image:{pair}" in orchard.doit("list", "--all").ended(0).out
    assert "toolchain:orchard-1/amd64" in orchard.doit("list", "--all").out


def test_a_family_that_nobody_describes_is_refused_by_name(orchard: Checkout, tmp_path: Path) -> None:
    text = (orchard.root / "versions.toml").read_text()
    try:
        (orchard.root / "versions.toml").write_text(text.replace("orchard]", "orchards]"))
        assert "unknown field `orchards`" in orchard.doit("render").ended(3).complaint
        (orchard.root / "versions.toml").write_text(text + '[[exclude]]\nos = ["plum"]\nreason = "no such fruit"\n')
        assert "no OS 'plum': there are debian, host, container-linux" in orchard.doit("render").ended(3).complaint
    finally:
        (orchard.root / "versions.toml").write_text(text)
