"""Rules and patches: which driver does not go with which kernel, what cures it, and what our patch does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.workspace import Workspace
from pipeline.config import compat, lockfile
from pipeline.config.compat import Compat, Verdict
from pipeline.config.records import Kind, Os, kept
from pipeline.core.errors import BadFileError
from pipeline.core.versions import VersionRange
from pipeline.formats import debs
from pipeline.formats.unpacking import from_tar, to_directory, unpacked

ROOT = Path(__file__).parents[3]
ENVIRON = dict(os.environ)  # as the person has it, whatever tests set
RECORDED = ROOT.parent / "shared" / "upstream"
recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded upstream metadata is not beside this checkout")
PATCH = ROOT / "dockerfiles" / "patches" / "535-pci-resize-resource.patch"
FOUR = "open-pci-resize-resource"

RULES = """
[[rule]]
name = "needs"
outcome = "needs-patch"
driver = "570"
kernel = ">=6.18.41"
reason = "does not compile there"
see = "https://example.com/344"

[[rule]]
name = "never"
outcome = "exclude"
kinds = ["open"]
kernel = "<4.15"
reason = "open modules are younger"
see = "https://example.com/readme"

[[patch]]
file = "x.patch"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
driver = ">=570.100, <571"
cures = ["needs"]
reason = "asks the headers"
see = "https://example.com/344"
"""


@pytest.fixture(scope="module")
def ours() -> Compat:
    return compat.load(ROOT / compat.COMPAT_FILE)


def named(verdict: Verdict) -> str:
    return verdict.rule.name if verdict.rule else ""


# Ranges


@pytest.mark.parametrize(
    ("version", "inside"),
    [
        ("6.1.75", False),
        ("6.1.76", True),
        ("6.1.192", True),
        ("6.2", False),
        ("6.6.14", False),
        ("6.6.15", True),
        ("6.7.2", False),
        ("6.7.3", True),
        ("7.0.0-rc3", True),
    ],
)
def test_a_union_of_ranges_follows_a_change_through_stable_kernels(version: str, inside: bool) -> None:
    assert (version in VersionRange(">=6.1.76, <6.2 | >=6.6.15, <6.7 | >=6.7.3")) is inside


@given(st.tuples(*[st.integers(0, 30)] * 3), st.tuples(*[st.integers(0, 30)] * 3), st.tuples(*[st.integers(0, 30)] * 3))
def test_a_half_open_range_holds_its_lower_bound_and_not_its_upper_one(
    low: tuple[int, ...], high: tuple[int, ...], at: tuple[int, ...]
) -> None:
    text = [".".join(map(str, numbers)) for numbers in (low, high, at)]
    assert (text[2] in VersionRange(f">={text[0]}, <{text[1]}")) is (low <= at < high)
    assert (text[2] in VersionRange(f"=={text[0]} | =={text[1]}")) is (at in (low, high))


# The file


def test_the_first_rule_that_holds_decides_and_says_what_lifts_it() -> None:
    verdict = compat.why(compat.parse(RULES), "6.18.41", "570.86.15", "open", "flatcar")
    assert named(verdict) == "needs"
    assert verdict.lift == ("a driver outside 570 or a kernel outside >=6.18.41 or a patch for it, listed in compat.toml")
    assert verdict.patches == ()


def test_a_rule_that_needs_a_patch_does_not_hold_where_one_that_cures_it_applies() -> None:
    verdict = compat.why(compat.parse(RULES), "6.18.41", "570.133.07", "open", "flatcar")
    assert verdict.rule is None
    assert [patch.file_name for patch in verdict.patches] == ["x.patch"]


def test_a_rule_for_one_kind_names_the_other_as_a_way_out() -> None:
    rules = compat.parse(RULES)
    verdict = compat.why(rules, "4.14.96", "580.95.05", "open", "container-linux")
    assert verdict.lift == "a kernel outside <4.15 or the proprietary modules"
    assert compat.why(rules, "4.14.96", "580.95.05", "proprietary", "container-linux").rule is None


def test_a_pair_has_a_verdict_on_each_of_its_kinds() -> None:
    found = compat.pair(compat.parse(RULES), "4.14.96", "580.95.05", ("proprietary", "open"), "container-linux")
    assert list(found.kinds) == ["open", "proprietary"]
    assert list(found.excluded) == ["open"]


def test_an_unknown_pair_is_tried() -> None:
    assert compat.why(compat.parse(RULES), "9.9.9", "999.10.01", "open", "debian") == Verdict()


def test_a_condition_on_gcc_or_an_os_holds_only_where_that_is_known() -> None:
    rules = compat.parse(RULES.replace('kernel = "<4.15"', 'kernel = "<4.15"\ngcc = ">=15"\nos = ["debian"]'))

    def name(os: Os, gcc: str | None) -> str:
        return named(compat.why(rules, "4.14.1", "580.95.05", "open", os, gcc))

    assert name("debian", "15.2.0") == "never"
    assert name("debian", "14.3") == name("debian", None) == name("flatcar", "15.2.0") == ""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('">=6.18.41"', '">6.18.41"', "not half-open"),
        ('"570"', '"<=570.99"', "not half-open"),
        ('">=6.18.41"', '">=6.18.41, <6.18"', "no version is in"),
        ('">=6.18.41"', '"new ones"', "not a version range"),
        ('">=6.18.41"', '">=6.18.41 |"', "not a version range"),
        ('name = "never"', 'name = "needs"', "stands twice"),
        ('cures = ["needs"]', 'cures = ["never"]', "no rule 'never' that needs a patch"),
        ('kernel = "<4.15"', "", "excludes everything"),
        ('see = "https://example.com/readme"', "", "see"),
        ('reason = "open modules are younger"', 'reason = ""', "reason"),
        ('reason = "open modules are younger"', 'reason = "            "', "reason"),
        ('outcome = "exclude"', 'outcome = "maybe"', "outcome"),
        ('file = "x.patch"', 'file = "../x.patch"', "file"),
        ('sha256 = "0', 'sha256 = "', "sha256"),
        ("[[patch]]", "[[patches]]", "patches"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_its_name_and_the_place(old: str, new: str, message: str) -> None:
    assert old in RULES
    with pytest.raises(BadFileError, match=message) as caught:
        compat.parse(RULES.replace(old, new))
    assert str(caught.value).startswith("compat.toml: ")


def test_a_patch_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    patch = compat.parse(RULES).patches[0]
    with pytest.raises(BadFileError, match="restore it"):
        patch.read(tmp_path)
    (tmp_path / patch.file).write_text("edited\n")
    with pytest.raises(BadFileError, match="its sha256 is"):
        patch.read(tmp_path)


# Our rules

OPEN_AND_CLOSED: list[Kind] = ["open", "proprietary"]


def test_our_file_is_sound_and_its_patches_are_the_pinned_ones(ours: Compat) -> None:
    assert [patch.read(ROOT / compat.PATCHES) for patch in ours.patches] == [PATCH.read_bytes()]
    assert {path.name for path in (ROOT / compat.PATCHES).iterdir()} == {patch.file for patch in ours.patches}
    assert len(ours.rules) == 16


def test_535_261_03_is_built_on_6_1_0_56_both_kinds_the_open_one_patched(ours: Compat) -> None:
    verdicts = compat.pair(ours, "6.1.192", "535.261.03", ("open", "proprietary"), "debian")
    assert verdicts.excluded == {}
    files = {kind: [patch.file for patch in verdict.patches] for kind, verdict in verdicts.kinds.items()}
    assert files == {"open": [PATCH.name], "proprietary": []}


def test_the_patch_tests_the_headers_so_every_kernel_of_that_driver_gets_it(ours: Compat) -> None:
    for kernel in ("6.1.170", "6.1.176", "6.1.192", "6.12.102"):
        assert [p.file for p in compat.why(ours, kernel, "535.261.03", "open", "debian").patches] == [PATCH.name]


@pytest.mark.parametrize("driver", ["535.309.01", "580.126.09", "580.178.04", "590.48.01", "595.84", "525.147.05"])
def test_a_driver_with_its_own_probe_or_without_the_call_gets_no_patch(ours: Compat, driver: str) -> None:
    for kernel in ("6.1.192", "6.18.41"):
        verdict = compat.why(ours, kernel, driver, "open", "flatcar")
        assert (named(verdict) == FOUR, verdict.patches) == (False, ())


@pytest.mark.parametrize(
    ("kernel", "rule"),
    [
        ("6.1.176", ""),
        ("6.1.178", FOUR),
        ("6.2.16", ""),
        ("6.12.96", ""),
        ("6.12.97", FOUR),
        ("6.12.102", FOUR),
        ("6.18.28", ""),
        ("6.18.41", FOUR),
        ("6.19.0", FOUR),
        ("7.1", FOUR),
    ],
)
def test_570_fails_from_the_stable_kernels_that_took_the_change_in(ours: Compat, kernel: str, rule: str) -> None:
    assert named(compat.why(ours, kernel, "570.211.01", "open", "flatcar")) == rule


@pytest.mark.parametrize(
    ("kernel", "driver", "kind", "rule"),
    [
        ("6.1.76", "535.104.05", "proprietary", "gpl-only-rcu-read-lock"),
        ("6.1.75", "535.104.05", "proprietary", ""),
        ("6.1.76", "535.161.07", "proprietary", ""),
        ("6.1.76", "535.104.05", "open", ""),
        ("6.7.3", "470.223.02", "proprietary", "gpl-only-rcu-read-lock"),
        ("6.7.3", "470.256.02", "proprietary", ""),
        ("4.14.96", "535.261.03", "open", "open-before-4.15"),
        ("6.7", "340.108", "proprietary", "340-from-6.7"),
        ("6.6.99", "340.108", "proprietary", ""),
        ("6.18", "390.157", "proprietary", "390-from-6.18"),
        ("6.17.13", "550.163.01", "open", "550-555-from-6.17"),
        ("6.17.13", "550.163.01", "proprietary", "before-576-proprietary-from-6.17"),
        ("6.16.12", "550.163.01", "open", ""),
        ("6.19", "590.48.01", "open", "590-open-from-6.19"),
        ("6.5", "535.43.02", "proprietary", "525-before-130-from-6.5"),
        ("6.5", "535.54.03", "proprietary", ""),
        ("7.2.6", "470.256.02", "proprietary", "470.256.02-535.216.03-from-7.2.6"),
        ("7.2.5", "470.256.02", "proprietary", ""),
        ("7.3.4", "470.239.06", "proprietary", ""),
        ("7.2.13", "535.216.03", "proprietary", "470.256.02-535.216.03-from-7.2.6"),
        ("7.2.6", "535.261.03", "open", "535.261.03-open-from-7.2.6"),
        ("7.2.6", "535.261.03", "proprietary", "535.261.03-535.274.02-from-7.2.6"),
        ("7.2.5", "535.261.03", "proprietary", ""),
        ("7.3.4", "535.274.02", "proprietary", "535.261.03-535.274.02-from-7.2.6"),
        ("7.2.6", "535.309.01", "proprietary", "535.309.01-from-7.2.6"),
        ("7.2.5", "535.309.01", "proprietary", ""),
        ("7.3.4", "535.309.01", "open", ""),
        ("7.3.4", "535.247.01", "proprietary", ""),
    ],
)
def test_the_facts_that_have_a_source(ours: Compat, kernel: str, driver: str, kind: Kind, rule: str) -> None:
    assert named(compat.why(ours, kernel, driver, kind, "debian")) == rule


def test_a_distributors_support_ceiling_is_no_rule_so_those_pairs_are_tried(ours: Compat) -> None:
    for kernel, driver in (("6.18.1", "535.309.01"), ("6.12.1", "470.256.02"), ("7.1.9", "580.178.04")):
        assert named(compat.why(ours, kernel, driver, "proprietary", "fedora-coreos")) == ""


@recorded
@pytest.mark.parametrize(
    ("rule", "kind", "file", "rows"),
    [
        ("gpl-only-rcu-read-lock", "closed", "all/6.1-6-7-8-gpl.diff", 4),
        ("525-before-80-from-6.2", "closed", "all/kernel-6.2.patch", 1),
        ("530-from-6.4", "closed", "all/kernel-6.4.patch", 1),
        ("525-from-6.8", "closed", "all/kernel-6.8.patch", 1),
        ("590-open-from-6.19", "open", "all/kernel-6.19.patch", 1),
    ],
)
def test_the_drivers_of_a_rule_are_those_of_its_recorded_source(ours: Compat, rule: str, kind: str, file: str, rows: int) -> None:
    driver = VersionRange(next(found.driver for found in ours.rules if found.name == rule))
    lines = (RECORDED / "compat" / "nvidia-all-patches.list").read_text().splitlines()
    bounds = [words[4:6] for line in lines if (words := line.split())[:2] == [kind, file]]
    mine = [(low, high) for low, high in bounds if low in driver]
    assert len(mine) == rows
    for _, high in mine:
        branch, _, minor = high.partition(".")
        after = f"{branch}.{int(minor.split('.')[0]) + 1}"
        assert high in driver
        assert after not in driver or minor == "9999"


# The patch

needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def probe() -> str:
    """The C text of the patch's probe, as conftest.sh hands it to the compiler."""
    match = re.search(r'^\+ +CODE="\n((?:\+.*\n)+?\+ +\})"\n', PATCH.read_text(), re.MULTILINE)
    assert match
    return re.sub(r"^\+", "", match[1], flags=re.MULTILINE)


@needs_compiler
@pytest.mark.parametrize(
    ("parameters", "compiles"), [("struct pci_dev *, int, int", False), ("struct pci_dev *, int, int, int", True)]
)
def test_its_probe_compiles_only_where_the_headers_declare_four_arguments(
    tmp_path: Path, parameters: str, compiles: bool
) -> None:
    header = tmp_path / "linux" / "pci.h"
    header.parent.mkdir()
    header.write_text(f"struct pci_dev;\nint pci_resize_resource({parameters});\n")
    (tmp_path / "conftest.c").write_text(probe())
    words = ["gcc", "-I", str(tmp_path), "-c", str(tmp_path / "conftest.c"), "-o", str(tmp_path / "conftest.o")]
    assert (subprocess.run(words, check=False, capture_output=True).returncode == 0) is compiles


def test_its_names_are_not_those_of_nvidias_own_probe() -> None:
    text = PATCH.read_text()
    assert "pci_resize_resource_takes_exclude_bars" in text
    assert "has_exclude_bars" not in text.lower()


def sources(package: str, dest: Path) -> Path:
    """conftest.sh, nvidia.Kbuild and nv-pci.c of a pinned package of module sources, as it lies in the cache."""
    pinned = next(
        file
        for driver in lockfile.load(ROOT / "tests/debian" / lockfile.LOCK_FILE).drivers
        if driver.version == "535.261.03"
        for file in (*driver.open, *driver.proprietary)
        if file.name == package
    )
    deb = kept(Workspace(ROOT, ENVIRON).store, pinned.sha256)
    if not deb.is_file():
        pytest.skip(f"{package} {pinned.version} is not among the downloads ('doit fetch' gets it)")
    packages = debs.unpack(deb, dest / "deb", lambda name: name.endswith(".tar.xz"))
    archive = next(path for path in packages if path.name.endswith(".tar.xz"))
    wanted = re.compile(r"modules/[a-z-]+/(conftest\.sh|nvidia/nvidia\.Kbuild|nvidia/nv-pci\.c)")
    with archive.open("rb") as file:
        entries = from_tar(unpacked(file, package), package)
        tree = to_directory(entries, dest / "sources", package, lambda name: wanted.fullmatch(name) is not None)
    return next((tree / "modules").iterdir())


@pytest.mark.skipif(shutil.which("patch") is None, reason="patch is not installed")
def test_it_applies_without_fuzz_to_the_open_modules_and_changes_three_files(tmp_path: Path) -> None:
    tree = sources("nvidia-open-kernel-source", tmp_path)
    words = ["patch", "-p1", "--fuzz=0", "-i", str(PATCH)]
    done = subprocess.run(words, check=False, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("patching file") == 3
    assert (
        "NV_CONFTEST_TYPE_COMPILE_TESTS += pci_resize_resource_takes_exclude_bars"
        in (tree / "nvidia" / "nvidia.Kbuild").read_text()
    )


def test_the_proprietary_modules_never_call_the_function_and_so_need_no_patch(tmp_path: Path) -> None:
    tree = sources("nvidia-kernel-source", tmp_path)
    assert "nv_resize_pcie_bars" in (tree / "nvidia" / "nv-pci.c").read_text()
    assert "pci_resize_resource" not in (tree / "nvidia" / "nv-pci.c").read_text()
