"""Lists of GPUs in NVIDIA's README files: lines as they stand in those of 535.261.03, few of each part."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.errors import UpstreamDataError
from pipeline.trees import tars
from pipeline.trees.spec import of_driver
from pipeline.upstream.nvidia import gpu_lists, supported_gpus
from tests import samples
from tests.standins import packing

README = """\
Appendix A. Supported NVIDIA GPU Products
______________________________________________________________________________

A1. CURRENT NVIDIA GPUS


 NVIDIA GPU product                               Device PCI ID*  VDPAU features
 -----------------------------------------------  --------------  --------------
 NVIDIA GeForce 840A                              1341 17AA 3697  E
 NVIDIA GeForce GTX 1070 with Max-Q Design        1BA1 1D05 1032  H 2
 NVIDIA GeForce GTX 1080                          1B80            H 2
 Quadro RTX 6000                                  1E30            J
 NVIDIA A100 80GB PCIe                            20B5 10DE 1533  -
 NVIDIA H100 80GB HBM3                            2330            -


Below are the legacy GPUs that are no longer supported in the unified driver.

The 470.xx driver supports the following set of GPUs:


 NVIDIA GPU product                               Device PCI ID*  VDPAU features
 -----------------------------------------------  --------------  --------------
 Tesla K80                                        102D            D


The 71.86.xx driver supports the following set of GPUs:


 NVIDIA GPU product                               Device PCI ID
 -----------------------------------------------  --------------
 RIVA TNT                                         0020
 Tesla K80                                        102D


* If three IDs are listed, the first is the PCI Device ID, the second is the
PCI Subsystem Vendor ID, and the third is the PCI Subsystem Device ID.

 Something else in a table                        1234            A
"""
OPEN = """\
| Product Name                                    | PCI ID         |
| ----------------------------------------------- | -------------- |
| Quadro RTX 6000                                 | 1E30           |
| NVIDIA A100 80GB PCIe                           | 20B5 10DE 1533 |
| NVIDIA H100 80GB HBM3                           | 2330           |
"""


def table(readme: str, open_readme: str | None = OPEN) -> list[str]:
    gpus = gpu_lists.parse(readme.encode(), open_readme.encode() if open_readme is not None else None, "a README")
    return supported_gpus.kind_table(gpus.chips).decode().splitlines()


def test_what_both_texts_list_takes_either_kind_and_the_rest_the_proprietary_one() -> None:
    assert table(README) == [
        "10de:0020 legacy 71.86",
        "10de:102d legacy 470",
        "10de:1341 proprietary",
        "10de:1b80 proprietary",
        "10de:1ba1 proprietary",
        "10de:1e30 both",
        "10de:20b5 both",
        "10de:2330 both",
    ]


def test_without_the_open_modules_text_a_gpu_is_only_listed() -> None:
    assert "10de:2330 listed" in table(README, None)
    assert "10de:102d legacy 470" in table(README, None)


@pytest.mark.parametrize(("readme", "of_open", "words"), [("nothing", OPEN, r"README\.txt"), (README, "nothing", r"README\.md")])
def test_a_text_without_a_list_is_refused(readme: str, of_open: str, words: str) -> None:
    with pytest.raises(UpstreamDataError, match=words):
        table(readme, of_open)


def package(name: str, folder: Path, text: str, document: str) -> Path:
    """A Debian package with one document, packed as Debian packs it."""
    place = folder / name / "usr/share/doc" / name / document
    place.parent.mkdir(parents=True)
    place.write_text(text)
    packing.run("gzip", "-n", place)
    control = folder / name / "DEBIAN/control"
    control.parent.mkdir()
    control.write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: tests <tests@example.com>\nDescription: x\n"
    )
    packing.run("dpkg-deb", "--root-owner-group", "-b", folder / name, folder / f"{name}.deb")
    return folder / f"{name}.deb"


def test_the_table_comes_out_of_debians_packages_as_they_are(tmp_path: Path) -> None:
    debs = [
        package("nvidia-vdpau-driver", tmp_path, README, "README.txt"),
        package("nvidia-open-kernel-source", tmp_path, OPEN, "README.md"),
    ]
    (entry,) = tars.entries("debian-gpus", debs, "", tmp_path, 1 << 20)
    assert entry.name == "out/opt/nvidia-driver/gpus"
    assert entry.data is not None
    assert entry.data.read().decode().splitlines() == table(README)


def test_a_package_without_the_text_gives_no_table(tmp_path: Path) -> None:
    assert not list(tars.entries("debian-gpus", [package("nvidia-vdpau-driver", tmp_path, "x", "NEWS")], "", tmp_path, 1 << 20))


def test_the_table_is_decided_by_both_packages() -> None:
    texts = samples.package("nvidia-vdpau-driver", "535.261.03-1")
    with_open = samples.driver(userspace=(texts,))
    (tree,) = of_driver(with_open, "userspace")
    assert tree.files == (texts, *with_open.open)
    (alone,) = of_driver(samples.driver(userspace=(texts,), open=()), "userspace")
    assert alone.key != tree.key
    assert of_driver(with_open, "modules") == ()
